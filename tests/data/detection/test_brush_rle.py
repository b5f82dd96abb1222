"""brush_strokes.json: what label-studio-sdk wrote and read as these masks."""

import json
from pathlib import Path

import numpy as np
import pytest

from botformer.data.detection.brush_rle import decode_brush, encode_brush

STROKES = json.loads((Path(__file__).parent / "label_studio" / "brush_strokes.json").read_text())["strokes"]


def mask_of(stroke) -> np.ndarray:
    return np.array([[each == "#" for each in row] for row in stroke["rows"]])


@pytest.mark.parametrize("number", range(len(STROKES)))
def test_strokes_of_label_studio_are_read(number):
    stroke = STROKES[number]
    for kind in ("plain", "soft"):
        if kind in stroke:
            assert np.array_equal(decode_brush(stroke[kind], tuple(stroke["size"])), mask_of(stroke))


def test_what_is_written_are_label_studios_own_bytes():
    written = [stroke for stroke in STROKES if "plain" in stroke]
    assert len(written) >= 5
    for stroke in written:
        assert encode_brush(mask_of(stroke)) == stroke["plain"]


@pytest.mark.parametrize("height", [1, 2, 5, 17, 300])
@pytest.mark.parametrize("width", [1, 3, 64, 301])
@pytest.mark.parametrize("filled", [0.0, 0.03, 0.5, 1.0])
def test_there_and_back(height, width, filled):
    mask = np.random.default_rng(height * width).random((height, width)) < filled
    assert np.array_equal(decode_brush(encode_brush(mask), (height, width)), mask)


def test_damage_is_said():
    stroke = next(each for each in STROKES if "plain" in each and each["size"] == [7, 9])
    with pytest.raises(ValueError, match="cut short"):
        decode_brush(stroke["plain"][:-3], (7, 9))
    with pytest.raises(ValueError, match="an image of 8x9 has 72 times 4"):
        decode_brush(stroke["plain"], (9, 8))
    for nonsense in (["a"], [300], [-1], None, 7.5):
        with pytest.raises(ValueError, match="no list of bytes"):
            decode_brush(nonsense, (7, 9))
    with pytest.raises(ValueError, match="cut short"):
        decode_brush([], (7, 9))


def test_any_damage_is_a_value_error_or_a_mask():
    stroke = next(each for each in STROKES if "plain" in each and each["size"] == [13, 40])
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = list(stroke["plain"])
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = int(rng.integers(256))
        try:
            assert decode_brush(damaged, (13, 40)).shape == (13, 40)
        except ValueError:
            continue
