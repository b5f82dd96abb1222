"""Read tensors from a local file or from the hub, without ever running code that a file contains."""

import pickle
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from botformer import stored_names
from botformer.errors import InputError

HUB = "hf://"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
NOT_WEIGHTS = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "the pointer that git-lfs leaves in place of a file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89png": "a PNG image",
}


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        source: a .safetensors file; a .pth, .pt or .bin file of tensors; or hf://owner/name on the model hub
            (`hf://owner/name/file` for a file other than model.safetensors). Wrappers of training scripts
            ("state_dict", "model", "module.") are removed.

    Raises:
        InputError: the file is missing, truncated, holds no tensors, or holds Python objects that would have to be
            executed to load it.
    """
    path = _from_hub(str(source)) if str(source).startswith(HUB) else Path(source)
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected weights as .safetensors or .pth, or hf://owner/name")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _unwrap(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
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
        with warnings.catch_warnings(action="ignore"):  # about unusual pickles: they load or they are refused
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


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected tensors by name (a state dict)")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors by name; expected the state dict of a model")
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return stored_names.tensors(tensors)


def _from_hub(source: str) -> Path:
    """The file behind hf://owner/name[/file], from the local cache or downloaded."""
    from huggingface_hub import hf_hub_download  # slow to import, and most weights are local
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    parts = source.removeprefix(HUB).split("/")
    if len(parts) < 2 or not all(parts):
        raise InputError(f"{source!r} is not an address on the hub; expected hf://owner/name or hf://owner/name/file")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    reason = ""
    for name in [file] if file else HUB_FILES:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # a subclass of EntryNotFoundError that means: no connection
            reason = f"it is not in the local cache and the hub cannot be reached ({type(error).__name__})"
        except EntryNotFoundError:
            reason = f"it has no file {name}"
        except (RepositoryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            raise InputError(f"{source}: {str(error).splitlines()[0]}") from error
    raise InputError(f"{source}: {reason}; name a file with hf://{repository}/FILE, or pass a local path")
