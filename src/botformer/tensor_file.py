"""Writing safetensors files: the same tensors give the same bytes, and a full disk is an `OSError` like any other."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

_LENGTH_BYTES = 8
"""At the start of a file: the length of its JSON header, little-endian."""


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors`, on any device and in any layout, tied or not, with `metadata` in the header.

    Raises `OSError`: the disk is full, or cannot be written to.
    """
    # Copies: tied tensors share memory, which the format cannot hold.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(plain, file, metadata=dict(metadata))
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from error
    _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """The library writes metadata in a random order."""
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # the same characters in another order; else it stays as it is
            opened.seek(_LENGTH_BYTES)
            opened.write(text.ljust(length))
