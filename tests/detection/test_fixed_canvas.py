import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import nms

from botformer.detection.export_detector import _Differences, _graph, _Reference
from botformer.detection.fixed_canvas import NEVER, suppress_by_torchvision
from botformer.detection.onnx_operators import suppress_in_onnx
from botformer.detection.padding import pad_images
from botformer.detection.roi_heads.roi_align import AtlasRoIAlign, MultiScaleRoIAlign
from tests.detection.scenes import SMALL, scene, small_detector

EXACT = {"unmatched": 0.0, "boxes_px": 1e-6, "scores": 1e-8, "masks": 0.0, "keypoints": 0.0}
"""In float64, where rounding decides nothing."""
NAMES = {"mask_rcnn": ("masks",), "faster_rcnn": (), "keypoint_rcnn": ("keypoints",)}


def detector(kind="mask_rcnn", **settings):
    """One whose attention is sharp, so that positions and padding matter, and whose scores differ."""
    network = small_detector(kind, settings=SMALL.__class__(**{**vars(SMALL), **settings}))
    for name, parameter in network.named_parameters():
        if "qkv" in name or "cls_score.weight" in name:
            nn.init.normal_(parameter, std=0.3 if "qkv" in name else 0.1)
    return network.double().eval()


def images_of(*sizes):
    return [scene(h, w, [(1, (2, 3, w / 2, h / 2)), (2, (w / 3, h / 3, w - 1, h - 1))], seed=w)[0] for h, w in sizes]


def compared(network, images, canvas):
    """What the detector finds, what the graphs with either suppression find, and the figures of each."""
    padded = pad_images([image.double() for image in images], canvas)
    names = ("boxes", "scores", "labels", *NAMES[network.kind])
    expected, *found = (
        dict(
            zip(
                names, (x.numpy() for x in torch.no_grad()(run)(padded.pixels, torch.tensor(padded.sizes))), strict=True
            )
        )
        for run in (_Reference(network), _graph(network, canvas, onnx=False), _graph(network, canvas, onnx=True))
    )
    differences = _Differences(network.settings.score_threshold)
    return expected, found, [differences(expected, one) for one in found]


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize(
    ("canvas", "sizes"),
    [
        ((65, 97), [(65, 97), (40, 97), (65, 33)]),
        ((96, 96), [(96, 96)]),
        ((130, 67), [(50, 20), (129, 66)]),
        ((33, 40), [(9, 40), (33, 12)]),
    ],
)
def test_the_graph_finds_what_the_detector_finds(kind, canvas, sizes):
    expected, _, figures = compared(detector(kind), images_of(*sizes), canvas)
    assert expected["scores"].any()
    for figure in figures:
        assert all(value <= EXACT[name] for name, value in figure.items()), figure


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_of_equal_scores_the_first_comes_first(kind):
    """Every anchor and every class scores the same: places alone decide, and what is found is not only as good."""
    network = detector(kind, rpn_pre_nms_top_n_test=50, score_threshold=0.0)
    for layer in (network.rpn.logits, network.box_head.predictor.cls_score):
        nn.init.zeros_(layer.weight)
    expected, found, _ = compared(network, images_of((64, 64), (40, 50)), (64, 64))
    assert np.unique(expected["scores"]) == pytest.approx([0, 1 / 3])  # 0: none
    for one in found:
        for name, values in expected.items():
            np.testing.assert_allclose(one[name], values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("threshold", "most"), [(0.9999, 100), (0.05, 3), (0.0, 300)])
def test_nothing_one_too_many_and_hundreds(threshold, most):
    network = detector(score_threshold=threshold, max_detections=most)
    expected, graphs, figures = compared(network, images_of((64, 64)), (64, 64))
    assert (expected["scores"] > 0).sum() == {0.9999: 0, 0.05: 3, 0.0: 300}[threshold]
    for found, figure in zip(graphs, figures, strict=True):
        assert found["boxes"].shape == (1, most, 4)
        assert all(value <= EXACT[name] for name, value in figure.items()), figure
        nothing = found["scores"] == 0
        assert not any(values[nothing].any() for values in found.values())


def test_the_detector_that_was_given_is_left_alone():
    network = detector()
    before, pooling = {k: v.clone() for k, v in network.state_dict().items()}, network.box_head.pooling
    network.train().exportable(size=(64, 64))
    assert network.training
    assert network.box_head.pooling is pooling
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("groups", [1, 7, 80])
def test_suppression_of_many_groups_is_that_of_each(groups):
    """Boxes at large coordinates, with overlaps near the limit, where shifts in float32 would decide otherwise."""
    torch.manual_seed(groups)
    corner = 700 + 60 * torch.rand(groups, 60, 2)
    boxes = torch.cat([corner, corner + 20 + 30 * torch.rand(groups, 60, 2)], 2)
    scores = torch.where(torch.rand(groups, 60) < 0.3, NEVER, torch.randn(groups, 60))
    scores[0] = NEVER
    expected = torch.zeros_like(scores, dtype=torch.bool)
    for group in range(1, groups):
        (place,) = torch.where(scores[group] > NEVER)
        expected[group, place[nms(boxes[group, place], scores[group, place], 0.5)]] = True
    for suppress in (suppress_by_torchvision, suppress_in_onnx):
        assert torch.equal(suppress(boxes, scores, 0.5), expected)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 97), (130, 67), (33, 257)])
@pytest.mark.parametrize("strides", [[4, 8, 16, 32, 64], [4, 8, 16, 16], [8]])
def test_levels_on_one_map_give_the_numbers_of_the_levels(height, width, strides):
    torch.manual_seed(0)
    maps = {
        f"p{i}": torch.randn(2, 3, -(-height // s), -(-width // s), dtype=torch.float64) for i, s in enumerate(strides)
    }
    limits = torch.tensor([width, height] * 2)
    corner = torch.rand(2, 40, 2, dtype=torch.float64)
    boxes = torch.cat([corner, corner + (1 - corner) * torch.rand(2, 40, 2)], 2) * limits
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = torch.tensor([0, 0, width, height]), limits, 0.0
    levels = MultiScaleRoIAlign(strides, SMALL)
    atlas = AtlasRoIAlign(levels)
    for cells in (1, 7):
        read = atlas(atlas.atlas(maps), list(boxes), cells)
        torch.testing.assert_close(read, levels(maps, list(boxes), cells), rtol=1e-10, atol=1e-10)


def test_differences_are_seen():
    one = {
        "boxes": np.array([[[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]], np.float32),
        "scores": np.array([[0.9, 0.8, 0]], np.float32),
        "labels": np.array([[1, 2, 0]]),
        "masks": np.ones((1, 3, 28, 28), np.float32),
        "keypoints": np.zeros((1, 3, 4, 3), np.float32),
    }
    compare = _Differences(0.05)

    def changed(name, place, value):
        values = one[name].copy()
        values[place] = value
        return compare(one, one | {name: values})

    assert set(compare(one, one).values()) == {0.0}
    assert changed("labels", (0, 1), 1)["unmatched"] == 0.5
    assert changed("scores", (0, 1), 0.0)["unmatched"] == pytest.approx(1 / 3)
    assert changed("boxes", (0, 1, 2), 41)["boxes_px"] == 1
    assert changed("scores", (0, 0), 0.85)["scores"] == pytest.approx(0.05)
    assert changed("masks", (0, 0, slice(14)), 0)["masks"] == pytest.approx(0.5, abs=0.01)
    assert changed("keypoints", (0, 1, 2, 0), 3)["keypoints"] == pytest.approx(1 / 8)
