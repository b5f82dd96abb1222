"""Which backends there are, which of them can run an input and, if one cannot, the reason in words."""

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from botformer.attention.definition import attention_by_definition
from botformer.attention.sdpa import sdpa_attention
from botformer.attention.tiled import tiled_attention
from botformer.attention.triton_op import WIDEST_HEAD, triton_attention
from botformer.errors import unknown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """`run` takes the arguments of `relative_attention_2d`; `obstacle(q, v)` says why it cannot, or nothing.

    `portable` backends consist of PyTorch's own operators, so that an exported graph runs where botformer is not.
    """

    name: str
    run: Callable[..., Tensor]
    unsupported_reason: Callable[[Tensor, Tensor], str] = lambda q, v: ""
    portable: bool = False
    pools: bool = False
    """`run` takes `pool` too, for maps of even height and width."""


TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _triton_unsupported(q: Tensor, v: Tensor) -> str:
    if not TRITON_INSTALLED:
        return "Triton is not installed (it comes with PyTorch for CUDA)"
    if not q.is_cuda and not (TRITON_INTERPRETED and q.device.type == "cpu"):
        return f"the fused kernels run on CUDA devices, the input is on {q.device.type}"
    if torch.version.hip:
        return "the fused kernels are made for NVIDIA's devices and were never tried on others"
    if q.is_cuda and _compute_capability(q.device.index) < 8:
        return "the fused kernels need a device of compute capability 8.0 or later"
    if q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the fused kernels take float32, bfloat16 and float16, not {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > WIDEST_HEAD:
        return f"a head of {max(q.shape[-1], v.shape[-1])} is wider than the fused kernels' {WIDEST_HEAD}"
    return ""


@torch.compiler.assume_constant_result
def _compute_capability(index: int) -> int:
    return torch.cuda.get_device_capability(index)[0]


def _tiled_unsupported(q: Tensor, v: Tensor) -> str:
    if q.device.type != "cpu":
        return f"it is made for the CPU, the input is on {q.device.type}"
    if q.dtype not in (torch.float32, torch.float64):
        return f"it rounds every step to the input's dtype and takes float32 and float64, not {q.dtype}"
    return ""


def _sdpa_unsupported(q: Tensor, v: Tensor) -> str:
    if q.is_cuda and q.dtype == torch.float64:
        return "no fused CUDA kernel takes float64; use backend='definition' or float32"
    return ""


# In order of preference: `auto` takes the first that can run the input, with one exception for small maps below. On the
# CPU "tiled" was measured the fastest beyond 256 positions (results/attention_cpu.json). On CUDA nothing
# was measured yet: until the fused kernels have run on a GPU, PyTorch's stand before them.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tiled", tiled_attention, _tiled_unsupported, pools=True),
        Backend("sdpa", sdpa_attention, _sdpa_unsupported, portable=True),
        Backend("triton", triton_attention, _triton_unsupported),
        Backend("definition", attention_by_definition, portable=True),
    )
}
SMALL_MAP = 256
"""Positions up to which the plain form is the fastest on the CPU, its matrix being small enough for a cache."""
_announced: set[tuple[str, str]] = set()


def choose(name: str, q: Tensor, v: Tensor) -> Backend:
    """The backend called `name`, or for "auto" the first that can run this input (said once a device in the log).

    While a model is being exported "auto" keeps to the portable ones.

    Raises `InputError` for a name that does not exist and `RuntimeError` for a named backend that cannot run.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise unknown("attention backend", name, ["auto", *BACKENDS])
        if reason := BACKENDS[name].unsupported_reason(q, v):
            raise RuntimeError(f"attention backend {name!r} cannot run this input: {reason}")
        return BACKENDS[name]
    exporting = torch.compiler.is_exporting()
    able = (one for one in BACKENDS.values() if (one.portable or not exporting) and not one.unsupported_reason(q, v))
    backend = next(able)
    if backend.name == "tiled" and q.shape[2] * q.shape[3] <= SMALL_MAP:
        backend = BACKENDS["definition"]
    if not torch.compiler.is_compiling() and (key := (backend.name, q.device.type)) not in _announced:
        _announced.add(key)
        logger.info("attention on %s: backend %r", q.device.type, backend.name)
    return backend
