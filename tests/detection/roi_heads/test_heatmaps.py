"""Key points to cells as torchvision has it, and back more exactly than it does."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints as torchvisions_peaks
from torchvision.models.detection.roi_heads import keypointrcnn_loss, keypoints_to_heatmap

from botformer.detection.roi_heads.heatmaps import heatmaps_to_keypoints, keypoints_to_cells
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.targets import Targets
from tests.detection.scenes import small_detector

SIDE = 56


def points_in(boxes, count, seed=0, beyond=0.0):
    """(k, count, 3): anywhere in the boxes, or beside them by up to `beyond` of their size."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(len(boxes), count, 2, generator=generator) * (1 + 2 * beyond) - beyond
    visible = torch.randint(0, 3, (len(boxes), count, 1), generator=generator)
    return torch.cat([boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2]), visible], 2)


@pytest.mark.parametrize("size", [(1, 1), (0.2, 3), (8, 30), (20, 20), (56, 56), (57, 58), (80, 60), (1000, 700)])
def test_a_perfect_heat_map_gives_its_points_back_within_half_a_cell(size):
    corner = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 300
    boxes = torch.cat([corner, corner + torch.tensor(size)], 1)
    keypoints = points_in(boxes, 17)
    keypoints[..., 2] = 1
    cells, usable = keypoints_to_cells(keypoints, boxes, SIDE)
    assert usable.all()
    maps = torch.zeros(40, 17, SIDE * SIDE).scatter_(2, cells[..., None], 10.0).view(40, 17, SIDE, SIDE)
    points, scores = heatmaps_to_keypoints(maps, boxes)
    half_a_cell = (boxes[:, 2:] - boxes[:, :2])[:, None] / SIDE / 2
    rounding = 1e-4  # of coordinates around 300
    assert ((points - keypoints[..., :2]).abs() <= half_a_cell + rounding).all()
    assert (scores == 10).all()


def test_a_smooth_peak_is_found_between_the_cells():
    """The logits of a Gaussian are a paraboloid: its top is found exactly."""
    boxes = torch.tensor([[10.0, 20.0, 122.0, 76.0]])
    for x, y in ((40.3, 33.1), (100.9, 50.0), (13.7, 70.2)):
        column, row = (x - 10) / 2 - 0.5, (y - 20) - 0.5
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        heat = -((rows - row) ** 2 + (columns - column) ** 2) / 8
        points, _ = heatmaps_to_keypoints(heat[None, None], boxes)
        torch.testing.assert_close(points[0, 0], torch.tensor([x, y]), rtol=0, atol=1e-3)


def test_smooth_maps_have_their_peaks_where_torchvision_finds_them():
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    row, column = (torch.rand(2, 30, 5, 1, 1, generator=generator) * SIDE).unbind()
    noise = F.interpolate(torch.randn(30, 5, 7, 7, generator=generator), SIDE, mode="bicubic")
    maps = 0.2 * noise - ((rows - row) ** 2 + (columns - column) ** 2) / 20
    boxes = torch.tensor([[5.5, 7.25, 305.5, 207.25]]).repeat(30, 1)
    ours, _ = heatmaps_to_keypoints(maps, boxes)
    peer, _ = torchvisions_peaks(maps, boxes)
    assert ((ours - peer[..., :2]).abs() / torch.tensor([300 / SIDE, 200 / SIDE])).max() < 1


def test_cells_are_torchvisions():
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand(50, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + 1 + 80 * torch.rand(50, 2, generator=generator)], 1)
    keypoints = points_in(boxes, 9, beyond=0.3)
    keypoints[:5, 0, :2] = boxes[:5, 2:]  # at the far corner
    cells, usable = keypoints_to_cells(keypoints, boxes, SIDE)
    expected, valid = keypoints_to_heatmap(keypoints, boxes, SIDE)
    assert torch.equal(cells, expected)
    assert torch.equal(usable, valid.bool())
    assert 0 < usable.sum() < usable.numel()


@pytest.mark.parametrize("visible", [True, False])
def test_the_loss_is_torchvisions(visible):
    head = small_detector("keypoint_rcnn").keypoint_head
    pyramid = {f"p{n}": torch.randn(2, 32, 2 ** (6 - n) * 4, 2 ** (6 - n) * 4) for n in range(2, 6)}
    boxes = torch.tensor([[4.0, 6, 30, 40], [20, 10, 60, 50], [22, 8, 58, 54]])
    labels, matched_idx = torch.tensor([2, 0, 1]), torch.tensor([0, 0, 1])
    samples = [SampledProposals(boxes, labels, matched_idx), SampledProposals(boxes[:1], labels[:1], matched_idx[:1])]
    keypoints = [points_in(boxes[:2], 3, seed, beyond=0.2) for seed in (0, 1)]
    if not visible:
        keypoints = [points * torch.tensor([1, 1, 0]) for points in keypoints]
    targets = [Targets(boxes[:2], torch.tensor([2, 1]), keypoints=points) for points in keypoints]
    ours = head.losses(pyramid, samples, targets)["loss_keypoint"]
    chosen = [sample.foreground() for sample in samples]
    proposals = [sample.proposals_xyxy for sample in chosen]
    peer = keypointrcnn_loss(head(pyramid, proposals), proposals, keypoints, [sample.matched_idx for sample in chosen])
    torch.testing.assert_close(ours, peer)
    assert (ours > 0) == visible
    ours.backward()  # in the graph in any case
    assert all(parameter.grad is not None for parameter in head.parameters())
