import numpy as np
import pytest
from PIL import Image

from botformer.plots import style
from botformer.plots.precision_recall import draw_precision_recall

RECALL = np.linspace(0, 1, 101)


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, out: figures.append(figure))
    return figures


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


def test_curves_are_drawn_with_their_ap(drawn, tmp_path):
    steps = np.where(RECALL < 0.6, 0.9, 0)
    curves = [("box, IoU 0.5", RECALL, 1 - RECALL, 0.5), ("mask, IoU 0.5", RECALL, steps, 0.5346)]
    draw_precision_recall(curves, tmp_path / "unused.png")
    axes = drawn[0].axes[0]
    for line, (_, recall, precision, _) in zip(axes.lines, curves, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), recall)
        np.testing.assert_array_equal(line.get_ydata(), precision)
    assert legend(drawn[0]) == ["box, IoU 0.5   AP 0.500", "mask, IoU 0.5   AP 0.535"]
    assert axes.get_xlim() == axes.get_ylim() == (0, 1)
    assert len({line.get_color() for line in axes.lines}) == 2


@pytest.mark.parametrize("average", [-1.0, float("nan")])
def test_without_objects_there_is_no_curve(drawn, tmp_path, average):
    draw_precision_recall([("mask", RECALL, np.zeros(101), average)], tmp_path / "unused.png")
    assert len(drawn[0].axes[0].lines[0].get_xdata()) == 0
    assert legend(drawn[0]) == ["mask   no objects"]


def test_lines_of_one_colour_differ_in_their_dashes(drawn, tmp_path):
    draw_precision_recall([(str(i), RECALL, RECALL, 0.5) for i in range(12)], tmp_path / "unused.png")
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(looks) == 12


def test_the_file_has_the_report_width_and_labels_are_not_parsed_as_formulas(tmp_path):
    draw_precision_recall([("$_{ $^", RECALL, RECALL, 0.5)], tmp_path / "new" / "curve.png")
    with Image.open(tmp_path / "new" / "curve.png") as image:
        assert image.width == 1620
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["curve.png"]
