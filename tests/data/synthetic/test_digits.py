import hashlib
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botformer.data.synthetic import digits
from botformer.data.synthetic.digits import crop_photograph, draw_digit, paint, place_glyph, read_parts, write_digits
from botformer.errors import InputError

TRAIN = read_parts("train")
VALIDATION = read_parts("validation")


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_train_and_validation_have_no_digit_and_no_photograph_in_common():
    hashes = [{bytes(glyph) for glyph in parts.glyphs} for parts in (TRAIN, VALIDATION)]
    assert len(hashes[0]) == 4000
    assert len(hashes[1]) == 1000
    assert not hashes[0] & hashes[1]
    views = [{photograph.tobytes() for photograph in parts.photographs} for parts in (TRAIN, VALIDATION)]
    assert sum(map(len, views)) == 16
    assert not views[0] & views[1]


def test_every_class_is_equally_frequent_in_both_splits():
    assert np.bincount(TRAIN.labels).tolist() == [400] * 10
    assert np.bincount(VALIDATION.labels).tolist() == [100] * 10


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in {"a": 3, "b": 3, "c": 4}.items():
        assert write_digits(tmp_path / name, train=20, validation=10, seed=seed)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_an_image_does_not_depend_on_how_many_others_are_written(tmp_path):
    write_digits(tmp_path / "few", train=10, validation=10)
    write_digits(tmp_path / "more", train=30, validation=20)
    few, more = fingerprint(tmp_path / "few"), fingerprint(tmp_path / "more")
    del few["digits.json"]
    assert few.items() < more.items()


def test_the_folder_is_an_ordinary_balanced_image_folder(tmp_path):
    write_digits(tmp_path / "digits", train=40, validation=20, size=32)
    for split, each in {"train": 4, "validation": 2}.items():
        classes = sorted(path for path in (tmp_path / "digits" / split).iterdir())
        assert [path.name for path in classes] == list("0123456789")
        for images in (sorted(path.iterdir()) for path in classes):
            assert len(images) == each
            for path in images:
                with Image.open(path) as image:
                    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]  # nothing unfinished stays behind


def test_the_record_names_every_source_with_its_hash_and_licence(tmp_path):
    write_digits(tmp_path / "digits", train=10, validation=10, seed=5)
    record = json.loads((tmp_path / "digits" / "digits.json").read_text(encoding="utf-8"))
    assert record["parameters"] | {"generator": 0} == {
        "train": 10,
        "validation": 10,
        "size": 48,
        "seed": 5,
        "generator": 0,
    }
    assert len(record["sources"]) == 17
    assert len({source["sha256"] for source in record["sources"]}) == 17
    assert all(source["licence"] and source["version"] for source in record["sources"])
    assert not any(Path(source["path"]).is_absolute() for source in record["sources"])


def test_a_finished_folder_is_used_as_it_is(tmp_path):
    folder = tmp_path / "digits"
    assert write_digits(folder, train=10, validation=10)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_digits(folder, train=10, validation=10)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_empty_folder_is_filled(tmp_path):
    assert write_digits(tmp_path, train=10, validation=10)
    assert (tmp_path / "digits.json").is_file()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a finished folder of digits"):
        write_digits(tmp_path, train=10, validation=10)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_digits_of_other_parameters_are_left_alone(tmp_path):
    write_digits(tmp_path / "digits", train=10, validation=10)
    before = fingerprint(tmp_path / "digits")
    with pytest.raises(InputError, match="asked for were"):
        write_digits(tmp_path / "digits", train=20, validation=10)
    assert fingerprint(tmp_path / "digits") == before


def test_a_folder_that_lost_images_is_noticed(tmp_path):
    write_digits(tmp_path / "digits", train=10, validation=10)
    next((tmp_path / "digits" / "train" / "3").iterdir()).unlink()
    with pytest.raises(InputError, match="holds 9 images, 10 were written"):
        write_digits(tmp_path / "digits", train=10, validation=10)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "draw_digit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "digits", train=10, validation=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"train": 9}, {"validation": 0}, {"size": 27}, {"seed": -1}])
def test_impossible_numbers_are_refused_by_name(tmp_path, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        write_digits(tmp_path / "digits", **({"train": 10, "validation": 10} | wrong))


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(digits, "distribution", absent)
    with pytest.raises(InputError, match=r"pip install 'botformer\[demo\]'"):
        write_digits(tmp_path / "digits", train=10, validation=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [28, 48, 160])
def test_the_whole_glyph_is_inside_at_the_length_asked_for(size):
    rng = np.random.default_rng(size)
    for glyph in TRAIN.glyphs[::80]:
        length = 0.6 * size
        coverage = place_glyph(glyph, size, length, rng)
        rows, columns = np.flatnonzero(glyph.any(axis=1)), np.flatnonzero(glyph.any(axis=0))
        scale = length / max(np.ptp(rows) + 1, np.ptp(columns) + 1)
        # Turning and slanting keep areas: what reaches over the edge would be missing from the sum.
        assert coverage.sum() == pytest.approx(glyph.sum() * scale**2, rel=0.1)


def test_glyphs_go_to_every_side_of_the_image():
    rng = np.random.default_rng(0)
    centres = []
    for glyph in TRAIN.glyphs[:200]:
        y, x = np.nonzero(place_glyph(glyph, 48, 24, rng) >= 128)
        centres.append((y.mean(), x.mean()))
    spread = np.ptp(np.array(centres), axis=0)
    assert (spread > 15).all()


def test_the_ink_stands_off_its_surroundings():
    rng = np.random.default_rng(1)
    painted = 0
    for number in range(300):
        image = crop_photograph(TRAIN.photographs[number % len(TRAIN.photographs)], 48, rng)
        coverage = place_glyph(TRAIN.glyphs[number * 13], 48, 30, rng)
        result = paint(image, coverage, rng)
        if result is None or coverage.max() < 255:
            continue
        painted += 1
        weights = np.array([0.299, 0.587, 0.114])
        ink = (result[coverage == 255] @ weights).mean()
        rows, columns = np.nonzero(coverage)
        box = (image @ weights)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (abs(box - ink) >= 48).mean() >= 0.93  # 50 and 97 % of a box two pixels wider, less what rounding takes
    assert painted > 200


def test_paint_declines_where_no_colour_can_be_read():
    every_grey = np.arange(48 * 48).reshape(48, 48, 1).repeat(3, axis=2) % 256
    coverage = np.zeros((48, 48), np.uint8)
    coverage[10:40, 10:40] = 255
    assert paint(every_grey.astype(np.uint8), coverage, np.random.default_rng(0)) is None


def test_paint_leaves_the_rest_of_the_photograph_alone():
    rng = np.random.default_rng(2)
    image = np.full((48, 48, 3), 90, np.uint8)
    coverage = place_glyph(TRAIN.glyphs[0], 48, 30, rng)
    painted = paint(image, coverage, rng)
    assert painted is not None
    assert (painted[coverage == 0] == 90).all()
    assert (painted[coverage == 255] != 90).any(axis=-1).all()


def test_images_of_one_class_differ():
    rng = np.random.default_rng(0)
    images = {draw_digit(TRAIN, 7, 48, rng).tobytes() for _ in range(50)}
    assert len(images) == 50


def test_a_crop_looks_like_the_photograph():
    ramp = np.linspace(40, 215, 200, dtype=np.uint8)
    photograph = Image.fromarray(np.stack([np.broadcast_to(ramp[:, None], (200, 200))] * 3, axis=-1))
    rng = np.random.default_rng(3)
    for _ in range(20):
        crop = crop_photograph(photograph, 48, rng).astype(int)
        assert (np.diff(crop, axis=0) >= 0).all()  # brighter downwards, in every exposure
        assert (np.ptp(crop[:, :, 1], axis=0) > 15).all()
        assert (np.ptp(crop, axis=1) == 0).all()


def test_a_photograph_smaller_than_the_image_is_enlarged():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8))
    assert crop_photograph(small, 48, np.random.default_rng(0)).shape == (48, 48, 3)
