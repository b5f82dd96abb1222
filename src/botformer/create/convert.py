"""Convert other people's networks: their attention exchanged for botformer's, in place."""

from typing import Literal, TypeVar, cast, get_args

from torch import nn

from botformer.attention import TablePolicy
from botformer.attention.backends import check_name
from botformer.backbone.convert_listing import blog_to_relative, convert_listing
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError, unknown
from botformer.weights.convert_timm import ConvertedAttention, convert_timm

Model = TypeVar("Model", bound=nn.Module)


def convert(
    model: Model,
    tables: TablePolicy = "interpolate",
    backend: str = "auto",
    *,
    position: Literal["blog", "relative"] = "blog",
) -> Model:
    """Exchange the attention layers of a model for botformer's, in place, and return the model (or the new layer).

    Two kinds are found. timm's `BottleneckAttn` keeps weights, state dict and the logits at the native size; afterwards
    the model takes any input size, without an N x N tensor. That works for `botnet26t_256`, `sebotnet33ts_256`,
    `botnet50ts_256`, `eca_botnext26ts_256` and other models with that layer; halo attention in hybrids is not changed.
    The widely copied listing that adds `rel_h + rel_w` is found by the shapes and names of its parameters and becomes
    `MHSA2d(position="blog")`, with the same outputs; a warning says what is wrong with it. Converting again changes
    nothing.

    Args:
        model: any module with such layers, or such a layer itself.
        tables: how timm's position tables are resized, see `attention.position_tables`.
        backend: of timm's attention, see `relative_attention_2d`.
        position: "relative" makes the paper's layer of the listing, to be fine-tuned: with the listing's projections
            and with tables that start at zero.

    Raises:
        InputError: there is no such layer in the model.
    """
    if position not in ("blog", "relative"):
        raise unknown("position kind", position, ["blog", "relative"])
    if tables not in get_args(TablePolicy):
        raise unknown("table policy", tables, get_args(TablePolicy))
    check_name(backend)
    holder = nn.ModuleList([model])  # so that the model may be such a layer itself
    found = convert_timm(holder, tables, backend) + convert_listing(holder)
    if position == "relative":
        found += blog_to_relative(holder)
    if not found and not any(isinstance(module, ConvertedAttention | MHSA2d) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} has no BottleneckAttn layer of timm's and no layer of the copied listing "
            "(query, key, value, rel_h, rel_w); convert takes models such as timm.create_model('botnet26t_256')"
        )
    return cast(Model, holder[0])
