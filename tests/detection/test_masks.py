import pytest
import torch
from torchvision.models.detection.roi_heads import maskrcnn_loss, project_masks_on_boxes

from botformer.detection.masks import crop_masks, mask_targets, paste_window
from botformer.detection.roi_heads.mask_head import MaskHead
from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.targets import Targets

from .scenes import SMALL, ellipse


def paste(probability, box, size):
    window, (top, left) = paste_window(probability, box, size)
    image = torch.zeros(size)
    image[top : top + window.shape[0], left : left + window.shape[1]] = window
    return image


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


def test_a_crop_of_a_box_as_large_as_the_crop_is_the_image_itself():
    masks = torch.rand(3, 40, 50) > 0.5
    boxes = torch.tensor([[3.0, 4, 31, 32], [20, 0, 48, 28], [22, 12, 50, 40]])
    expected = torch.stack([m[y : y + 28, x : x + 28] for m, (x, y) in zip(masks, boxes[:, :2].int(), strict=True)])
    torch.testing.assert_close(crop_masks(masks, boxes, 28), expected.float())


def test_targets_by_way_of_crops_agree_with_torchvisions_from_whole_masks():
    """torchvision's RoIAlign puts pixels' middles at whole numbers, ours at halves: hence its boxes less 1/2."""
    boxes = torch.tensor([[10.0, 12, 70, 50], [40, 8, 61.5, 90], [3, 60, 30, 75]])
    masks = torch.stack([ellipse(96, 96, box) for box in boxes.tolist()])
    torch.manual_seed(0)
    matched_idx = torch.randint(3, (20,))
    regions = boxes[matched_idx] + torch.randn(20, 4) * 3
    ours = mask_targets(crop_masks(masks, boxes, 112), boxes, matched_idx, regions, 28)
    peer = project_masks_on_boxes(masks, regions - 0.5, matched_idx, 28)
    assert (ours - peer).abs().mean() < 0.01
    assert overlap(ours >= 0.5, peer >= 0.5) > 0.97


def test_outside_its_box_an_object_is_not():
    crops, box = torch.ones(1, 112, 112), torch.tensor([[20.0, 20, 40, 40]])
    targets = mask_targets(crops, box, torch.tensor([0]), torch.tensor([[10.0, 10, 38, 38]]), 28)[0]
    assert torch.equal(targets[11:, 11:], torch.ones(17, 17))
    assert targets[:9].abs().sum() + targets[:, :9].abs().sum() == 0


def blocks(generator):
    """A 112 px mask of 4 px blocks: each is one cell of a 28x28 target."""
    return (torch.rand(28, 28, generator=generator) > 0.5).repeat_interleave(4, 0).repeat_interleave(4, 1)


def test_mask_loss_is_torchvisions_on_the_same_sample(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 160, 240, dtype=torch.bool)
    boxes = torch.tensor([[4.0, 8, 116, 120], [100, 20, 212, 132]])
    masks[0, 8:120, 4:116], masks[1, 20:132, 100:212] = blocks(generator), blocks(generator)
    labels, matched_idx = torch.tensor([2, 1]), torch.tensor([0, 1, 1])
    # Regions that are off by whole blocks, so that both ways of sampling meet none but whole cells.
    regions = boxes[matched_idx] + torch.tensor([[0.0] * 4, [0.0] * 4, [8.0, 12, 8, 12]])
    logits = torch.randn(3, 3, 28, 28, generator=generator)
    expected = maskrcnn_loss(logits, [regions - 0.5], [masks], [labels], [matched_idx])

    branch = MaskHead(2, MultiScaleRoIAlign([4], SMALL), SMALL)
    monkeypatch.setattr(MaskHead, "forward", lambda *_: logits)
    background = torch.tensor([[0.0, 0, 9, 9]])
    sample = SampledProposals(torch.cat([background, regions]), torch.tensor([0, 2, 1, 1]), torch.tensor([0, 0, 1, 1]))
    image = Targets(boxes, labels, crop_masks(masks, boxes, 112), torch.tensor([True, True]))
    torch.testing.assert_close(branch.losses({}, [sample], [image])["loss_mask"], expected)

    only_first = Targets(boxes, labels, image.mask_crops, torch.tensor([True, False]))
    expected = maskrcnn_loss(logits[:1], [regions[:1] - 0.5], [masks], [labels], [matched_idx[:1]])
    torch.testing.assert_close(branch.losses({}, [sample], [only_first])["loss_mask"], expected)


@pytest.mark.parametrize("box", [(10, 12, 70, 50), (10.4, 11.7, 69.2, 50.6), (-5, -8, 40, 60.5), (60, 30, 110, 99)])
def test_a_mask_cropped_and_pasted_back_is_itself(box):
    mask = ellipse(80, 96, box)
    inside = torch.tensor(box, dtype=torch.float32)
    pasted = paste(crop_masks(mask[None], inside[None], 56)[0], inside, (80, 96)) >= 0.5
    assert overlap(pasted, mask) > 0.98


def test_pasting_is_linear_between_the_middles_of_the_cells():
    """Against bilinear interpolation written out, for every pixel of a small image."""
    torch.manual_seed(0)
    cells, (x1, y1, x2, y2) = torch.rand(4, 4), (3.3, 2.1, 14.9, 9.6)
    expected = torch.zeros(12, 16)
    for y in range(12):
        for x in range(16):
            row, column = (y + 0.5 - y1) / (y2 - y1) * 4 - 0.5, (x + 0.5 - x1) / (x2 - x1) * 4 - 0.5
            for i in range(4):
                for j in range(4):
                    expected[y, x] += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * cells[i, j]
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[2:10, 3:15] = True
    pasted = paste(cells, torch.tensor([x1, y1, x2, y2]), (12, 16))
    torch.testing.assert_close(pasted, torch.where(inside, expected, 0.0), rtol=0, atol=1e-5)
    assert (expected[~inside] < 0.5).all()  # what the window leaves out would not have counted


@pytest.mark.parametrize("box", [(5.2, 5.1, 5.4, 5.3), (-9.0, -9, -2, -2), (20.0, 3, 25, 9)])
def test_boxes_that_cover_no_pixels_paste_without_harm(box):
    assert paste(torch.ones(28, 28), torch.tensor(box), (12, 16)).isfinite().all()
