"""The operation of the paper's Fig. 4: multi-head self-attention with relative positions in two dimensions."""

import torch
from torch import Tensor

from botformer.attention.autocast import without_autocast
from botformer.attention.backends import choose, operators_only
from botformer.attention.definition import average_cells
from botformer.attention.graph_capture import jit_traced
from botformer.errors import InputError


def relative_attention_2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    *,
    padding_mask: Tensor | None = None,
    pool: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Attend from every position of a map to every other (paper Fig. 4; docs/attention.md has its equation).

    ::

        logit[(y,x),(y',x')] = D**-0.5 q[y,x] . (k[y',x'] + rel_height[y'-y+H-1] + rel_width[x'-x+W-1])
        out[y,x] = softmax over all H*W keys (logit) @ v

    Args:
        q: (B, N, H, W, D) queries of N heads, unscaled; they are scaled by D**-0.5 once, before both terms.
        k: (B, N, H, W, D) keys.
        v: (B, N, H, W, Dv) values; Dv may differ from D.
        rel_height: (2H-1, D), the entry of offset y'-y in row y'-y+H-1; shared by all heads.
        rel_width: (2W-1, D), likewise over columns.
        padding_mask: (B, H, W) bool, True where a key is padding: it gets no attention. An image with every key
            padded gives zeros.
        pool: average the result over cells of 2x2, at an odd edge over the positions inside: the paper's
            pooling after the attention of a block of stride 2, cheaper here than as a step of its own.
        backend: "auto" chooses and logs its choice once. A named one ("triton", "flash_attention_3", "tiled", "sdpa",
            "definition") runs or raises. "auto,-triton", for short "-triton", is "auto" without that backend (more of
            them: commas). The environment variable BOTFORMER_ATTENTION restricts "auto" in the same way ("-triton"), or
            names the backend that "auto" means ("tiled"); it is read at every choice, and never overrides a named
            backend.

    Returns:
        (B, N, H, W, Dv), or (B, N, ceil(H/2), ceil(W/2), Dv) pooled, in the dtype of the inputs. Inside autocast
        nothing is cast either.

    Raises:
        InputError: shapes, dtypes or devices that do not fit together; an unknown backend.
        RuntimeError: the named backend cannot run this input, or "auto" has none left; with the reasons.
    """
    if not jit_traced():  # where sizes are tensors, and a branch on one would be fixed in the graph
        _check(q, k, v, rel_height, rel_width, padding_mask)
    chosen = choose(backend, q, v, operators_only(q, k, v, rel_height, rel_width))
    H, W = q.shape[2:4]
    fused = pool and chosen.pools and H % 2 == 0 and W % 2 == 0
    with without_autocast(q.device):
        out = chosen.run(q, k, v, rel_height, rel_width, padding_mask, **({"pool": True} if fused else {}))
    return average_cells(out) if pool and not fused else out


def _check(q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None) -> None:
    if q.ndim != 5:
        raise InputError(f"q must be (batch, heads, height, width, dim), got shape {tuple(q.shape)}")
    B, N, H, W, D = q.shape
    expected = {
        "k": (k, (B, N, H, W, D)),
        "v": (v, (B, N, H, W, v.shape[-1])),
        "rel_height": (rel_height, (2 * H - 1, D)),
        "rel_width": (rel_width, (2 * W - 1, D)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}, expected {shape} for q of shape {(B, N, H, W, D)}; "
                "resize a position table with botformer.attention.resize_table"
            )
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise InputError(
                f"{name} is {tensor.dtype} on {tensor.device}, q is {q.dtype} on {q.device}; cast or move one of them"
            )
    check_padding_mask(padding_mask, (B, H, W))


def check_padding_mask(padding_mask: Tensor | None, shape: tuple[int, int, int]) -> None:
    """Raises `InputError` unless it is None or bool of `shape`, (B, H, W): others would be added, or broadcast."""
    if padding_mask is not None and (tuple(padding_mask.shape) != shape or padding_mask.dtype != torch.bool):
        raise InputError(
            f"padding_mask must be bool of shape {tuple(shape)} with True for padding, "
            f"got {padding_mask.dtype} of shape {tuple(padding_mask.shape)}"
        )
