"""The paper's headline: T3 to T7 and EfficientNets, SE-ResNets, ResNeSts and ConvNeXts at one batch size.

Each network at its own image size; all but ours are timm's. Their outputs differ; their accuracy on ImageNet is in the
papers.
"""

from collections.abc import Iterator

import torch
from torch import nn

from botformer.backbone.variants import ROWS
from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import gflop, inference, our_model, training_step

# (name, image px). One group per case: ours first, then networks that the paper compares it with, and the ConvNeXts
# whose top-1 (82.1, 83.1, 83.8, 84.3 %, tiny to large) is nearest to ours (T3 to T7: 81.7, 82.8, 83.5, 84.0, 84.7 %).
GROUPS = (
    (("botnet_t7", 384), ("efficientnet_b7", 600), ("resnest269e", 416)),
    (("botnet_t3", 224), ("efficientnet_b4", 380), ("seresnet50", 224), ("resnest50d", 224), ("convnext_tiny", 224)),
    (("botnet_t4", 224), ("efficientnet_b5", 456), ("resnest101e", 256), ("convnext_small", 224)),
    (("botnet_t5", 256), ("efficientnet_b6", 528), ("seresnet152", 288), ("resnest200e", 320)),
    (
        ("botnet_t6", 320),
        ("efficientnet_b7", 600),
        ("seresnet152", 320),
        ("convnext_base", 224),
        ("convnext_large", 224),
    ),
)
CPU_GROUPS = tuple(group[:2] for group in (GROUPS[1], GROUPS[2], GROUPS[3], GROUPS[0]))
BATCH = {"cpu": 1, "cuda": 16}
TINY = ((("botnet_nano", 48), ("efficientnet_b0", 48)),)
MODES = {"training step": training_step, "inference": inference}


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """One case per mode and group. On a CPU only the first two networks of a group, the cheapest group first."""
    groups = TINY if quick else GROUPS if device.type == "cuda" else CPU_GROUPS
    batch = 2 if quick else BATCH[device.type]
    for mode in MODES:
        for group in groups:
            labels = {"group": group[0][0], "batch": batch, "mode": mode}
            yield Case(labels, [_implementation(mode, *one, batch, device) for one in group])


def _implementation(mode: str, name: str, image_px: int, batch: int, device: torch.device) -> Implementation:
    ours = name in ROWS
    return Implementation(
        f"{name}, {image_px} px",
        lambda: MODES[mode](lambda: _model(name, image_px), image_px, batch, device),
        third_party=not ours,
        gflop=gflop(name, image_px, batch, training=mode == "training step") if ours else None,
    )


def _model(name: str, image_px: int) -> nn.Module:
    if name in ROWS:
        return our_model(name, image_px)
    import timm

    return timm.create_model(name)
