from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from botformer.plots.explanation_figures import (
    figure_attention_heads,
    figure_class_maps,
    figure_position_maps,
    figure_position_similarity,
    figure_without_positions,
)


def softmax(count, height, width, seed=0):
    weights = np.exp(np.random.default_rng(seed).normal(size=(count, height, width)))
    return weights / weights.sum((1, 2), keepdims=True)


@dataclass
class Heads:
    name: str
    stride_px: int
    attention: np.ndarray
    content_alone: np.ndarray | None
    position_alone: np.ndarray | None


@dataclass
class Cells:
    values: np.ndarray
    stride_px: int


@dataclass
class Positions:
    name: str
    is_relative: bool
    tables: dict
    logits: np.ndarray

    def similarity(self, table):
        return np.eye(len(self.tables[table]))


@dataclass
class Effect:
    with_positions: np.ndarray
    without_positions: np.ndarray


def drawn(figure):
    """Rendered, without pyplot."""
    FigureCanvasAgg(figure).draw()
    assert figure.get_size_inches()[0] == 9.0
    return figure


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


@pytest.mark.parametrize("size", [(48, 48), (20, 90), (90, 20)])
@pytest.mark.parametrize("heads", [1, 4, 8])
def test_a_row_per_layer_and_a_column_per_head(size, heads):
    cells = -(-size[0] // 8), -(-size[1] // 8)
    layers = [
        Heads("layer4.0.conv2", 8, softmax(heads, *cells), softmax(heads, *cells, 1), softmax(heads, *cells, 2)),
        Heads("$layer", 8, softmax(heads, *cells, 3), None, softmax(heads, *cells, 2)),
    ]
    image = np.zeros((*size, 3), np.uint8)
    figure = drawn(figure_attention_heads(image, layers, (3, 4)))
    assert titles(figure) == ["layer4.0.conv2", "$layer"]
    shown = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel().startswith("head")]
    assert len(shown) == 2 * heads
    most = layers[0].attention[0].max() * cells[0] * cells[1]
    assert shown[0] == f"head 1, up to {most:.1f}×"
    assert titles(drawn(figure_attention_heads(image, layers, (3, 4), "content_alone"))) == ["layer4.0.conv2"]


def test_no_layer_is_an_empty_figure_and_no_failure():
    drawn(figure_attention_heads(np.zeros((8, 8, 3), np.uint8), [], (3, 4)))
    drawn(figure_position_maps([]))
    drawn(figure_position_similarity([]))


@pytest.mark.parametrize(("with_rollout", "with_cam"), [(True, True), (False, True), (True, False)])
def test_rollout_and_grad_cam_stand_side_by_side(with_rollout, with_cam):
    rollout = Cells(softmax(1, 6, 6)[0], 8) if with_rollout else None
    cam = Cells(np.zeros((3, 3)), 16) if with_cam else None
    figure = drawn(figure_class_maps(np.zeros((48, 48, 3), np.uint8), rollout, cam, (5, 5)))
    assert titles(figure) == ["image", *["attention rollout"] * with_rollout, *["Grad-CAM"] * with_cam]


def test_position_maps():
    tables = {"rel_height": np.ones((9, 4)), "rel_width": np.ones((7, 4))}
    layers = [
        Positions("layer4.0.conv2", True, tables, np.random.default_rng(0).normal(size=(4, 9, 7))),
        Positions("layer4.1.conv2", False, {"abs_height": np.ones((5, 4))}, np.zeros((2, 5, 4))),
    ]
    assert titles(drawn(figure_position_maps(layers))) == [
        "layer4.0.conv2, over offsets (dy, dx)",
        "layer4.1.conv2, over positions",
    ]
    figure = drawn(figure_position_similarity(layers))
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert labels == ["rel_height", "rel_width", "abs_height"]


def test_bars_with_and_without_positions():
    effect = Effect(np.array([0.1, 0.7, 0.2]), np.array([0.6, 0.3, 0.1]))
    figure = drawn(figure_without_positions(["a", "$b_{", "c"], effect, most=2))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$b_{", "a"]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [0.7, 0.1, 0.3, 0.6]


def test_no_global_state(monkeypatch):
    backend, settings = matplotlib.get_backend(), dict(matplotlib.rcParams)
    drawn(figure_class_maps(np.zeros((8, 8, 3), np.uint8)))
    assert matplotlib.get_backend() == backend
    assert dict(matplotlib.rcParams) == settings
