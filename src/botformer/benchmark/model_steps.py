"""Networks with somebody else's attention in them, and one call of a network: inference or a training step."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.backbone.mhsa import MHSA2d
from botformer.benchmark.timing import Call, rotations
from botformer.create import create_model

CLASSES = 1000
Build = Callable[[], Any]


def our_model(name: str, image_px: int, attention: Callable[[MHSA2d], nn.Module] | None = None) -> nn.Module:
    """A row with all parts at work from the start, and `attention`, if given, in place of each attention layer.

    Gamma is not zeroed, queries and keys are not small and the statistics are those of noise: otherwise activations
    grow from block to block, each query looks at a single key, and a wrong attention is not seen in the logits.
    """
    model = create_model(name, CLASSES, image_px, zero_gamma=False)
    places = [
        (parent, child_name, layer)
        for parent in model.modules()
        for child_name, layer in parent.named_children()
        if isinstance(layer, MHSA2d)
    ]
    for _, _, layer in places:
        nn.init.normal_(layer.qkv.weight, std=layer.qkv.in_channels**-0.5)
    _measure_statistics(model)
    if attention is not None:  # after all weights are drawn: theirs draw some too
        for parent, child_name, layer in places:
            setattr(parent, child_name, attention(layer))
    return model


@torch.no_grad()
def _measure_statistics(model: nn.Module) -> None:
    """Set the running statistics of every BatchNorm to those of a small batch of noise."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(torch.randn(4, 3, 64, 64))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def as_timm(layer: MHSA2d) -> nn.Module:
    """timm's `BottleneckAttn` with the weights of ours."""
    from timm.layers.bottleneck_attn import BottleneckAttn

    channels = layer.qkv.in_channels
    theirs = BottleneckAttn(
        channels,
        feat_size=_two(layer.size),
        num_heads=layer.heads,
        dim_head=channels // layer.heads,
        scale_pos_embed=True,
    )
    theirs.qkv = copy.deepcopy(layer.qkv)
    theirs.pos_embed.height_rel = nn.Parameter(layer.rel_height.detach().clone())
    theirs.pos_embed.width_rel = nn.Parameter(layer.rel_width.detach().clone())
    return _pooled(theirs, layer)


def as_lucidrains(layer: MHSA2d) -> nn.Module:
    """The `Attention` of bottleneck-transformer-pytorch with the weights of ours."""
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention

    channels = layer.qkv.in_channels
    theirs: Any = Attention(
        dim=channels,
        fmap_size=_two(layer.size),
        heads=layer.heads,
        dim_head=channels // layer.heads,
        rel_pos_emb=True,
    )
    theirs.to_qkv = copy.deepcopy(layer.qkv)
    theirs.pos_emb.rel_height = nn.Parameter(layer.rel_height.detach().clone())
    theirs.pos_emb.rel_width = nn.Parameter(layer.rel_width.detach().clone())
    return _pooled(theirs, layer)


def _pooled(theirs: nn.Module, layer: MHSA2d) -> nn.Module:
    return nn.Sequential(theirs, nn.AvgPool2d(2, 2, ceil_mode=True)) if layer.pool else theirs


def inference(build: Build, image_px: int, batch: int, device: torch.device) -> Call:
    """Images (batch, 3, px, px) -> logits, in evaluation mode, channels_last; bfloat16 on a GPU."""
    images = _images(image_px, batch, device)
    model = build().eval().to(device, memory_format=torch.channels_last)

    def call(number: int) -> Tensor:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=_on_gpu(device)):
            return model(images[number % len(images)])

    return call


def training_step(build: Build, image_px: int, batch: int, device: torch.device, compiled: bool = False) -> Call:
    """Forward, cross entropy, backward and a step of SGD with momentum; returns the logits. bfloat16 on a GPU."""
    images = _images(image_px, batch, device)
    labels = torch.randint(CLASSES, (batch,)).to(device)
    model: nn.Module = build().train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    forward: Any = torch.compile(model) if compiled else model

    def call(number: int) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=_on_gpu(device)):
            logits = forward(images[number % len(images)])
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # here, so that nothing is held between the calls
        return logits.detach()

    return call


def _images(image_px: int, batch: int, device: torch.device) -> list[Tensor]:
    sets = min(rotations(12 * batch * image_px**2, device), 8)
    images = (torch.randn(batch, 3, image_px, image_px) for _ in range(sets))
    return [x.to(device).to(memory_format=torch.channels_last) for x in images]


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _two(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return height, width
