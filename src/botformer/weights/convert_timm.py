"""Convert timm's BoTNets to any input size: their attention replaced by botformer's, with the same weights."""

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
    """timm's `BottleneckAttn` with the same parameters under the same names, computed by botformer's attention.

    (B, C, H, W) -> (B, C_out, H, W), or half of each side, rounded up, with pooling. Any H and W; O(HW) memory.
    """

    def __init__(self, timm_layer: "BottleneckAttn", tables: TablePolicy, backend: str) -> None:
        super().__init__()
        self.heads, self.backend = timm_layer.num_heads, backend
        self.tables: TablePolicy = tables
        self.widths = [timm_layer.dim_out_qk, timm_layer.dim_out_qk, timm_layer.dim_out_v]
        # By default timm scales q.k and not q.r; botformer scales both, so the tables are multiplied to compensate.
        self.table_scale = 1.0 if timm_layer.scale_pos_embed else timm_layer.dim_head_qk**0.5
        self.qkv, self.pos_embed = timm_layer.qkv, timm_layer.pos_embed
        # The same pool at even sizes; at odd sizes it keeps the edge, as the stride-2 shortcut does.
        self.pool = isinstance(timm_layer.pool, nn.AvgPool2d)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        parts = self.qkv(x).permute(0, 2, 3, 1).split(self.widths, 3)
        q, k, v = (part.unflatten(3, (self.heads, -1)).permute(0, 3, 1, 2, 4) for part in parts)
        height = resize_table(self.pos_embed.height_rel * self.table_scale, H, self.tables).to(q.dtype)
        width = resize_table(self.pos_embed.width_rel * self.table_scale, W, self.tables).to(q.dtype)
        out = relative_attention_2d(q, k, v, height, width, pool=self.pool, backend=self.backend)
        return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)


def convert(model: Model, tables: TablePolicy = "interpolate", backend: str = "auto") -> Model:
    """Replace every `BottleneckAttn` of a timm model by botformer's attention, in place, and return the model.

    Weights and state dict stay the same, and so do the logits at the native size; afterwards the model takes any input
    size, without an N x N tensor. Works for `botnet26t_256`, `sebotnet33ts_256`, `botnet50ts_256`,
    `eca_botnext26ts_256` and other models with that layer; halo attention in hybrids is not changed.

    Args:
        tables: how position tables are resized, see `attention.position_tables`.
        backend: of the attention, see `relative_attention_2d`.

    Raises:
        InputError: there is no such layer in the model.
    """
    from timm.layers.bottleneck_attn import BottleneckAttn  # the caller has a timm model, so timm is imported already

    layers = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, BottleneckAttn)
    ]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no BottleneckAttn layer of timm's; convert takes models such as "
            "timm.create_model('botnet26t_256')"
        )
    for parent, name in layers:
        layer = getattr(parent, name)
        setattr(parent, name, ConvertedAttention(layer, tables, backend).train(layer.training))
    logger.info("converted %d attention layers of %s", len(layers), type(model).__name__)
    return model
