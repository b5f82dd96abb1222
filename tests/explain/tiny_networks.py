"""Small networks with random weights whose attention is not flat."""

import torch
from torch import nn

from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import Classifier
from botformer.backbone.variants import Row
from botformer.create import create_detector
from botformer.detection import Detector
from botformer.recipes.model_options import make_options

POSITIONS = ["relative", "absolute", "none", "position_only", "blog"]
HALVED = Row((1, 1, 1, 3), "attention", 2, width=4, stem="3x3/2")
"""As BoTNet-50: three attention layers, the first one followed by an average pool."""
STRIDE_1 = Row((1, 1, 1, 2), "attention", 1, width=4, stem="3x3/2")
INSERTED = Row((1, 1, 2, 2), width=4, stem="3x3/2", inserted=(("c4", "attention"), ("c5", "attention")))
NON_LOCAL = Row((1, 1, 2, 1), width=4, stem="3x3/2", inserted=(("c4", "non_local"),))
CONVOLUTIONS = Row((1, 1, 1, 1), width=4, stem="3x3/2")
ROWS = {
    "halved": HALVED, "stride 1": STRIDE_1, "inserted": INSERTED, "non-local": NON_LOCAL,
}  # fmt: skip


def classifier(row: Row = HALVED, image_size: tuple[int, int] = (48, 48), position: str = "relative") -> Classifier:
    """Three classes, float64, in evaluation mode."""
    torch.manual_seed(0)
    model = Classifier(row, image_size, make_options({"position": position, "zero_gamma": False}), 3).double().eval()
    return sharpened(model)


def detector(backbone: str = "botnet_nano", kind: str = "mask_rcnn", **settings) -> Detector:
    """Two kinds of objects on a canvas of 64 px, of which it finds many; float64, in evaluation mode."""
    torch.manual_seed(0)
    small = {
        "fpn_channels": 16, "box_channels": 32, "mask_channels": 8, "mask_convolutions": 1, "keypoint_channels": 8,
        "keypoint_convolutions": 1, "anchor_scale": 3.0, "roi_canonical_cells": 4.0, "max_detections": 20,
    }  # fmt: skip
    model = create_detector(kind, backbone, 2, 64, backbone_options={"zero_gamma": False}, **(small | settings))
    nn.init.normal_(model.box_head.predictor.cls_score.weight, std=0.5)
    return sharpened(model.double().eval())


def sharpened(model):
    for module in model.modules():
        if isinstance(module, MHSA2d):
            with torch.no_grad():
                module.qkv.weight *= 30
                if module.qkv.bias is not None:
                    module.qkv.bias.normal_(std=0.3)
    return model


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Uint8, with some structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (255 * (0.8 * smooth + 0.2 * torch.rand(3, height, width, generator=generator))).to(torch.uint8)
