"""Goals for speed and memory, and the figures of the receipts that answer them."""

from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A quotient of two figures of one receipt: `numerator` / `denominator`, both implementations of a case."""

    what: str
    goal: str
    receipt: str
    column: str
    """"ratio": time relative to the case's first implementation. "ms": time. "peak_mib": memory. "backward_ms": time of
    both passes less that of the forward pass."""
    labels: dict[str, Any]
    """The case."""
    numerator: str
    denominator: str
    """Empty: the numerator's implementation in another case, `other_labels`."""
    timm: str = ""
    """The numerator of the same quotient with timm's attention."""
    other_labels: dict[str, Any] | None = None
    """Labels of the denominator where they differ."""
    paper: str = ""
    """The paper's quotient, on a TPU-v3."""


TRAIN, INFER = {"px": 1024, "mode": "training step"}, {"px": 1024, "mode": "inference"}
DEPLOY, DEPLOY_BF16 = {"px": 224, "mode": "deployed"}, {"px": 224, "mode": "deployed in bfloat16"}
MAP_64, MAP_32 = {"map": "64x64", "batch": 1}, {"map": "32x32", "batch": 1}
FORWARD_64, BOTH_64, BOTH_32 = MAP_64 | {"pass": "forward"}, MAP_64 | {"pass": "both"}, MAP_32 | {"pass": "both"}
R50, BOT50, BOT50_TIMM = "resnet50", "botnet50, ours", "botnet50, attention of timm"
COMPILED, TORCHVISION = "botnet50, deployed and compiled", "torchvision resnet50, eager"
TILED, TRITON, PLAIN = "ours, tiled", "ours, triton", "no position"
FLASH = "no position, flash"
B7, T7 = "efficientnet_b7, 600 px", "botnet_t7, 384 px"
T7_TRAIN, T7_INFER = ({"group": "botnet_t7", "mode": mode} for mode in ("training step", "inference"))
GRAPH = {"px": 1024, "mode": "training step, CUDA graph"}
DETECTOR, DETECTOR_R50 = "Mask R-CNN, botnet50", "Mask R-CNN, resnet50"
DETECTOR_TORCHVISION = "torchvision's Mask R-CNN, resnet50"
CLASSIFIER_1, CLASSIFIER_8 = ({"network": "classifier", "px": 224, "batch": batch} for batch in (1, 8))
DETECTOR_800 = {"network": "Mask R-CNN", "px": 800, "batch": 1}
EAGER_CLASSIFIER, EAGER_DETECTOR = "torchvision resnet50, eager, float32", f"{DETECTOR_TORCHVISION}, eager, float32"
OPENVINO = "OpenVINO, int8"

# One row per goal: a table is easier to read in long lines.
# fmt: off
# ruff: noqa: E501
GOALS = (
    #    what                                                                                goal      receipt          column         labels        numerator               denominator                                  with timm's attention
    Goal("CPU, 1024 px, inference, BoT50 / R50",                                             "≤ 1.20", "model_cpu",     "ratio",       INFER,        BOT50,                  R50,                                         BOT50_TIMM),
    Goal("CPU, 1024 px, training step, BoT50 / R50",                                         "≤ 1.25", "model_cpu",     "ratio",       TRAIN,        BOT50,                  R50,                                         BOT50_TIMM),
    Goal("CPU, 1024 px, peak memory in training, BoT50 / R50",                               "≤ 1.05", "model_cpu",     "peak_mib",    TRAIN,        BOT50,                  R50,                                         BOT50_TIMM),
    Goal("CPU, 224 px, BoT50 deployed and compiled / torchvision's R50 in eager mode",       "≤ 0.70", "model_cpu",     "ratio",       DEPLOY,       COMPILED,               TORCHVISION),
    Goal("the same, BoT50 in bfloat16",                                                      "≤ 0.70", "model_cpu",     "ratio",       DEPLOY_BF16,  COMPILED,               f"{TORCHVISION}, float32"),
    Goal("CPU, 224 px, torchvision's R50 in eager mode / BoT50 in OpenVINO, int8",           "≥ 2.50", "deploy_cpu",    "ratio",       CLASSIFIER_1, EAGER_CLASSIFIER,       f"botnet50, {OPENVINO}"),
    Goal("the same, 8 images",                                                               "≥ 2.50", "deploy_cpu",    "ratio",       CLASSIFIER_8, EAGER_CLASSIFIER,       f"botnet50, {OPENVINO}"),
    Goal("CPU, 800 px, torchvision's Mask R-CNN R50 / ours with BoT50 in OpenVINO, int8",    "≥ 1.50", "deploy_cpu",    "ratio",       DETECTOR_800, EAGER_DETECTOR,         f"Mask R-CNN, botnet50, {OPENVINO}"),
    Goal("the same, ours in float32",                                                        "≥ 1.50", "deploy_cpu",    "ratio",       DETECTOR_800, EAGER_DETECTOR,         "Mask R-CNN, botnet50, OpenVINO, float32"),
    Goal("the same, ours in PyTorch, optimised, bfloat16",                                   "≥ 1.50", "deploy_cpu",    "ratio",       DETECTOR_800, EAGER_DETECTOR,         "Mask R-CNN, botnet50, optimized, bfloat16"),
    Goal("CPU, attention, 64x64, forward / plain SDPA without position",                     "",       "attention_cpu", "ratio",       FORWARD_64,   TILED,                  PLAIN,                                       "timm"),
    Goal("CPU, attention, peak memory, 64x64 / 32x32",                                       "4",      "attention_cpu", "peak_mib",    BOTH_64,      TILED,                  "",                                          "timm",     BOTH_32),
    Goal("CPU, training step, EfficientNet-B7 / T7",                                         "",       "headline_cpu",  "ratio",       {},           B7,                     T7),
    Goal("GPU, attention, one image, 64x64, forward / plain SDPA without position",          "≤ 1.10", "attention_gpu", "ms",          FORWARD_64,   TRITON,                 PLAIN,                                       "timm"),
    Goal("GPU, attention, one image, 64x64, backward / plain SDPA without position",         "≤ 1.15", "attention_gpu", "backward_ms", MAP_64,       TRITON,                 PLAIN,                                       "timm"),
    Goal("GPU, attention, one image, 64x64, forward / PyTorch's flash kernel, no position",  "",       "attention_gpu", "ms",          FORWARD_64,   TRITON,                 FLASH,                                       "timm"),
    Goal("GPU, attention, one image, 64x64, backward / PyTorch's flash kernel, no position", "",       "attention_gpu", "backward_ms", MAP_64,       TRITON,                 FLASH,                                       "timm"),
    Goal("GPU, attention, one image, 64x64, both passes, timm / ours",                       "≥ 4",    "attention_gpu", "ms",          BOTH_64,      "timm",                 TRITON),
    Goal("GPU, attention, one image, 64x64, peak memory, timm / ours",                       "≥ 10",   "attention_gpu", "peak_mib",    BOTH_64,      "timm",                 TRITON),
    Goal("GPU, attention, one image, 64x64, both passes, FlexAttention / ours",              "≥ 1.5",  "attention_gpu", "ms",          BOTH_64,      "FlexAttention",        TRITON),
    Goal("GPU, attention, peak memory, 64x64 / 32x32",                                       "4",      "attention_gpu", "peak_mib",    BOTH_64,      TRITON,                 "",                                          "timm",     BOTH_32),
    Goal("GPU, attention, time of both passes, 64x64 / 32x32",                               "",       "attention_gpu", "ms",          BOTH_64,      TRITON,                 "",                                          "timm",     BOTH_32),
    Goal("GPU, 1024 px, training step, BoT50 / R50",                                         "≤ 1.05", "model_gpu",     "ratio",       TRAIN,        BOT50,                  R50,                                         BOT50_TIMM, paper="1.31"),
    Goal("the same as CUDA graphs",                                                          "",       "model_gpu",     "ratio",       GRAPH,        f"{BOT50}, CUDA graph", f"{R50}, CUDA graph"),
    Goal("GPU, 1024 px, inference, BoT50 / R50",                                             "",       "model_gpu",     "ratio",       INFER,        BOT50,                  R50,                                         BOT50_TIMM),
    Goal("GPU, 1024 px, peak memory in training, BoT50 / R50",                               "",       "model_gpu",     "peak_mib",    TRAIN,        BOT50,                  R50,                                         BOT50_TIMM),
    Goal("GPU, training step, EfficientNet-B7 / T7",                                         "≥ 2",    "headline_gpu",  "ratio",       T7_TRAIN,     B7,                     T7, paper="up to 1.64"),
    Goal("GPU, inference, EfficientNet-B7 / T7",                                             "",       "headline_gpu",  "ratio",       T7_INFER,     B7,                     T7),
    Goal("GPU, 1024 px, training step of Mask R-CNN, BoT50 / R50",                           "",       "detection_gpu", "ratio",       TRAIN,        DETECTOR,               DETECTOR_R50),
    Goal("GPU, 1024 px, training step of Mask R-CNN, R50, torchvision's / ours",             "",       "detection_gpu", "ratio",       TRAIN,        DETECTOR_TORCHVISION,   DETECTOR_R50),
    Goal("GPU, 1024 px, inference of Mask R-CNN, R50, torchvision's / ours",                 "",       "detection_gpu", "ratio",       INFER,        DETECTOR_TORCHVISION,   DETECTOR_R50),
)
# fmt: on


def table(receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per goal; None where nothing was measured."""
    figures = {receipt["name"]: receipt["figures"] for receipt in receipts}
    return [
        {
            "what": goal.what,
            "goal": goal.goal,
            "ours": _quotient(goal, goal.numerator, figures),
            "timm's attention": _quotient(goal, goal.timm, figures),
            "the paper, TPU-v3": goal.paper,
        }
        for goal in GOALS
    ]


def _quotient(goal: Goal, numerator: str, figures: dict[str, list[dict[str, Any]]]) -> float | None:
    rows = figures.get(goal.receipt, [])
    above = _figure(rows, numerator, goal.column, goal.labels)
    below = _figure(rows, goal.denominator or numerator, goal.column, goal.other_labels or goal.labels)
    return None if above is None or below is None else round(above / below, 2)


def _figure(rows: list[dict[str, Any]], implementation: str, column: str, labels: dict[str, Any]) -> float | None:
    """None where there is no such row, or the implementation was left out."""
    if column == "backward_ms":
        both = _figure(rows, implementation, "ms", labels | {"pass": "both"})
        forward = _figure(rows, implementation, "ms", labels | {"pass": "forward"})
        return None if both is None or forward is None else both - forward
    wanted = labels | {"implementation": implementation}
    return next((row.get(column) for row in rows if wanted.items() <= row.items()), None)
