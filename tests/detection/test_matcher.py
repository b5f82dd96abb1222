import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from botformer.detection import matcher
from botformer.detection.matcher import BELOW_LOW, BETWEEN_THRESHOLDS, match


def random_boxes(count, generator, whole=False):
    corner = torch.rand(count, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 4 + torch.rand(count, 2, generator=generator) * 40], 1)
    return boxes.round() if whole else boxes


@pytest.mark.parametrize("pairs_at_once", [2**22, 3 * 400, 1])
@pytest.mark.parametrize("allow_low_quality_matches", [True, False])
def test_matches_are_torchvisions_however_many_pairs_are_made_at_once(
    allow_low_quality_matches, pairs_at_once, monkeypatch
):
    monkeypatch.setattr(matcher, "_PAIRS_AT_ONCE", pairs_at_once)
    generator = torch.Generator().manual_seed(0)
    for whole in (True, False):  # whole pixels make ties
        boxes, objects = random_boxes(400, generator, whole), random_boxes(17, generator, whole)
        expected = Matcher(0.7, 0.3, allow_low_quality_matches=allow_low_quality_matches)(box_iou(objects, boxes))
        assert torch.equal(
            match(boxes, objects, 0.7, 0.3, allow_low_quality_matches=allow_low_quality_matches), expected
        )
        assert {BELOW_LOW, BETWEEN_THRESHOLDS} <= set(expected.tolist())


def test_an_object_far_from_every_box_rescues_none():
    """The best overlap is 0 then, and every box has it."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    assert match(boxes, torch.tensor([[80.0, 80, 90, 90]]), 0.7, 0.3, allow_low_quality_matches=True).tolist() == [
        BELOW_LOW,
        BELOW_LOW,
    ]


def test_without_objects_every_box_is_background():
    assert (
        match(torch.rand(5, 4), torch.zeros(0, 4), 0.7, 0.3, allow_low_quality_matches=True).tolist() == [BELOW_LOW] * 5
    )
