import itertools

import pytest
import torch
import torchvision
from torchvision.ops.poolers import LevelMapper

from botformer.detection import Settings
from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign, roi_align

STRIDES = [4, 8, 16, 32, 64]


def random_boxes(count, size):
    torch.manual_seed(0)
    corner = torch.rand(count, 2) * size / 2
    return torch.cat([corner, corner + 2 ** (torch.rand(count, 2) * 10.5)], 1)


def test_levels_follow_the_rule_of_the_fpn_paper():
    boxes = random_boxes(500, 1024)
    boxes[0] = torch.tensor([0.0, 0, 224, 224])
    levels = MultiScaleRoIAlign(STRIDES, Settings()).levels(boxes)
    assert torch.equal(levels, LevelMapper(2, 6)([boxes]))
    assert levels.unique().tolist() == [0, 1, 2, 3, 4]
    assert levels[0] == 2


def test_of_two_levels_with_equal_strides_the_deeper_is_read():
    levels = MultiScaleRoIAlign([4, 8, 16, 16], Settings()).levels(
        torch.tensor([[0.0, 0, 200, 200], [0.0, 0, 230, 230]])
    )
    assert levels.tolist() == [1, 3]


def test_a_cell_of_a_region_reads_the_map_at_its_own_middle():
    """Maps that hold the coordinates of their cells' middles in pixels: pooling must give back where it looked."""
    pyramid = {}
    for stride in STRIDES:
        middle = (torch.arange(1024 // stride) + 0.5) * stride
        y, x = torch.meshgrid(middle, middle, indexing="ij")
        pyramid[f"stride {stride}"] = torch.stack([torch.stack([x, y]), torch.stack([x + 5000, y])])
    boxes = random_boxes(150, 600) + 70
    boxes = boxes[(boxes < 950).all(1)]
    assert len(boxes) > 40
    pooled = MultiScaleRoIAlign(STRIDES, Settings())(pyramid, [boxes[:20], boxes[20:]], 7)
    share = (torch.arange(7) + 0.5) / 7
    expected_x = boxes[:, :1] + share * (boxes[:, 2:3] - boxes[:, :1])
    expected_y = boxes[:, 1:2] + share * (boxes[:, 3:] - boxes[:, 1:2])
    expected_x[20:] += 5000
    torch.testing.assert_close(pooled[:, 0], expected_x[:, None].expand(-1, 7, -1), rtol=0, atol=2e-3)
    torch.testing.assert_close(pooled[:, 1], expected_y[:, :, None].expand(-1, -1, 7), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("height", "width"), [*itertools.product((1, 2, 3, 7, 20), (1, 2, 5, 16))])
@pytest.mark.parametrize(("cells", "points"), [(1, 1), (3, 1), (7, 2), (14, 2), (5, 3)])
def test_rows_of_the_map_are_torchvisions_operator(height, width, cells, points):
    """Boxes inside, across and far outside of the map, without an extent, turned inside out; and the gradient."""
    torch.manual_seed(height * width + cells)
    stride = 4
    corners = (torch.rand(60, 4, dtype=torch.float64) * 2 - 0.5) * stride * torch.tensor([width, height] * 2)
    edges = torch.tensor([[0.0, 0, stride * width, stride * height], [3, 3, 3, 3], [-1e4, 0, 1e4, 1]])
    boxes = torch.cat([corners, edges.double()])
    rois = torch.cat([torch.arange(len(boxes))[:, None] % 2, boxes], 1)
    feature_map = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    pooled = roi_align(feature_map, rois, cells, stride, points)
    expected = torchvision.ops.roi_align(feature_map, rois, cells, 1 / stride, points, aligned=True)
    torch.testing.assert_close(pooled, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(output, feature_map, weights)[0] for output in (pooled, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_no_boxes_and_boxes_that_are_not_numbers():
    feature_map = torch.randn(1, 3, 8, 8, requires_grad=True)
    none = roi_align(feature_map, torch.zeros(0, 5), 7, 4, 2)
    none.sum().backward()
    assert none.shape == (0, 3, 7, 7)
    assert feature_map.grad is not None
    assert not feature_map.grad.any()
    assert not roi_align(feature_map, torch.tensor([[0.0, 1, float("nan"), 9, float("inf")]]), 7, 4, 2).any()


def test_exported_graphs_have_the_operator_that_other_runtimes_know():
    class Pool(torch.nn.Module):
        def forward(self, feature_map, rois):
            return roi_align(feature_map, rois, 7, 4, 2)

    arguments = torch.randn(1, 3, 8, 8), torch.tensor([[0.0, 1, 2, 20, 30]])
    exported = torch.export.export(Pool(), arguments)
    assert "torchvision.roi_align" in exported.graph_module.code
    torch.testing.assert_close(exported.module()(*arguments), roi_align(*arguments, 7, 4, 2))
