"""Detectors by name, around networks of ours and of others."""

import pytest
import timm
import torch

import botformer
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError

SMALL = dict(
    fpn_channels=16, box_channels=32, mask_channels=16, mask_convolutions=1, rpn_post_nms_top_n=20, roi_samples=16
)


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
def test_every_kind_builds_around_a_row_and_detects(kind):
    torch.manual_seed(0)
    keypoints = dict(keypoint_channels=16, keypoint_convolutions=1)
    detector = botformer.create_detector(kind, "botnet_mini", 3, 64, **SMALL, **keypoints).eval()
    (found,) = detector([torch.rand(3, 50, 64)])
    assert found["boxes"].shape == (len(found["labels"]), 4)
    assert set(found["labels"].tolist()) <= {1, 2, 3}


def test_the_first_attention_of_botnet50_sees_64_cells_at_1024_px():
    with torch.device("meta"):
        detector = botformer.create_detector("mask_rcnn", "botnet50", 80)
    sizes = [module.size for module in detector.modules() if isinstance(module, MHSA2d)]
    assert sizes == [(64, 64), (32, 32), (32, 32)]


def test_batch_norm_of_the_backbone_follows_the_detector():
    with torch.device("meta"):
        detector = botformer.create_detector("mask_rcnn", "botnet_mini", 3, 64, norm_momentum=0.1, **SMALL)
    norms = [module for module in detector.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.eps == 1e-4 and norm.momentum == 0.1 for norm in norms)


def test_a_network_of_timm_is_a_backbone():
    peer = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    detector = botformer.create_detector("faster_rcnn", peer, 3, 64, **SMALL).eval()
    assert len(detector([torch.rand(3, 64, 64)])) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: botformer.create_detector("mask_rcnn", "botnet55", 3), "did you mean botnet50"),
        (lambda: botformer.create_detector("mask_rnn", "botnet_mini", 3, 64), "did you mean mask_rcnn"),
        (lambda: botformer.create_detector("mask_rcnn", "botnet_mini", 3, 64, nms_iuo=0.3), "did you mean nms_iou"),
        (lambda: botformer.create_detector("mask_rcnn", "botnet_mini", 0, 64), "num_classes"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with torch.device("meta"), pytest.raises(InputError, match=words):
        call()
