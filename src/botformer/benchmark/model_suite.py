"""Whole networks: ResNet-50 and BoTNet-50 with each attention, deployed; timm's BoTNet before and after `convert`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import (
    ConstructAttention,
    Execution,
    full_precision,
    gflop,
    inference,
    our_model,
    training_step,
)
from botformer.benchmark.third_party import LUCIDRAINS_MISSING, lucidrains_attention, timm_attention
from botformer.benchmark.timing import Call
from botformer.create.convert import convert
from botformer.deploy import optimize

Mode = Literal["training step", "inference"]
MODES: tuple[Mode, ...] = ("training step", "inference")
THIRD_PARTY: dict[str, ConstructAttention] = {"timm": timm_attention, "lucidrains": lucidrains_attention}
NETWORKS = {"resnet50": "resnet50", "botnet50": "botnet50, ours"}


class Setting(NamedTuple):
    """A case of ResNet-50 and BoTNet-50. In eager mode with the attention of others, too."""

    mode: Mode
    execution: Execution
    px: int
    batch: int


# The most important first: time may run out. Compilation takes longer than everything else.
CUDA = (
    Setting("training step", "eager", 1024, 4),
    Setting("inference", "eager", 1024, 4),
    Setting("training step", "eager", 224, 64),
    Setting("inference", "eager", 224, 64),
    Setting("training step", "CUDA graph", 1024, 4),
    Setting("inference", "CUDA graph", 1024, 4),
    Setting("training step", "CUDA graph", 224, 64),
    Setting("inference", "CUDA graph", 224, 64),
    Setting("training step", "eager", 512, 16),
    Setting("inference", "eager", 512, 16),
    Setting("training step", "eager", 1280, 4),
    Setting("inference", "eager", 1280, 4),
    Setting("training step", "compiled", 1024, 4),
    Setting("inference", "compiled", 1024, 4),
    Setting("training step", "compiled", 224, 64),
    Setting("inference", "compiled", 224, 64),
    Setting("training step", "CUDA graph", 512, 16),
    Setting("inference", "CUDA graph", 512, 16),
    Setting("training step", "CUDA graph", 1280, 4),
    Setting("inference", "CUDA graph", 1280, 4),
    Setting("training step", "compiled", 1280, 4),
    Setting("inference", "compiled", 1280, 4),
    Setting("training step", "compiled", 512, 16),
    Setting("inference", "compiled", 512, 16),
)
CPU = (Setting("training step", "eager", 1024, 1), Setting("inference", "eager", 1024, 1))
TINY = (Setting("training step", "eager", 64, 2), Setting("inference", "CUDA graph", 64, 2))
FIRST = 4
"""Settings before the cases of deployed and of converted networks."""
DEPLOYED = {"cpu": (224, 8), "cuda": (224, 64)}
TIMM = {"cpu": (256, 1), "cuda": (256, 64)}
COMPILATION_S = {"training step": 150, "inference": 90}
"""What compiling both networks may take on a machine with a GPU."""


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Each attention in the same network, and executions of ours; deployed networks; `convert` in both modes."""
    settings = TINY if quick else CUDA if device.type == "cuda" else CPU
    for setting in settings[:FIRST]:
        yield setting_case(setting, device)
    image_px, batch = (64, 1) if quick else DEPLOYED[device.type]
    yield deployed_case(image_px, batch, device, compiled=not quick)
    if device.type == "cpu":
        yield bfloat16_case(image_px, batch, device, compiled=not quick)
    timm_px, timm_batch = TIMM[device.type]
    for mode in MODES[quick:]:
        yield convert_case(mode, timm_px, 2 if quick else timm_batch, device)
    for setting in settings[FIRST:]:
        yield setting_case(setting, device)


def setting_case(setting: Setting, device: torch.device) -> Case:
    if setting.execution == "eager":
        return attention_case(setting.mode, setting.px, setting.batch, device)
    return execution_case(setting, device)


def attention_case(mode: Mode, image_px: int, batch: int, device: torch.device) -> Case:
    """ResNet-50, and BoTNet-50 with our, timm's and lucidrains' attention; compared in float32."""
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
                third_party=True,
                gflop=operations("botnet50"),
            )
        )
    return Case({"px": image_px, "batch": batch, "mode": mode}, implementations, _tolerance(device), full_precision)


def execution_case(setting: Setting, device: torch.device) -> Case:
    """ResNet-50 and BoTNet-50, eager and compiled, or eager and as a CUDA graph. bfloat16 on a GPU.

    Rounding there changes the logits of random weights by a large part of their norm, most in training of BoTNet-50.
    What the compiler makes of it is therefore not compared with the eager network.
    """
    mode, execution, px, batch = setting

    def implementation(name: str, execution: Execution) -> Implementation:
        incomparable = name == "botnet50" and mode == "training step" and setting.execution == "compiled"
        needs_cuda = execution == "CUDA graph" and device.type != "cuda"
        return Implementation(
            f"{NETWORKS[name]}, {execution}",
            lambda: _call(mode, lambda: our_model(name, px), px, batch, device, execution),
            output="" if incomparable else name,
            unsupported_reason="it needs a CUDA device" if needs_cuda else "",
            gflop=gflop(name, px, batch, training=mode != "inference"),
            allocates=execution != "CUDA graph",
        )

    executions: tuple[Execution, ...] = ("eager", execution)
    return Case(
        {"px": px, "batch": batch, "mode": f"{mode}, {execution}"},
        [implementation(name, each) for each in executions for name in NETWORKS],
        tolerance=0.4,
        least_s=COMPILATION_S[mode] if execution == "compiled" else 0,
    )


def convert_case(mode: Mode, image_px: int, batch: int, device: torch.device) -> Case:
    """timm's botnet26t_256, unchanged and converted."""
    call = partial(_call, mode, image_px=image_px, batch=batch, device=device)
    name = "botnet26t_256"
    implementations = [
        Implementation(f"timm {name}", lambda: call(lambda: _timm_model(name)), output=name, third_party=True),
        Implementation(f"timm {name}, converted", lambda: call(lambda: convert(_timm_model(name))), output=name),
    ]
    return Case({"px": image_px, "batch": batch, "mode": mode}, implementations, _tolerance(device), full_precision)


def deployed_case(image_px: int, batch: int, device: torch.device, compiled: bool) -> Case:
    """Inference before and after `deploy.optimize`. On a GPU in bfloat16, see `execution_case`."""
    call = partial(_call, "inference", image_px=image_px, batch=batch, device=device)

    def implementation(title: str, name: str, make: Callable[[], Any]) -> Implementation:
        operations = gflop(name, image_px, batch, training=False)
        third_party = title.startswith("torchvision")
        return Implementation(title, lambda: call(make), output=name, third_party=third_party, gflop=operations)

    implementations = [
        implementation("torchvision resnet50, eager", "resnet50", lambda: torchvision_resnet50(image_px))
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
    return Case(
        {"px": image_px, "batch": batch, "mode": "deployed"},
        implementations,
        tolerance=0.4 if device.type == "cuda" else 0.005,
        least_s=COMPILATION_S["inference"] if compiled and device.type == "cuda" else 0,
    )


def bfloat16_case(image_px: int, batch: int, device: torch.device, compiled: bool) -> Case:
    """The same in bfloat16. A case of its own: rounding changes the logits of random weights by a sixth and more, so
    outputs in bfloat16 are compared with each other only. Tests compare them with float32.
    """

    def implementation(title: str, output: str, make: Callable[[], Any]) -> Implementation:
        return Implementation(title, lambda: _call("inference", make, image_px, batch, device), output=output)

    implementations = [
        implementation("torchvision resnet50, eager, float32", "resnet50", lambda: torchvision_resnet50(image_px)),
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


def _call(
    mode: Mode,
    build: Callable[[], Any],
    image_px: int,
    batch: int,
    device: torch.device,
    execution: Execution = "eager",
) -> Call:
    make = inference if mode == "inference" else training_step
    return make(build, image_px, batch, device, execution)


def torchvision_resnet50(image_px: int) -> nn.Module:
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
    """In float32. Algorithms differ more on a GPU; a wrong attention changes the logits by a twentieth and more."""
    return 0.02 if device.type == "cuda" else 0.005
