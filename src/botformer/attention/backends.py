"""The attention backends: which can run an input, the reason where one cannot, and which one runs."""

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from botformer.attention.cuda_choice import fastest_by_positions
from botformer.attention.definition import attention_by_definition
from botformer.attention.flash_attention_3 import WIDEST, WIDEST_VALUE, find_package, flash_attention_3
from botformer.attention.graph_capture import captured
from botformer.attention.higher_derivatives import transformed
from botformer.attention.sdpa import sdpa_attention
from botformer.attention.tiled import tiled_attention
from botformer.attention.triton_op import MAX_HEAD_WIDTH, triton_attention
from botformer.errors import InputError, unknown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """One implementation of `relative_attention_2d`.

    `run` takes its tensor arguments. `unsupported_reason(q, v)` is the reason why these inputs cannot run, or "".
    `portable` backends consist of PyTorch's own operators: an exported graph runs where botformer is not installed, and
    `torch.func` can transform them.
    """

    name: str
    run: Callable[..., Tensor]
    unsupported_reason: Callable[[Tensor, Tensor], str] = lambda q, v: ""
    portable: bool = False
    pools: bool = False
    """`run` also takes `pool`, for maps of even height and width."""


TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
FLASH_ATTENTION_3 = bool(find_package())
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _triton_unsupported(q: Tensor, v: Tensor) -> str:
    if not TRITON_INSTALLED:
        return "Triton is not installed (it comes with PyTorch for CUDA)"
    if not q.is_cuda and not (TRITON_INTERPRETED and q.device.type == "cpu"):
        return f"the fused kernels run on CUDA devices, the input is on {q.device.type}"
    if torch.version.hip:
        return "the fused kernels are written for NVIDIA GPUs and untested on others"
    if q.is_cuda and _compute_capability(q.device.index) < (8, 0):
        return "the fused kernels need a device of compute capability 8.0 or later"
    if q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the fused kernels take float32, bfloat16 and float16, not {q.dtype}"
    H, W = q.shape[2:4]
    if H * W * max(H, W, q.stride(3), v.stride(3)) >= 2**31:
        return f"a {H}x{W} map has more numbers, or position terms, than the fused kernels count in 32 bits"
    if max(q.shape[-1], v.shape[-1]) > MAX_HEAD_WIDTH:
        return f"a head of {max(q.shape[-1], v.shape[-1])} is wider than the {MAX_HEAD_WIDTH} of the fused kernels"
    return ""


@torch.compiler.assume_constant_result
def _compute_capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _tiled_unsupported(q: Tensor, v: Tensor) -> str:
    if q.device.type != "cpu":
        return f"it runs on the CPU, the input is on {q.device.type}"
    if q.dtype not in (torch.float32, torch.float64):
        return f"it rounds every step to the input's dtype; it supports float32 and float64, not {q.dtype}"
    return ""


def _sdpa_unsupported(q: Tensor, v: Tensor) -> str:
    if q.is_cuda and q.dtype == torch.float64:
        return "no fused CUDA kernel takes float64; use backend='definition' or float32"
    return ""


def _flash_attention_3_unsupported(q: Tensor, v: Tensor) -> str:
    width = q.shape[-1] + q.shape[2] + q.shape[3]
    if not FLASH_ATTENTION_3:
        return "FlashAttention-3 is not installed"
    if not q.is_cuda or _compute_capability(q.device.index)[0] != 9:
        return "FlashAttention-3 runs on CUDA devices of compute capability 9.x"
    if q.dtype not in (torch.bfloat16, torch.float16):
        return f"FlashAttention-3 takes bfloat16 and float16, not {q.dtype}"
    if width > WIDEST or v.shape[-1] > WIDEST_VALUE:
        return (
            f"FlashAttention-3 takes queries of up to {WIDEST} and values of up to {WIDEST_VALUE}; here D + H + W is "
            f"{width} and Dv {v.shape[-1]}"
        )
    return ""


# In order of preference: `auto` takes the first that can run the input, with one exception for small maps below. On the
# CPU "tiled" is the fastest beyond 256 positions (results/attention_cpu.json). On CUDA the fastest by measurement comes
# before all (`cuda_choice`); on cards that were not measured PyTorch's kernels come first.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tiled", tiled_attention, _tiled_unsupported, pools=True),
        Backend("sdpa", sdpa_attention, _sdpa_unsupported, portable=True),
        Backend("triton", triton_attention, _triton_unsupported, pools=True),
        Backend("flash_attention_3", flash_attention_3, _flash_attention_3_unsupported),
        Backend("definition", attention_by_definition, portable=True),
    )
}
SMALL_MAP = 256
"""Positions up to which the definition is the fastest on the CPU: its matrix fits in a cache."""
ENVIRONMENT_VARIABLE = "BOTFORMER_ATTENTION"
"""What `auto` means: "-triton,-tiled" forbids backends, a bare name is the one to run. An explicit name is not
affected."""
_announced: set[tuple[str, str, tuple[str, ...]]] = set()


@dataclass(frozen=True)
class _Auto:
    """What `auto` may choose: `only` one backend, or any ("") but the `forbidden` ones."""

    only: str = ""
    forbidden: tuple[str, ...] = ()


TRANSFORMED = "inside a torch.func transform (vmap, grad, jvp, ...) or in forward-mode differentiation"
CAPTURED = "while a model is traced or exported"


def operators_only(*inputs: Tensor) -> str:
    """When these inputs are attended to by PyTorch's own operators only, in words; "" where any backend will do."""
    if transformed(*inputs):
        return TRANSFORMED
    return CAPTURED if captured() else ""


def choose(name: str, q: Tensor, v: Tensor, only_operators: str = "") -> Backend:
    """The backend called `name`, or for "auto" the first that can run this input (logged once per device).

    Args:
        name: "auto", a backend, or "auto" without some: "auto,-triton", for short "-triton". The environment variable
            BOTFORMER_ATTENTION restricts "auto" in the same way, or says which backend it means; it is read here, so a
            compiled or exported model keeps what held when it was traced.
        only_operators: from the function of nearly that name: "auto" takes portable backends only.

    Raises:
        InputError: an unknown backend, in `name` or in the environment variable.
        RuntimeError: the named backend cannot run this input, or "auto" has none left; with the reasons.
    """
    if name in BACKENDS:
        return _named(name, q, v, only_operators)
    only, forbidden = _restrictions(name)
    if only and only not in forbidden:
        return _named(only, q, v, only_operators)
    reasons: list[str] = []
    for backend in dict.fromkeys((*_fastest_on_cuda(q), *BACKENDS.values())):
        if backend.name in forbidden or only:
            reasons.append(f"{backend.name} is forbidden")
        elif reason := backend.unsupported_reason(q, v):
            reasons.append(f"{backend.name}: {reason}")
        elif backend.portable or not only_operators:
            small = backend.name == "tiled" and q.shape[2] * q.shape[3] <= SMALL_MAP and "definition" not in forbidden
            return _announce(BACKENDS["definition"] if small else backend, q.device.type, forbidden)
        else:
            reasons.append(f"{backend.name} is not made of PyTorch's own operators and does not run {only_operators}")
    raise RuntimeError(
        f"no attention backend is left for this input: {'; '.join(reasons)} "
        f"(backend={name!r}, {ENVIRONMENT_VARIABLE}={_environment()!r})"
    )


def _fastest_on_cuda(q: Tensor) -> tuple[Backend, ...]:
    """What was measured to be the fastest for such a map; nothing elsewhere than on a card that was measured."""
    if not q.is_cuda:
        return ()
    backward = torch.is_grad_enabled() and q.requires_grad
    positions = q.shape[2] * q.shape[3]
    for limit, name in _measured(q.device.index, q.dtype, q.shape[-1], backward):
        if positions <= limit:
            return (BACKENDS[name],)
    return ()


@torch.compiler.assume_constant_result
def _measured(index: int, dtype: torch.dtype, head: int, backward: bool) -> tuple[tuple[float, str], ...]:
    return fastest_by_positions(_compute_capability(index), str(dtype).removeprefix("torch."), head, backward)


def check_name(name: str) -> None:
    """Raise `InputError` unless `choose` knows `name`."""
    if not isinstance(name, str):
        raise unknown("attention backend", name, BACKENDS)
    if name not in BACKENDS:
        _parse(name, "attention backend")


def forbids(name: str, backend: str) -> bool:
    """Whether the argument `name` (see `choose`) excludes `backend`."""
    auto = _parse(name, "attention backend") if name not in BACKENDS else _Auto(only=name)
    return backend in auto.forbidden or auto.only not in ("", backend)


def _named(name: str, q: Tensor, v: Tensor, only_operators: str) -> Backend:
    if only_operators == TRANSFORMED and not BACKENDS[name].portable:
        raise RuntimeError(
            f"attention backend {name!r} does not run {only_operators}; use backend='auto', 'sdpa' or 'definition'"
        )
    if reason := BACKENDS[name].unsupported_reason(q, v):
        raise RuntimeError(f"attention backend {name!r} cannot run this input: {reason}")
    return BACKENDS[name]


def _announce(backend: Backend, device: str, forbidden: tuple[str, ...]) -> Backend:
    if not torch.compiler.is_compiling() and (key := (backend.name, device, forbidden)) not in _announced:
        _announced.add(key)
        without = f" ({', '.join(forbidden)} forbidden)" if forbidden else ""
        logger.info("attention on %s: backend %r%s", device, backend.name, without)
    return backend


@torch.compiler.assume_constant_result  # read and parsed once per trace: a compiled graph has no strings in it
def _restrictions(name: str) -> tuple[str, tuple[str, ...]]:
    """(the only backend that is allowed or "", the forbidden ones), from the argument and the environment variable."""
    argument, environment = _parse(name, "attention backend"), _parse(_environment(), ENVIRONMENT_VARIABLE)
    return environment.only, tuple(one for one in BACKENDS if one in argument.forbidden + environment.forbidden)


def _environment() -> str:
    return os.environ.get(ENVIRONMENT_VARIABLE, "")


@lru_cache(maxsize=64)
def _parse(text: str, kind: str) -> _Auto:
    """ "auto", "auto,-triton", "-triton"; in the environment variable also nothing or the name of one backend."""
    parts = [part.strip() for part in text.split(",")]
    if kind == ENVIRONMENT_VARIABLE:
        if len(parts) == 1 and parts[0] in BACKENDS:
            return _Auto(only=parts[0])
        parts = [part for part in parts if part]
    wrong = [part for part in parts if part != "auto" and not (part.startswith("-") and part[1:] in BACKENDS)]
    if not wrong:
        return _Auto(forbidden=tuple(part[1:] for part in parts if part != "auto"))
    if kind != ENVIRONMENT_VARIABLE and len(parts) == 1 and not text.startswith("-"):
        raise unknown(kind, text, ["auto", *BACKENDS])
    raise InputError(
        f"{kind} is {text!r}, and {wrong[0]!r} is not understood; expected one of auto, {', '.join(BACKENDS)}, or "
        "names with a minus that auto leaves out, such as -triton,-tiled"
    )
