import torch
from torchvision.ops.poolers import LevelMapper

from botformer.detection import Settings
from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign

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
