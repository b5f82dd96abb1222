"""One file that is a whole trained network: its tensors, and a card that says how to build it and what it knows."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from botformer.errors import InputError

_CARD = "botformer"

SHIPPED: dict[str, Path] = {
    name: Path(__file__).parent / "shipped" / f"{name}.safetensors"
    for name in ("nuclei",)
}  # fmt: skip
"""Trained networks that come with the package. Beside each file lies a NAME.md that says what it was trained on."""


def save(model: nn.Module, card: dict[str, Any], file: str | Path) -> None:
    """Write `model` and `card`, as `botformer.load` gave them, as one .safetensors file that `load` reads again."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, file, metadata={"format": "pt", _CARD: json.dumps(card)})


def read_card(file: Path) -> dict[str, Any]:
    """The card in a .safetensors file. Raises `InputError` where there is none."""
    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(_CARD)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is truncated or not a safetensors file ({error})") from error
    if text is None:
        raise InputError(
            f"{file} has weights but does not say of which network; expected a file of botformer.save, or a run's "
            "folder. To start a training from it, give it as --model.weights"
        )
    return json.loads(text)
