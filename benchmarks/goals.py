"""What the attention and the networks around it were to reach, and what the receipts say of it."""

from collections.abc import Callable
from typing import Any

Look = Callable[..., float]
"""look(receipt, implementation, column, **labels): one figure; KeyError where there is none."""
Figure = Callable[[Look], float]


def quotient(column: str, receipt: str, one: str, other: str, **labels: Any) -> Figure:
    """One implementation's figure divided by another's; "ratio" itself is to the first of the case, round by round."""
    return lambda look: look(receipt, one, column, **labels) / look(receipt, other, column, **labels)


def backward_quotient(receipt: str, one: str, other: str, **labels: Any) -> Figure:
    """Of the backward passes alone: both passes less the forward pass."""

    def figure(look: Look) -> float:
        a, b = (
            look(receipt, name, "ms", **labels, **{"pass": "both"})
            - look(receipt, name, "ms", **labels, **{"pass": "forward"})
            for name in (one, other)
        )
        return a / b

    return figure


def growth(receipt: str, implementation: str) -> Figure:
    """Of memory, from a map to one with four times the positions."""
    return lambda look: (
        look(receipt, implementation, "peak_mib", map="64x64", **BOTH)
        / look(receipt, implementation, "peak_mib", map="32x32", batch=1, **BOTH)
    )


FORWARD, BOTH = {"pass": "forward"}, {"pass": "both"}
MAP = {"map": "64x64", "batch": 1}
INFERENCE, TRAINING = {"px": 1024, "mode": "inference"}, {"px": 1024, "mode": "training step"}
R50, BOT50, BOT50_TIMM = "resnet50", "botnet50, ours", "botnet50, attention of timm"
B7, T7 = "efficientnet_b7, 600 px", "botnet_t7, 384 px"

# (what: the first named divided by the last, goal, ours, the same with timm's attention)
GOALS: tuple[tuple[str, str, Figure, Figure | None], ...] = (
    (
        "CPU, 1024 px, inference, BoT50 / R50",
        "≤ 1.20",
        quotient("ratio", "model_cpu", BOT50, R50, **INFERENCE),
        quotient("ratio", "model_cpu", BOT50_TIMM, R50, **INFERENCE),
    ),
    (
        "CPU, 1024 px, training step, BoT50 / R50",
        "≤ 1.25",
        quotient("ratio", "model_cpu", BOT50, R50, **TRAINING),
        quotient("ratio", "model_cpu", BOT50_TIMM, R50, **TRAINING),
    ),
    (
        "CPU, 1024 px, training memory at its peak, BoT50 / R50",
        "≤ 1.05",
        quotient("peak_mib", "model_cpu", BOT50, R50, **TRAINING),
        quotient("peak_mib", "model_cpu", BOT50_TIMM, R50, **TRAINING),
    ),
    (
        "CPU, 224 px, BoT50 deployed and compiled / torchvision's R50 in eager mode",
        "≤ 0.70",
        quotient(
            "ratio",
            "model_cpu",
            "botnet50, deployed and compiled",
            "torchvision resnet50, eager",
            px=224,
            mode="deployed",
        ),
        None,
    ),
    (
        "the same, BoT50 in bfloat16",
        "≤ 0.70",
        quotient(
            "ratio",
            "model_cpu",
            "botnet50, deployed and compiled",
            "torchvision resnet50, eager, float32",
            px=224,
            mode="deployed in bfloat16",
        ),
        None,
    ),
    (
        "CPU, attention, 64x64, forward / plain SDPA without position",
        "",
        quotient("ratio", "attention_cpu", "ours, tiled", "no position", **MAP, **FORWARD),
        quotient("ratio", "attention_cpu", "timm", "no position", **MAP, **FORWARD),
    ),
    (
        "CPU, attention, memory at its peak, 64x64 / 32x32",
        "4",
        growth("attention_cpu", "ours, tiled"),
        growth("attention_cpu", "timm"),
    ),
    (
        "CPU, training step, EfficientNet-B7 / T7",
        "",
        quotient("ratio", "headline_cpu", B7, T7),
        None,
    ),
    (
        "GPU, attention, 64x64, forward / plain SDPA without position",
        "≤ 1.10",
        quotient("ratio", "attention_gpu", "ours, triton", "no position", **MAP, **FORWARD),
        quotient("ratio", "attention_gpu", "timm", "no position", **MAP, **FORWARD),
    ),
    (
        "GPU, attention, 64x64, backward / plain SDPA without position",
        "≤ 1.15",
        backward_quotient("attention_gpu", "ours, triton", "no position", **MAP),
        backward_quotient("attention_gpu", "timm", "no position", **MAP),
    ),
    (
        "GPU, attention, 64x64, both passes, timm / ours",
        "≥ 4",
        quotient("ratio", "attention_gpu", "timm", "ours, triton", **MAP, **BOTH),
        None,
    ),
    (
        "GPU, attention, 64x64, memory at its peak, timm / ours",
        "≥ 10",
        quotient("peak_mib", "attention_gpu", "timm", "ours, triton", **MAP, **BOTH),
        None,
    ),
    (
        "GPU, attention, 64x64, both passes, FlexAttention / ours",
        "≥ 1.5",
        quotient("ratio", "attention_gpu", "FlexAttention", "ours, triton", **MAP, **BOTH),
        None,
    ),
    (
        "GPU, 1024 px, training step, BoT50 / R50 (the paper: 1.31)",
        "≤ 1.05",
        quotient("ratio", "model_gpu", BOT50, R50, **TRAINING),
        quotient("ratio", "model_gpu", BOT50_TIMM, R50, **TRAINING),
    ),
    (
        "GPU, training step, EfficientNet-B7 / T7 (the paper: 1.64)",
        "≥ 2",
        quotient("ratio", "headline_gpu", B7, T7),
        None,
    ),
)


def table(receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a goal; None where nothing was measured."""
    by_name = {receipt["name"]: receipt["figures"] for receipt in receipts}

    def look(receipt: str, implementation: str, column: str, **labels: Any) -> float:
        wanted = labels | {"implementation": implementation}
        return next((row for row in by_name[receipt] if wanted.items() <= row.items()), {})[column]

    def measured(figure: Figure | None) -> float | None:
        try:
            return figure and round(figure(look), 2)
        except KeyError:  # no such receipt, or an implementation left out of it
            return None

    return [
        {"what": what, "goal": goal, "ours": measured(ours), "timm's attention": measured(theirs)}
        for what, goal, ours, theirs in GOALS
    ]
