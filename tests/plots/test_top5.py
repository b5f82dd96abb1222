from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from botformer.plots import style
from botformer.plots.top5 import Prediction, draw_gallery, draw_prediction


def weights(height: int, width: int, y: int, x: int) -> np.ndarray:
    attention = np.full((height, width), 1e-4)
    attention[y, x] = 1
    return attention / attention.sum()


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def prediction(truth: str | None = None, layers: int = 1) -> Prediction:
    attention = [(f"layer {layer}", weights(6, 6, 1, 4)) for layer in range(layers)]
    return Prediction(image(48, 48), ["seven", "one"], [0.8, 0.1], attention, (20.0, 24.0), truth)


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    def keep(figure, out):
        FigureCanvasAgg(figure).draw()
        figures.append(figure)

    monkeypatch.setattr(style, "save", keep)
    return figures


def headings(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


@pytest.mark.parametrize(("height", "width"), [(48, 48), (60, 400), (400, 60), (1, 1)])
@pytest.mark.parametrize("layers", [0, 1, 3, 6])
def test_any_shape_and_number_of_layers_fits_a_report(tmp_path, height, width, layers):
    attention = [(f"layer {layer}", weights(3, 5, 1, 2)) for layer in range(layers)]
    draw_prediction(image(height, width), ["cat"], [0.9], attention, (0, 0), tmp_path / "prediction.png")
    with Image.open(tmp_path / "prediction.png") as drawn_file:
        assert drawn_file.width == 1620
        assert drawn_file.height < 2400


def test_the_heatmap_is_bright_where_the_weight_is(drawn, tmp_path):
    attention = [("c5", weights(4, 8, 3, 1))]
    draw_prediction(np.zeros((40, 80, 3), np.uint8), ["cat"], [0.9], attention, (10, 20), tmp_path / "unused.png")
    (figure,) = drawn
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == "c5")
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].sum(axis=2)
    box = axes.get_window_extent()
    top, left = pixels.shape[0] - box.y1, box.x0
    panel = pixels[round(top) + 2 : round(top + box.height) - 2, round(left) + 2 : round(left + box.width) - 2]

    def cell(row: int, column: int) -> int:
        return int(panel[int((row + 0.5) / 4 * panel.shape[0]), int((column + 0.5) / 8 * panel.shape[1])])

    assert cell(3, 1) > 350
    assert max(cell(row, column) for row in (0, 3) for column in (4, 7)) < 60  # far from the weight and the ring


def test_the_ring_is_at_the_query_position(drawn, tmp_path):
    draw_prediction(image(48, 48), ["cat"], [0.9], prediction(layers=3).attention, (20, 31), tmp_path / "unused.png")
    rings = [line.get_xydata().tolist() for axes in drawn[0].axes for line in axes.lines]
    assert rings == [[[31, 20]]] * 4


def test_bars_have_the_length_of_the_probabilities(drawn, tmp_path):
    draw_prediction(image(48, 48), ["a", "b", "c"], [0.7, 0.2, 0.0004], [], (0, 0), tmp_path / "unused.png")
    axes = drawn[0].axes[-1]
    widths = [bar.get_width() for bar in axes.patches if bar.get_width() < 1]
    assert widths == [0.7, 0.2, 0.0004]
    assert [text.get_text() for text in axes.texts] == ["a", "70%", "b", "20%", "c", "< 0.1%"]


def test_only_a_wrong_prediction_is_marked_and_names_the_truth(drawn, tmp_path):
    draw_gallery([prediction("seven"), prediction("one"), prediction()], tmp_path / "unused.png")
    assert headings(drawn[0]) == ["seven\n80%", "seven\n80%", "truth\none", "seven\n80%"]


def test_headings_of_a_gallery_do_not_run_into_each_other(drawn, tmp_path):
    pair = replace(prediction(), names=["cardboard"], probabilities=[0.98], truth="Trichophyton")
    draw_gallery([pair] * 4, tmp_path / "unused.png")
    renderer = drawn[0].canvas.get_renderer()
    spans = sorted(
        (box.x0, box.x1)
        for axes in drawn[0].axes
        for text in axes.get_children()
        if isinstance(text, Text) and text.get_text()
        for box in [text.get_window_extent(renderer)]
    )
    assert len(spans) == 8
    assert all(right < left for (_, right), (left, _) in pairwise(spans))


def test_a_gallery_of_any_size_keeps_the_report_width(tmp_path):
    for count in (1, 5, 12):
        draw_gallery([prediction("one", layers=count % 2)] * count, tmp_path / "gallery.png")
        with Image.open(tmp_path / "gallery.png") as image:
            assert image.width == 1620


def test_names_are_not_parsed_as_formulas(tmp_path):
    draw_prediction(image(8, 8), ["$_{"], [0.9], [("$\\frac", weights(2, 2, 0, 0))], (0, 0), tmp_path / "p.png", "$^")
