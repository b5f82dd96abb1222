"""Our Mask R-CNN against torchvision's: the scores of both after the same training.

Both have the same small BoTNet and initial weights, the same images in the same order, optimiser, schedule and steps,
widths of pyramid and heads, anchors, samples and thresholds. Both have torchvision's call, so one function trains them
and one scores them. torchvision gets BatchNorm where it supports it (pyramid and mask head, as in its v2 models). The
other differences are those in docs/detection.md. Two of them are visible in the scores:

* torchvision pastes masks into boxes of whole pixels. From perfect boxes and masks, objects of 40 px get an IoU of
  0.94, so it cannot reach the AP at 0.95 (ours was up to 0.1 ahead). The ellipses
  here measure 56 to 84 px, which both can detect at 0.95.
* Its box loss weighs small errors more than the paper's code base does, so its boxes are the better ones after so few
  steps, by 0.01 to 0.07 box AP; with its loss in our box head there was no difference (0.945 and 0.948).
"""

import copy
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

import botformer
from botformer.detection.evaluation.coco_eval import CocoEvaluator
from botformer.rle import encode

SIDE = 192
"""Of the square images, in pixels; they fill the canvas."""
CHANNELS, BOX_CHANNELS = 32, 64
"""Of pyramid and mask head; of the fully connected layers."""
ANCHORS, RATIOS = (48.0, 64.0, 88.0), (1.0, 2.0, 0.5)
CANDIDATES, SAMPLES = 300, 32
"""Anchors per level before NMS; sampled proposals per image."""
STEPS, BATCH, RATE = 200, 4, 4e-3
UNSEEN = 40


def scenes(seed: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Endless images (3, SIDE, SIDE) and their targets: one to four bright ellipses at any angle, with soft edges like
    those of nuclei, on noise."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    while True:
        image = 0.3 + 0.05 * torch.randn(3, SIDE, SIDE, generator=draw)
        masks = []
        for quarter in torch.randperm(4, generator=draw)[: int(torch.randint(1, 5, (), generator=draw))].tolist():
            u = torch.rand(6, generator=draw)
            short, long = (28 + 14 * u[:2]).sort().values
            middle = torch.tensor([quarter % 2 + 0.5, quarter // 2 + 0.5]) * SIDE / 2 + 12 * (u[2:4] - 0.5)
            dx, dy = x - middle[0], y - middle[1]
            cos, sin = (u[4] * torch.pi).cos(), (u[4] * torch.pi).sin()
            radius = (((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2).sqrt()
            image += (0.35 + 0.2 * u[5]) * ((1 - radius) * short / 1.5).sigmoid()
            masks.append(radius <= 1)
        shapes = torch.stack(masks)
        yield (
            image.clamp(0, 1),
            {
                "boxes": torch.stack([bounds(shape) for shape in masks]),
                "labels": torch.ones(len(shapes), dtype=torch.int64),
                "masks": shapes.byte(),
            },
        )


def bounds(mask: Tensor) -> Tensor:
    """(4,) xyxy around a mask (height, width)."""
    rows, columns = torch.where(mask)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


class Pyramid(nn.Module):
    """torchvision's pyramid on c3 to c5, in the form that its detectors require."""

    out_channels = CHANNELS
    maps = ("c3", "c4", "c5")

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        widths = [backbone.channels[name] for name in self.maps]
        self.fpn = FeaturePyramidNetwork(widths, CHANNELS, norm_layer=nn.BatchNorm2d)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(images)
        return self.fpn({name: maps[name] for name in self.maps})


def torchvisions(backbone: nn.Module) -> nn.Module:
    return MaskRCNN(
        Pyramid(backbone),
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(tuple((side,) for side in ANCHORS), (RATIOS,) * len(ANCHORS)),
        rpn_pre_nms_top_n_train=CANDIDATES,
        rpn_pre_nms_top_n_test=CANDIDATES,
        box_roi_pool=MultiScaleRoIAlign(list(Pyramid.maps), 7, 2),
        box_head=TwoMLPHead(CHANNELS * 7**2, BOX_CHANNELS),
        box_predictor=FastRCNNPredictor(BOX_CHANNELS, 2),
        box_batch_size_per_image=SAMPLES,
        mask_roi_pool=MultiScaleRoIAlign(list(Pyramid.maps), 14, 2),
        mask_head=MaskRCNNHeads(CHANNELS, [CHANNELS], 1, norm_layer=nn.BatchNorm2d),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, 2),
    )


def ours(backbone: nn.Module) -> nn.Module:
    detector = botformer.create_detector(
        "mask_rcnn",
        backbone,
        1,
        SIDE,
        levels=("p3", "p4", "p5"),
        fpn_channels=CHANNELS,
        norm_momentum=0.1,
        norm_epsilon=1e-5,
        anchor_sizes=ANCHORS,
        anchor_ratios=RATIOS,
        rpn_pre_nms_top_n=CANDIDATES,
        rpn_pre_nms_top_n_test=CANDIDATES,
        roi_samples=SAMPLES,
        box_channels=BOX_CHANNELS,
        mask_channels=CHANNELS,
        mask_convolutions=1,
    )
    return detector.as_torchvision()


def mask_ap_after_training(build: Callable[[nn.Module], nn.Module], backbone: nn.Module, seed: int) -> float:
    torch.manual_seed(seed)
    detector = build(copy.deepcopy(backbone))
    train(detector, scenes(seed))
    return mask_ap(detector.eval(), scenes(seed=10**6))


def train(detector: nn.Module, stream: Iterator[tuple[Tensor, dict[str, Tensor]]]) -> None:
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    detector.train()
    for _ in range(STEPS):
        images, targets = zip(*islice(stream, BATCH), strict=True)
        loss = torch.stack(list(detector(list(images), list(targets)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def mask_ap(detector: nn.Module, stream: Iterator[tuple[Tensor, dict[str, Tensor]]]) -> float:
    metrics = CocoEvaluator([(1, "ellipse")], kinds=("mask",))
    for number, (image, truth) in enumerate(islice(stream, UNSEEN)):
        (found,) = detector([image])
        alike = {"image_id": number, "category_id": 1, "iscrowd": 0}
        records = [
            alike | {"area": int(mask.sum()), "segmentation": encode(mask.bool().numpy())} for mask in truth["masks"]
        ]
        target = {"image_id": number, "original_size": (SIDE, SIDE), "ground_truth": json.dumps(records)}
        found["masks"] = [encode((mask >= 0.5).numpy()) for mask in found["masks"][:, 0]]
        metrics.update([found], {"targets": [target]})
    return metrics.compute()["mask_AP"]


@pytest.mark.slow
def test_our_mask_r_cnn_learns_as_well_as_torchvisions():
    torch.manual_seed(0)
    backbone = botformer.create_backbone("botnet_nano", image_size=SIDE, zero_gamma=False)
    mine, other = (mask_ap_after_training(build, backbone, seed=0) for build in (ours, torchvisions))
    assert min(mine, other) > 0.9
    # Seven runs with several seeds and steps gave -0.017 to 0.017; masks pasted one pixel off cost 0.06.
    assert abs(mine - other) < 0.03
