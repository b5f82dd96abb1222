"""The networks that benchmarks compare, and one call of a network: inference or a training step."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.backbone.flops import count
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import find_row
from botformer.benchmark.timing import Call, Replay, rotations
from botformer.create import create_model

CLASSES = 1000
Build = Callable[[], Any]
Execution = Literal["eager", "compiled", "CUDA graph"]
"""How the call of a network is run. A CUDA graph holds the whole call: a training step with its optimiser."""
ConstructAttention = Callable[[Tensor, Tensor, int, nn.Module], nn.Module]
"""Position tables (2H-1, D) and (2W-1, D), heads, projection -> a layer (B, C, H, W) -> (B, C, H, W)."""


def our_model(name: str, image_px: int, attention: ConstructAttention | None = None) -> nn.Module:
    """A network by name with random weights; `attention`, if given, replaces each attention layer.

    Gamma is not zeroed, the projections have unit variance and BatchNorm's statistics are those of noise. Otherwise
    activations grow from block to block, each query attends to a single key, and the logits do not show a wrong
    attention.
    """
    model = create_model(name, CLASSES, image_px, zero_gamma=False)
    layers = [
        (parent, child_name, layer)
        for parent in model.modules()
        for child_name, layer in parent.named_children()
        if isinstance(layer, MHSA2d)
    ]
    for _, _, layer in layers:
        nn.init.normal_(layer.qkv.weight, std=layer.qkv.in_channels**-0.5)
    _measure_statistics(model)
    if attention is not None:  # after all weights are drawn: construction draws random numbers, too
        for parent, child_name, layer in layers:
            setattr(parent, child_name, third_party_layer(attention, layer))
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


def third_party_layer(construct: ConstructAttention, layer: MHSA2d) -> nn.Module:
    """A third-party layer with the weights of ours, pooled like ours."""
    tables = layer.rel_height.detach(), layer.rel_width.detach()
    attention = construct(*tables, layer.heads, copy.deepcopy(layer.qkv))
    return nn.Sequential(attention, nn.AvgPool2d(2, 2, ceil_mode=True)) if layer.pool else attention


def gflop(name: str, image_px: int, batch: int, training: bool) -> float:
    """Of one of our networks: twice its multiply-adds as the paper counts them; three times that in training."""
    return 2 * (3 if training else 1) * batch * count(find_row(name), image_px).multiply_adds / 1e9


def inference(build: Build, image_px: int, batch: int, device: torch.device, execution: Execution = "eager") -> Call:
    """Images (batch, 3, px, px) -> logits in evaluation mode, channels_last; bfloat16 on a GPU."""
    images = _images(image_px, batch, device)
    model = build().eval().to(device, memory_format=torch.channels_last)
    forward: Any = torch.compile(model, dynamic=False) if execution == "compiled" else model

    def call_on(images: list[Tensor]) -> Call:
        def call(number: int) -> Tensor:
            with torch.inference_mode(), autocast(device):
                return forward(images[number % len(images)])

        return call

    return _captured(call_on, images, model) if execution == "CUDA graph" else call_on(images)


def training_step(
    build: Build, image_px: int, batch: int, device: torch.device, execution: Execution = "eager"
) -> Call:
    """Forward, cross entropy, backward and a step of SGD with momentum; returns the logits. bfloat16 on a GPU."""
    images = _images(image_px, batch, device)
    labels = torch.randint(CLASSES, (batch,)).to(device)
    model: nn.Module = build().train().to(device, memory_format=torch.channels_last)
    forward: Any = torch.compile(model, dynamic=False) if execution == "compiled" else model

    def call_on(images: list[Tensor]) -> Call:
        def loss_and_logits(number: int) -> tuple[Tensor, Tensor]:
            logits = forward(images[number % len(images)])
            return F.cross_entropy(logits, labels), logits

        return sgd_step(loss_and_logits, model, device)

    return _captured(call_on, images, model) if execution == "CUDA graph" else call_on(images)


def sgd_step(loss_and_output: Callable[[int], tuple[Tensor, Tensor]], model: nn.Module, device: torch.device) -> Call:
    """A call that computes the loss, its gradients and a step of SGD with momentum, and returns the output."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def call(number: int) -> Tensor:
        with autocast(device):
            loss, output = loss_and_output(number)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # here, so that no gradients are kept between calls
        return output.detach()

    return call


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it, calls of this file compute in float32 on a GPU, too.

    In bfloat16 the logits of random weights say little about an attention: rounding changes those of BoTNet-50 by more
    than half their norm, wrong positions by a tenth.
    """
    before = torch.backends.cudnn.allow_tf32
    token = _autocasts.set(False)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
        _autocasts.reset(token)


_autocasts = ContextVar("_autocasts", default=True)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, except within `full_precision`."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and _autocasts.get())


def _captured(call_on: Callable[[list[Tensor]], Call], images: list[Tensor], model: nn.Module) -> Call:
    """A call on one input, captured as a CUDA graph that is replayed on a copy of each of the images."""
    given = images[0].clone()
    call = call_on([given])
    state = copy.deepcopy(model.state_dict())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for number in range(3):  # libraries choose their algorithms, and the optimiser makes its state
            call(number)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call(0)
    model.load_state_dict(state)  # into the same memory

    replay = Replay(call, graph)

    def on_next_images(number: int) -> Tensor:
        given.copy_(images[number % len(images)])
        replay(number)
        return output

    return on_next_images


def _images(image_px: int, batch: int, device: torch.device) -> list[Tensor]:
    sets = min(rotations(12 * batch * image_px**2, device), 8)
    images = (torch.randn(batch, 3, image_px, image_px, device=device) for _ in range(sets))
    return [x.to(memory_format=torch.channels_last) for x in images]
