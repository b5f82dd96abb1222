import pytest
import torch

from botformer.detection import Settings
from botformer.detection.masks import crop_masks
from botformer.detection.targets import check_targets
from botformer.errors import InputError

CPU = torch.device("cpu")
NAN = float("nan")


def good():
    return {
        "boxes": torch.tensor([[1.0, 2, 9, 8], [4, 4, 20, 12]]),
        "labels": torch.tensor([1, 3]),
        "masks": torch.ones(2, 16, 24, dtype=torch.uint8),
        "keypoints": torch.ones(2, 17, 3),
    }


def check(target, kind="mask_rcnn"):
    return check_targets([good(), target], [(16, 24), (16, 24)], kind, 3, Settings(mask_output_size=1), CPU)[1]


def with_box(index, box):
    boxes = good()["boxes"]
    boxes[index] = torch.tensor(box)
    return {"boxes": boxes}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_box(1, [4.0, 4, 4, 12]), "box 1.*no area.*x, y, w, h"),
        (with_box(1, [9.0, 4, 4, 12]), "box 1.*no area"),
        (with_box(0, [NAN, 4, 8, 12]), "box 0.*not finite"),
        (with_box(1, [4.0, 4, float("inf"), 12]), "box 1.*not finite"),
        (with_box(1, [30.0, 4, 40, 12]), "box 1.*outside the image of 24x16 px"),
        (with_box(1, [-9.0, 4, 0, 12]), "box 1.*outside"),
        ({"boxes": torch.zeros(2, 5)}, r"\(2, 5\)"),
        ({"boxes": torch.zeros(0)}, r"torch.zeros\(0, 4\)"),
        ({"boxes": good()["boxes"].long()}, "floats"),
        ({"boxes": None}, "must be a tensor, got NoneType"),
        ({"labels": torch.tensor([1, 4])}, "box 1: label 4 is not one of 1 to 3"),
        ({"labels": torch.tensor([0, 1])}, "box 0: label 0.*background"),
        ({"labels": torch.tensor([1])}, r"\(2,\).*\(1,\)"),
        ({"labels": torch.tensor([1.0, 2.0])}, "integers"),
        ({"masks": torch.ones(2, 24, 16)}, r"\(2, 16, 24\).*\(2, 24, 16\)"),
        ({"masks": torch.ones(1, 16, 24)}, r"\(1, 16, 24\)"),
        ({"mask_crops": torch.ones(2, 8, 9)}, r"\(2, 8, 9\)"),
        ({"mask_crops": torch.full((2, 8, 8), 255)}, "between 0 and 1, got 255 to 255"),
        ({"mask_crops": torch.full((2, 8, 8), torch.nan)}, "between 0 and 1, got nan"),
        ({"masks": torch.full((2, 16, 24), 255, dtype=torch.uint8)}, "between 0 and 1, got 255 to 255"),
        ({"masks": -torch.eye(16, 24, dtype=torch.int8).repeat(2, 1, 1)}, "between 0 and 1, got -1 to 0"),
        ({"has_mask": torch.ones(3, dtype=torch.bool)}, "has_mask"),
    ],
)
def test_bad_targets_name_the_image_and_the_box(change, words):
    with pytest.raises(InputError, match=words) as error:
        check(good() | change)
    assert "target 1" in str(error.value)


@pytest.mark.parametrize(
    ("missing", "kind", "words"),
    [
        ("boxes", "faster_rcnn", "no 'boxes'"),
        ("labels", "faster_rcnn", "no 'labels'"),
        ("masks", "mask_rcnn", "'mask_crops'.*faster_rcnn"),
        ("keypoints", "keypoint_rcnn", "no 'keypoints'"),
    ],
)
def test_what_is_missing_is_named(missing, kind, words):
    with pytest.raises(InputError, match=words):
        check({key: value for key, value in good().items() if key != missing}, kind)


def test_bad_keypoints_name_the_box():
    keypoints = torch.ones(2, 17, 3)
    keypoints[1, 4, 0] = NAN
    with pytest.raises(InputError, match="box 1.*keypoints"):
        check(good() | {"keypoints": keypoints}, "keypoint_rcnn")
    with pytest.raises(InputError, match=r"\(2, 17, 3\)"):
        check(good() | {"keypoints": keypoints[:, :5]}, "keypoint_rcnn")


def test_as_many_targets_as_images():
    with pytest.raises(InputError, match="2 images but 1 targets"):
        check_targets([good()], [(16, 24)] * 2, "faster_rcnn", 3, Settings(), CPU)


def test_boxes_may_reach_over_the_border_and_other_keys_do_not_matter():
    image = check(good() | with_box(0, [-3.0, -1, 30, 20]) | {"image_id": 7, "iscrowd": None})
    assert image.boxes_xyxy[0].tolist() == [-3, -1, 30, 20]


def test_whole_masks_become_crops_of_their_boxes():
    image = check(good())
    assert image.mask_crops is not None
    assert torch.equal(image.mask_crops, crop_masks(good()["masks"], good()["boxes"], 8))
    assert image.has_mask is not None
    assert image.has_mask.all()


def test_a_image_without_objects_is_fine():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 16, 24)}
    image = check(empty)
    assert image.mask_crops is not None
    assert image.mask_crops.shape == (0, 8, 8)
