"""Whole networks: ResNet-50 and BoTNet-50 with each attention, deployed; timm's BoTNet before and after `convert`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import (
    ConstructAttention,
    gflop,
    inference,
    our_model,
    training_step,
)
from botformer.benchmark.third_party import LUCIDRAINS_MISSING, lucidrains_attention, timm_attention
from botformer.deploy import optimize
from botformer.weights.convert_timm import convert

# (image px, batch)
CPU = ((1024, 1),)
CUDA = ((1024, 4), (224, 64), (512, 16), (1280, 4))
TINY = ((64, 2),)
MODES = ("training step", "inference")
COMPILED_TRAINING = (1024, 4)
DEPLOYED = {"cpu": (224, 8), "cuda": (224, 64)}
TIMM = {"cpu": (256, 1), "cuda": (256, 64)}
THIRD_PARTY: dict[str, ConstructAttention] = {"timm": timm_attention, "lucidrains": lucidrains_attention}


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Each attention in the same network at each size; deployed networks; `convert` in both modes."""
    sizes = TINY if quick else CUDA if device.type == "cuda" else CPU
    for mode in MODES:
        yield attention_case(mode, *sizes[0], device)
    if device.type == "cuda" and not quick:
        yield compiled_case(*COMPILED_TRAINING, device)
    image_px, batch = (64, 1) if quick else DEPLOYED[device.type]
    yield deployed_case(image_px, batch, device, compiled=not quick)
    if device.type == "cpu":
        yield bfloat16_case(image_px, batch, device, compiled=not quick)
    timm_px, timm_batch = TIMM[device.type]
    for mode in MODES:
        yield convert_case(mode, timm_px, 2 if quick else timm_batch, device)
    for image_px, batch in sizes[1:]:
        for mode in MODES:
            yield attention_case(mode, image_px, batch, device)


def attention_case(mode: str, image_px: int, batch: int, device: torch.device) -> Case:
    """ResNet-50, and BoTNet-50 with our, timm's and lucidrains' attention."""
    call = partial(_call, mode, image_px=image_px, batch=batch, device=device)
    operations = partial(gflop, image_px=image_px, batch=batch, training=mode != "inference")
    implementations = [
        Implementation("resnet50", lambda: call(lambda: our_model("resnet50", image_px)), gflop=operations("resnet50")),
        Implementation(
            "botnet50, ours",
            lambda: call(lambda: our_model("botnet50", image_px)),
            output="botnet50",
            gflop=operations("botnet50"),
        ),
    ]
    for name, attention in THIRD_PARTY.items():
        implementations.append(
            Implementation(
                f"botnet50, attention of {name}",
                lambda attention=attention: call(lambda: our_model("botnet50", image_px, attention)),
                output="botnet50",
                unsupported_reason=LUCIDRAINS_MISSING if name == "lucidrains" else "",
                gflop=operations("botnet50"),
            )
        )
    return Case({"px": image_px, "batch": batch, "mode": mode}, implementations, _tolerance(device))


def compiled_case(image_px: int, batch: int, device: torch.device) -> Case:
    """The training step of both networks under the compiler."""
    return Case(
        {"px": image_px, "batch": batch, "mode": "training step, compiled"},
        [
            Implementation(
                name,
                lambda name=name: training_step(lambda: our_model(name, image_px), image_px, batch, device, True),
                gflop=gflop(name, image_px, batch, training=True),
            )
            for name in ("resnet50", "botnet50")
        ],
    )


def convert_case(mode: str, image_px: int, batch: int, device: torch.device) -> Case:
    """timm's botnet26t_256, unchanged and converted."""
    call = partial(_call, mode, image_px=image_px, batch=batch, device=device)
    name = "botnet26t_256"
    implementations = [
        Implementation(f"timm {name}", lambda: call(lambda: _timm_model(name)), output=name),
        Implementation(f"timm {name}, converted", lambda: call(lambda: convert(_timm_model(name))), output=name),
    ]
    return Case({"px": image_px, "batch": batch, "mode": mode}, implementations, _tolerance(device))


def deployed_case(image_px: int, batch: int, device: torch.device, compiled: bool) -> Case:
    """Inference before and after `deploy.optimize`."""
    call = partial(_call, "inference", image_px=image_px, batch=batch, device=device)

    def implementation(title: str, name: str, make: Callable[[], Any]) -> Implementation:
        operations = gflop(name, image_px, batch, training=False)
        return Implementation(title, lambda: call(make), output=name, gflop=operations)

    implementations = [
        implementation("torchvision resnet50, eager", "resnet50", lambda: _torchvision_resnet50(image_px))
    ]
    for name in ("resnet50", "botnet50"):
        implementations.append(implementation(f"{name}, eager", name, lambda name=name: our_model(name, image_px)))
        implementations.append(
            implementation(f"{name}, deployed", name, lambda name=name: optimize(our_model(name, image_px).to(device)))
        )
        if compiled:
            implementations.append(
                implementation(
                    f"{name}, deployed and compiled",
                    name,
                    lambda name=name: optimize(our_model(name, image_px).to(device), compile=True),
                )
            )
    return Case({"px": image_px, "batch": batch, "mode": "deployed"}, implementations, _tolerance(device))


def bfloat16_case(image_px: int, batch: int, device: torch.device, compiled: bool) -> Case:
    """The same in bfloat16. A case of its own: rounding changes the logits of random weights by a sixth and more, so
    outputs in bfloat16 are compared with each other only. Tests compare them with float32.
    """

    def implementation(title: str, output: str, make: Callable[[], Any]) -> Implementation:
        return Implementation(title, lambda: _call("inference", make, image_px, batch, device), output=output)

    implementations = [
        implementation("torchvision resnet50, eager, float32", "resnet50", lambda: _torchvision_resnet50(image_px)),
        implementation("botnet50, eager, float32", "botnet50", lambda: our_model("botnet50", image_px)),
    ]
    for name in ("resnet50", "botnet50"):
        for by_compiler in (False, True)[: 1 + compiled]:
            implementations.append(
                implementation(
                    f"{name}, deployed{' and compiled' if by_compiler else ''}",
                    f"{name} in bfloat16",
                    lambda name=name, by_compiler=by_compiler: optimize(
                        our_model(name, image_px), compile=by_compiler, dtype=torch.bfloat16
                    ),
                )
            )
    return Case({"px": image_px, "batch": batch, "mode": "deployed in bfloat16"}, implementations, tolerance=0.3)


def _call(mode: str, build: Callable[[], Any], image_px: int, batch: int, device: torch.device) -> Any:
    return (inference if mode == "inference" else training_step)(build, image_px, batch, device)


def _torchvision_resnet50(image_px: int) -> nn.Module:
    """With the weights of our ResNet-50 from the same seed."""
    from torchvision.models import resnet50

    weights = our_model("resnet50", image_px).state_dict()
    model = resnet50(weights=None)
    model.load_state_dict(weights)
    return model


def _timm_model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, zero_init_last=False)  # otherwise the logits do not show the attention


def _tolerance(device: torch.device) -> float:
    return 0.1 if device.type == "cuda" else 0.005
