"""Find the widely copied attention listing in any model, and exchange it for `MHSA2d(position="blog")`.

The listing adds `rel_h + rel_w`, an absolute embedding r of the query's position, and its term is r_i . q_j where the
paper's is q_i . r_(j - i); nothing is scaled by D**-0.5. Its parameters, by whatever names: three 1x1 convolutions
C -> C for query, key and value, and two tables (1, heads, D, rows, 1) and (1, heads, D, 1, columns).
"""

import copy
import logging
from itertools import permutations

import torch
from torch import Tensor, nn

from botformer.backbone.mhsa import MHSA2d

logger = logging.getLogger(__name__)


def convert_listing(model: nn.Module) -> int:
    """Exchange every layer of the listing by one with the same outputs, in place, and return how many there were.

    A layer that looks like the listing and computes something else is left as it is, with a warning.
    """
    converted = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            layer = _as_mhsa(child)
            if layer is None:
                continue
            if not _same_outputs(child, layer):
                logger.warning(
                    "%s %r has the parameters of the copied attention listing (rel_h + rel_w) and computes something "
                    "else; it is left as it is",
                    type(child).__name__,
                    name,
                )
                continue
            setattr(parent, name, layer.train(child.training))
            converted += 1
    if converted:
        logger.warning(
            "%d layers are the copied attention listing, which is not the paper's: its positions are absolute, its "
            "position term is r_i . q_j instead of q_i . r_(j-i), and its logits are not scaled by D**-0.5. They are "
            "now MHSA2d(position='blog'), with the same outputs at any map size; convert(model, position='relative') "
            "makes the paper's layer of them, to be fine-tuned (docs/attention.md)",
            converted,
        )
    return converted


@torch.no_grad()
def blog_to_relative(model: nn.Module) -> int:
    """Exchange every `MHSA2d(position="blog")` by the paper's layer, in place, and return how many there were.

    Projections and their biases stay; queries are multiplied by D**0.5, as the paper's layer scales them. The relative
    tables start at zero, so the layer starts as the listing without its position term: it is made to be fine-tuned.
    """
    converted = 0
    for parent in list(model.modules()):
        for name, old in list(parent.named_children()):
            if not isinstance(old, MHSA2d) or old.position != "blog":
                continue
            C, (H, W) = old.qkv.in_channels, old.size
            new = MHSA2d(C, old.heads, (H, W), tables=old.tables, backend=old.backend, pool=old.pool)
            new.to(old.qkv.weight.device, old.qkv.weight.dtype)
            new.qkv = copy.deepcopy(old.qkv)
            for parameter in new.qkv.parameters(recurse=False):
                parameter[:C] *= (C // old.heads) ** 0.5
            for table in new.position_tables().values():
                table.zero_()
            setattr(parent, name, new.train(old.training))
            converted += 1
    return converted


def _as_mhsa(layer: nn.Module) -> MHSA2d | None:
    """The layer as `MHSA2d`, if its parameters are those of the listing."""
    projections, tables = _projections(layer), dict(layer.named_parameters(recurse=False))
    if projections is None or len(tables) != 2:
        return None
    C = projections[0].in_channels
    if any(table.ndim < 3 or table.shape[:-2].numel() != C for table in tables.values()):
        return None
    # By shape: the listing calls rows "width", others do not.
    pairs = (
        (height, width)
        for height, width in permutations(tables)
        if tables[height].shape[-1] == 1 and tables[width].shape[-2] == 1
    )
    height, width = next(pairs, ("", ""))
    if not height:
        return None
    height_table, width_table = (
        tables[name].flatten(0, -3) for name in (height, width)
    )  # (C, rows, 1), (C, 1, columns)
    heads = _heads(layer, tables[height], C)
    new = MHSA2d(C, heads, (height_table.shape[1], width_table.shape[2]), "blog")
    new.to(height_table.device, height_table.dtype)
    if projections[0].bias is None:
        new.qkv.bias = None
    with torch.no_grad():
        for target in ("weight", "bias"):
            if getattr(new.qkv, target) is not None:
                getattr(new.qkv, target).copy_(torch.cat([getattr(part, target) for part in projections]))
        new.abs_height.copy_(height_table[:, :, 0].T)
        new.abs_width.copy_(width_table[:, 0].T)
    for parameter in new.parameters():
        parameter.requires_grad_(projections[0].weight.requires_grad)
    return new


def _projections(layer: nn.Module) -> list[nn.Conv2d] | None:
    """Query, key and value: 1x1 convolutions C -> C with names such as query, conv_q, f_key, to_v, wq."""
    found: dict[str, nn.Conv2d] = {}
    for name, child in layer.named_children():
        if (
            not isinstance(child, nn.Conv2d)
            or child.kernel_size != (1, 1)
            or child.groups != 1
            or child.stride != (1, 1)
        ):
            continue
        first, last = name.lower(), name.lower().rpartition("_")[2]
        letter = next((x for x in "qkv" if first.startswith(x) or last.startswith(x) or first.endswith("w" + x)), "")
        if letter and letter not in found and child.in_channels == child.out_channels:
            found[letter] = child
    if set(found) != set("qkv") or len({part.in_channels for part in found.values()}) != 1:
        return None
    parts = [found[letter] for letter in "qkv"]
    return parts if len({part.bias is None for part in parts}) == 1 else None


def _heads(layer: nn.Module, table: Tensor, C: int) -> int:
    """From the attribute that says so, else from a table (1, heads, D, rows, 1)."""
    for name in ("heads", "num_heads", "n_heads"):
        heads = getattr(layer, name, None)
        if isinstance(heads, int) and heads > 0 and C % heads == 0:
            return heads
    return table.shape[-4] if table.ndim >= 4 else 1


@torch.no_grad()
def _same_outputs(old: nn.Module, new: MHSA2d) -> bool:
    """Whether both give the same for a random map, in float64."""
    before, after = (copy.deepcopy(layer).to("cpu", torch.float64).eval() for layer in (old, new))
    numbers = torch.Generator().manual_seed(0)
    H, W = new.size
    x = torch.randn(2, new.qkv.in_channels, H, W, dtype=torch.float64, generator=numbers)
    try:
        expected = before(x)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # it takes something else than a map
        return False
    return isinstance(expected, Tensor) and expected.shape == x.shape and torch.allclose(after(x), expected, rtol=1e-6)
