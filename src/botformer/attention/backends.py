"""Which backends there are, which of them can run an input and, if one cannot, the reason in words."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from botformer.attention.augmented import augmented_attention
from botformer.attention.definition import attention_by_definition
from botformer.errors import unknown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """`run` takes the arguments of `relative_attention_2d`; `obstacle(q, v)` says why it cannot, or nothing."""

    name: str
    run: Callable[..., Tensor]
    obstacle: Callable[[Tensor, Tensor], str] = lambda q, v: ""


def _augmented_obstacle(q: Tensor, v: Tensor) -> str:
    H, W, D = q.shape[-3:]
    if q.is_cuda and q.dtype == torch.float64:
        return "no fused CUDA kernel takes float64; use backend='definition' or float32"
    if q.is_cuda and max(D + H + W + 1, v.shape[-1]) > 65536:
        return f"a head of {D} + {H} + {W} numbers is wider than any fused CUDA kernel takes"
    return ""


# In order of preference: `auto` takes the first that can run the input.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("augmented", augmented_attention, _augmented_obstacle),
        Backend("definition", attention_by_definition),
    )
}
_announced: set[tuple[str, str]] = set()


def choose(name: str, q: Tensor, v: Tensor) -> Backend:
    """The backend called `name`, or for "auto" the first that can run this input (said once per device in the log).

    Raises `InputError` for a name that does not exist and `RuntimeError` for a named backend that cannot run.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise unknown("attention backend", name, ["auto", *BACKENDS])
        if reason := BACKENDS[name].obstacle(q, v):
            raise RuntimeError(f"attention backend {name!r} cannot run this input: {reason}")
        return BACKENDS[name]
    backend = next(candidate for candidate in BACKENDS.values() if not candidate.obstacle(q, v))
    if not torch.compiler.is_compiling() and (key := (backend.name, q.device.type)) not in _announced:
        _announced.add(key)
        logger.info("attention on %s: backend %r", q.device.type, backend.name)
    return backend
