"""timm's BoTNets freed of their input size: their attention swapped for ours, with their weights."""

import logging
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from botformer.attention import TablePolicy, relative_attention_2d, resize_table
from botformer.errors import InputError

if TYPE_CHECKING:
    from timm.layers.bottleneck_attn import BottleneckAttn

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


class ConvertedAttention(nn.Module):
    """timm's `BottleneckAttn` with the same parameters under the same names, computed by our operation.

    (B, C, H, W) -> (B, C_out, H, W), or half of each side, rounded up, where it pools. Any H and W; O(HW) memory.
    """

    def __init__(self, theirs: "BottleneckAttn", tables: TablePolicy, backend: str) -> None:
        super().__init__()
        self.heads, self.backend = theirs.num_heads, backend
        self.tables: TablePolicy = tables
        self.widths = [theirs.dim_out_qk, theirs.dim_out_qk, theirs.dim_out_v]
        # By default timm scales q.k and not q.r; our operation scales both, so the tables make up for it.
        self.table_scale = 1.0 if theirs.scale_pos_embed else theirs.dim_head_qk**0.5
        self.qkv, self.pos_embed = theirs.qkv, theirs.pos_embed
        # At even sizes the same pool; at odd ones it keeps the edge, as the stride-2 shortcut beside it does.
        self.pool = isinstance(theirs.pool, nn.AvgPool2d)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        parts = self.qkv(x).permute(0, 2, 3, 1).split(self.widths, 3)
        q, k, v = (part.unflatten(3, (self.heads, -1)).permute(0, 3, 1, 2, 4) for part in parts)
        height = resize_table(self.pos_embed.height_rel * self.table_scale, H, self.tables).to(q.dtype)
        width = resize_table(self.pos_embed.width_rel * self.table_scale, W, self.tables).to(q.dtype)
        out = relative_attention_2d(q, k, v, height, width, pool=self.pool, backend=self.backend)
        return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)


def convert(model: Model, tables: TablePolicy = "interpolate", backend: str = "auto") -> Model:
    """Swap every `BottleneckAttn` of a timm model in place for ours and return the model.

    The weights and the state dict stay what they are, and so do the logits at the native size; after that any input
    size runs, without an N x N tensor. Works for `botnet26t_256`, `sebotnet33ts_256`, `botnet50ts_256`,
    `eca_botnext26ts_256` and whatever else is built of that layer; halo attention in hybrids stays as it is.

    Args:
        tables: how position tables are taken to other sizes, see `attention.tables`.
        backend: of the attention, see `relative_attention_2d`.

    Raises:
        InputError: there is no such layer in the model.
    """
    from timm.layers.bottleneck_attn import BottleneckAttn  # a model of timm's is at hand, so timm is imported already

    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, BottleneckAttn)
    ]
    if not places:
        raise InputError(
            f"{type(model).__name__} holds no BottleneckAttn of timm's; adopt takes models such as "
            "timm.create_model('botnet26t_256')"
        )
    for parent, name in places:
        theirs = getattr(parent, name)
        setattr(parent, name, ConvertedAttention(theirs, tables, backend).train(theirs.training))
    logger.info("adopted %d attention layers of %s", len(places), type(model).__name__)
    return model
