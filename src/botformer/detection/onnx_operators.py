"""What ONNX has one operator for and PyTorch has not: non-maximum suppression of many groups, and the best of many.

torchvision's operator knows one group. Exported to ONNX it would see all groups side by side, moved apart, in float32:
with many classes that costs the precision that decides between boxes. `stable_topk` would become a dozen operators, and
ONNX's TopK is stable by its specification.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

from botformer.detection.fixed_canvas import NEVER
from botformer.detection.stable_order import stable_topk


@torch.library.custom_op("botformer::suppress", mutates_args=())
def suppress_in_onnx(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """A `fixed_canvas.Suppression`; an exported graph that holds it is for `torch.onnx.export` with
    `onnx_translations`."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for mask, box, score in zip(kept, boxes, scores, strict=True):
        (place,) = torch.where(score > NEVER)
        mask[place[nms(box[place], score[place], iou)]] = True
    return kept


@suppress_in_onnx.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op("botformer::stable_topk", mutates_args=())
def topk_in_onnx(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`stable_topk`, in the same way."""
    return stable_topk(scores, count)


@topk_in_onnx.register_fake
def _(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    best = scores.new_empty((*scores.shape[:-1], count))
    return best, torch.empty_like(best, dtype=torch.int64)


def onnx_translations() -> dict[Any, Any]:
    """For `torch.onnx.export(custom_translation_table=...)`."""
    from onnxscript import opset18

    op: Any = opset18  # its types know tensors of data, not those of a graph

    def suppress(boxes: Any, scores: Any, iou: float) -> Any:
        most = op.Shape(scores, start=1, end=2)
        selected = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), most, [iou], [NEVER])  # (n, 3)
        places = op.Gather(selected, [0, 2], axis=1)  # without the class, of which each group has one
        none = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        each = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
        return op.Cast(op.ScatterND(none, places, each), to=9)  # bool

    def stable_topk(scores: Any, count: int) -> Any:
        return op.TopK(scores, op.Constant(value_ints=[count]), axis=-1)

    return {
        torch.ops.botformer.suppress.default: suppress,
        torch.ops.botformer.stable_topk.default: stable_topk,
    }
