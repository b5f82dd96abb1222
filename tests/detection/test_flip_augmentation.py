"""Detecting on mirror images too: against the same sums written out, and the mirror image of an image."""

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms

from botformer.detection.flip_augmentation import Flip
from botformer.detection.masks import paste_window
from botformer.detection.padding import PaddedImages
from botformer.rle import decode, encode_window
from tests.detection.scenes import scene, small_detector

FLIP = Flip((0, 2, 1))
"""The key points of `scenes.SMALL`: one in the middle, and a left and a right one."""


def detector_of(kind):
    return small_detector(kind).eval().double()  # so that rounding puts no two scores into another order


def padded(*images):
    pixels = torch.zeros(len(images), 3, 64, 64, dtype=torch.float64)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return PaddedImages(pixels, [tuple(image.shape[1:]) for image in images])


def images():
    """Of odd and even width, none as large as the canvas."""
    return [
        scene(height, width, [(1, (6, 8, 30, 28))], seed)[0]
        for seed, (height, width) in enumerate([(50, 61), (64, 40)])
    ]


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
def test_the_mirror_image_gives_the_mirror_image_of_the_detections(kind):
    model = detector_of(kind)
    originals = images()
    sizes = [(100, 123), (64, 40)]  # of the files: an odd width, and other than what was seen
    here = model.padded_detections(padded(*originals), sizes, FLIP)
    there = model.padded_detections(padded(*[image.flip(-1) for image in originals]), sizes, FLIP)
    assert min(len(found["scores"]) for found in here) > 5
    for found, other, (_, width) in zip(here, there, sizes, strict=True):
        torch.testing.assert_close(found["scores"], other["scores"], atol=1e-9, rtol=0)
        assert torch.equal(found["labels"], other["labels"])
        x1, y1, x2, y2 = other["boxes"].unbind(1)
        torch.testing.assert_close(found["boxes"], torch.stack([width - x2, y1, width - x1, y2], 1), atol=1e-4, rtol=0)
        if kind == "mask_rcnn":
            differing = [
                (decode(one) != decode(two)[:, ::-1]).sum()
                for one, two in zip(found["masks"], other["masks"], strict=True)
            ]
            assert sum(differing) <= 1e-3 * sum(decode(one).sum() for one in found["masks"])
        if kind == "keypoint_rcnn":
            points = other["keypoints"][:, [0, 2, 1]] * torch.tensor([-1.0, 1, 1]) + torch.tensor([width, 0.0, 0])
            apart = (found["keypoints"] - points).abs().amax(-1)
            assert apart.median() < 1e-2
            assert (apart > 0.1).float().mean() < 0.05  # two peaks of equal height
            torch.testing.assert_close(
                found["keypoints_scores"], other["keypoints_scores"][:, [0, 2, 1]], atol=1e-3, rtol=0
            )
    plain = model.padded_detections(padded(*originals), sizes)
    assert not torch.equal(plain[0]["scores"][:5], here[0]["scores"][:5])


@torch.no_grad()
def test_probabilities_boxes_and_masks_are_means_over_both_images():
    """Of one image that fills its canvas, with torchvision's box coder."""
    model = detector_of("mask_rcnn")
    image = scene(64, 64, [(1, (6, 8, 30, 28)), (2, (34, 30, 60, 56))])[0]
    (found,) = model.padded_detections(padded(image), [(64, 64)], Flip())
    here, there = (model._pyramid(padded(each)) for each in (image, image.flip(-1)))
    settings = model.settings

    def turned(boxes):
        return (64 - boxes[:, [2, 1, 0, 3]]) * torch.tensor([1.0, 0, 1, 0]) + boxes * torch.tensor([0.0, 1, 0, 1])

    proposals = [
        model.rpn.propose(model.rpn(pyramid), [(64, 64)], settings.rpn_pre_nms_top_n_test)[0]
        for pyramid in (here, there)
    ]
    proposals = torch.cat([proposals[0], turned(proposals[1])])
    (logits, deltas), (mirror_logits, mirror_deltas) = (
        model.box_head(here, [proposals]),
        model.box_head(there, [turned(proposals)]),
    )
    scores = (logits.double().softmax(1) + mirror_logits.double().softmax(1)) / 2
    mirror_deltas = mirror_deltas.clone()
    mirror_deltas[..., 0] *= -1
    boxes = (
        BoxCoder(settings.box_weights)
        .decode_single(((deltas + mirror_deltas) / 2).flatten(1), proposals)
        .reshape(len(proposals), -1, 4)
        .clamp(0, 64)
    )
    kept = [(scores[i, k].item(), k, boxes[i, k]) for i in range(len(scores)) for k in (1, 2) if scores[i, k] > 0.05]
    all_boxes = torch.stack([box for *_, box in kept])
    all_scores = torch.tensor([score for score, *_ in kept], dtype=torch.float64)
    labels = torch.tensor([label for _, label, _ in kept])
    chosen = batched_nms(all_boxes, all_scores, labels, settings.nms_iou)[: settings.max_detections]
    torch.testing.assert_close(found["scores"].double(), all_scores[chosen].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["boxes"], all_boxes[chosen], atol=1e-3, rtol=0)
    assert torch.equal(found["labels"], labels[chosen])
    one = model.mask_head.predict(here, [found["boxes"]], [found["labels"]])[0]
    other = model.mask_head.predict(there, [turned(found["boxes"])], [found["labels"]])[0]
    for mask, box, encoded in zip((one + other.flip(-1)) / 2, found["boxes"], found["masks"], strict=True):
        window, corner = paste_window(mask, box, (64, 64))
        wanted = decode(encode_window(np.asarray(window >= 0.5), corner, (64, 64)))
        assert (wanted != decode(encoded)).sum() <= 2
