"""Whole networks: ResNet-50 against BoTNet-50 with each attention, timm's BoTNet before and after `adopt`, deployed."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from botformer.backbone.flops import count
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import find_row
from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import as_lucidrains, as_timm, inference, our_model, training_step
from botformer.benchmark.third_party import LUCIDRAINS_MISSING
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
SWAPS: dict[str, Callable[[MHSA2d], nn.Module]] = {"timm": as_timm, "lucidrains": as_lucidrains}


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Each attention in the same network at each size; `adopt` in both modes; deployed networks."""
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
    """ResNet-50, and BoTNet-50 with our attention, timm's and lucidrains'."""
    call = partial(_call, mode, image_px=image_px, batch=batch, device=device)
    gflop = partial(_gflop, mode, image_px, batch)
    implementations = [
        Implementation("resnet50", lambda: call(lambda: our_model("resnet50", image_px)), gflop=gflop("resnet50")),
        Implementation(
            "botnet50, ours",
            lambda: call(lambda: our_model("botnet50", image_px)),
            answer="botnet50",
            gflop=gflop("botnet50"),
        ),
    ]
    for name, swap in SWAPS.items():
        implementations.append(
            Implementation(
                f"botnet50, attention of {name}",
                lambda swap=swap: call(lambda: our_model("botnet50", image_px, swap)),
                answer="botnet50",
                unsupported_reason=LUCIDRAINS_MISSING if name == "lucidrains" else "",
                gflop=gflop("botnet50"),
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
                gflop=_gflop("training step", image_px, batch, name),
            )
            for name in ("resnet50", "botnet50")
        ],
    )


def convert_case(mode: str, image_px: int, batch: int, device: torch.device) -> Case:
    """timm's botnet26t_256 as it comes and adopted."""
    call = partial(_call, mode, image_px=image_px, batch=batch, device=device)
    name = "botnet26t_256"
    implementations = [
        Implementation(f"timm {name}", lambda: call(lambda: _timm_model(name)), answer=name),
        Implementation(f"timm {name}, adopted", lambda: call(lambda: convert(_timm_model(name))), answer=name),
    ]
    return Case({"px": image_px, "batch": batch, "mode": mode}, implementations, _tolerance(device))


def deployed_case(image_px: int, batch: int, device: torch.device, compiled: bool) -> Case:
    """Inference with networks as they come and as `deploy.optimize` makes them."""
    call = partial(_call, "inference", image_px=image_px, batch=batch, device=device)

    def implementation(title: str, name: str, make: Callable[[], Any]) -> Implementation:
        return Implementation(title, lambda: call(make), answer=name, gflop=_gflop("inference", image_px, batch, name))

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
    """The same in bfloat16, in a case of its own: rounding moves the logits of random weights by a sixth and more.

    Compared with each other; how near the network is to the exact one is a matter of the tests.
    """

    def implementation(title: str, answer: str, make: Callable[[], Any]) -> Implementation:
        return Implementation(title, lambda: _call("inference", make, image_px, batch, device), answer=answer)

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


def _gflop(mode: str, image_px: int, batch: int, name: str) -> float:
    """Twice the multiply-adds as the paper counts them; three times that for a training step."""
    return 2 * batch * count(find_row(name), image_px).multiply_adds * (1 if mode == "inference" else 3) / 1e9


def _torchvision_resnet50(image_px: int) -> nn.Module:
    """With the weights that our ResNet-50 draws from the same seed."""
    from torchvision.models import resnet50

    ours = our_model("resnet50", image_px)
    theirs = resnet50(weights=None)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def _timm_model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, zero_init_last=False)  # or the attention would not be seen in the logits


def _tolerance(device: torch.device) -> float:
    return 0.1 if device.type == "cuda" else 0.005
