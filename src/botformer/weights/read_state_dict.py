"""Read tensors from a local file or from the hub, without ever running code that a file contains."""

import argparse
import logging
import pickle
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from botformer import stored_names
from botformer.errors import InputError
from botformer.read_file import demand_file
from botformer.weights.hub_file import local_file

logger = logging.getLogger(__name__)

INERT: list[Any] = [argparse.Namespace]
"""What PyTorch may load besides tensors and plain containers: the command-line options in the checkpoints of timm's and
torchvision's trainers. It is a bag of values; nothing of it runs."""
_DICTS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "shadow"),
    *("state_dict", "model_state_dict", "model", "network", "net", "module", "params"),
)
"""Under which trainers keep weights, the moving averages first."""
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Under which PyTorch's and Lightning's wrappers hold what they wrap: a network or a part of it, so anywhere in a
name."""
_PREFIXES = ("model", "network", "net", "ema_model", "model_ema", "ema")
"""Of all names: attributes under which wrappers and trainers hold a network."""
NOT_WEIGHTS = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "the pointer that git-lfs leaves in place of a file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89png": "a PNG image",
}


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Tensors of any shape by name, on the CPU.

    Args:
        source: a .safetensors file; a .pth, .pt or .bin file of tensors; or hf://owner/name on the model hub
            (`hf://owner/name@revision/file` for another revision, or a file other than model.safetensors). The dicts
            and prefixes that trainers put around weights are removed, however they are nested ("state_dict", "model",
            "module.", "_orig_mod.", "model.", ...); of weights and their moving average the average is read, as
            `botformer.load` does.

    Raises:
        InputError: the file is missing, truncated, holds no tensors, or holds Python objects that would have to be
            executed to load it.
    """
    path = local_file(source)
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected weights as .safetensors or .pth, or hf://owner/name")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _unwrap(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        demand_file(path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or not a safetensors file ({error}); download or save it again"
        ) from error


def _read_torch(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(64)
    for beginning, what in NOT_WEIGHTS.items():
        if start.lstrip().lower().startswith(beginning):
            raise InputError(f"{path} is {what}, not weights; download it again")
    if not start:
        raise InputError(f"{path} is empty; download or save it again")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # about unusual pickles: they load or they are refused
            torch.serialization.safe_globals(INERT),
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way, and PyTorch passes most of them on
        refused = re.search(r"(?:GLOBAL|Unsupported (?:global|class|operand)|type:?) .*", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise InputError(
                f"{path} holds Python objects besides tensors, and loading them would run code from the file, so it "
                f"was not loaded ({refused[0].splitlines()[0][:120]}). If you trust it, load it yourself with "
                "torch.load(weights_only=False) and save its state_dict with safetensors"
            ) from error
        raise InputError(f"{path} is truncated or not a PyTorch file; download or save it again") from error


def _unwrap(content: object, path: Path, outer: frozenset[int] = frozenset()) -> dict[str, Tensor]:
    """`outer`: ids of the dicts around `content`."""
    outer |= {id(content)}
    averaged, *others = [key for key in _DICTS if _holds_tensors(content, key, set(outer))] or [""]
    if averaged:
        assert isinstance(content, dict)
        if others:
            logger.info("%s holds weights under %s; those under %r are read", path, ", ".join(others), averaged)
        return _unwrap(content[averaged], path, outer)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected tensors by name (a state dict)")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors by name; expected the state dict of a model")
    return stored_names.tensors({plain: tensors[name] for plain, name in plain_names(tensors).items()})


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names of tensors without what wrappers and trainers put around a network -> the names as they are."""
    names = list(names)
    plain = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in names}
    if len(plain) < len(names):  # two networks, of which one is wrapped
        plain = {name: name for name in names}
    counter = plain.pop("n_averaged", None)  # beside the network in torch.optim.swa_utils.AveragedModel
    while True:
        prefix, dot, _ = next(iter(plain), "").partition(".")
        if prefix not in _PREFIXES or not dot or not all(name.startswith(prefix + dot) for name in plain):
            break
        plain = {name.removeprefix(prefix + dot): original for name, original in plain.items()}
    return plain if counter is None or plain else {"n_averaged": counter}


def _holds_tensors(content: object, key: str, seen: set[int]) -> bool:
    """At any depth. `seen`: ids of dicts in which there are none; a dict of a file may hold itself."""
    inner = content.get(key) if isinstance(content, dict) else None
    if not isinstance(inner, dict) or id(inner) in seen:
        return False
    seen.add(id(inner))
    return any(isinstance(value, Tensor) for value in inner.values()) or any(
        _holds_tensors(inner, k, seen) for k in _DICTS
    )
