"""One file that is a whole trained network: its tensors, and a model config from which it is built again."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from botformer import stored_names
from botformer.atomic_write import atomic_file
from botformer.errors import InputError
from botformer.read_file import demand_file, parse_json
from botformer.tensor_file import write_tensors
from botformer.weights.read_state_dict import plain_names

_METADATA_KEY = "botformer"

SHIPPED = {"nuclei": Path(__file__).parent / "shipped" / "nuclei.safetensors"}
"""Trained networks that come with the package. Beside each file lies a NAME.md that says what it was trained on."""


def save(model: nn.Module, model_config: dict[str, Any], file: str | Path) -> None:
    """Write `model` and `model_config` as a .safetensors file that `botformer.load` reads again.

    Args:
        model: the network. One in the wrappers of `torch.compile` and data parallelism is saved as what they wrap.
        model_config: what `load` gave with it, or `botformer.model_config(model, names)` of one that you built.
        file: ends in .safetensors, in a folder that exists. It is replaced in one step.

    Raises:
        InputError: another ending, a folder that does not exist, or a model config that JSON cannot hold.
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise InputError(f"{file} will be a safetensors file; name it {file.with_suffix('.safetensors').name}")
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: {file.parent} is not a folder; make it first")
    try:
        text = json.dumps(model_config)
    except (TypeError, ValueError) as error:
        raise InputError(f"the model config for {file} must be a dict that JSON can hold ({error})") from error
    state = model.state_dict()
    tensors = {plain: state[name] for plain, name in plain_names(state).items()}
    with atomic_file(file) as unfinished:
        write_tensors(unfinished, tensors, {"format": "pt", _METADATA_KEY: text})


def holds_model_config(file: Path) -> bool:
    """Whether a .safetensors file is one of `save`. Raises `InputError` where it cannot be read."""
    return _model_config_text(file) is not None


def read_model_config(file: Path) -> dict[str, Any]:
    """The model config in a .safetensors file. Raises `InputError` where there is none, or a damaged one."""
    if file.suffix != ".safetensors":
        raise InputError(
            f"{file} is not a .safetensors file; expected one of botformer.save, or a run's folder. To start a "
            "training from weights alone, give them as --model.weights"
        )
    text = _model_config_text(file)
    if text is None:
        raise InputError(
            f"{file} has weights but does not say of which network; expected a file of botformer.save, or a run's "
            "folder. To start a training from it, give it as --model.weights"
        )
    try:
        model_config = parse_json(text)
    except ValueError as error:
        raise InputError(f"{file} has a damaged model config, no JSON ({error}); download or save it again") from error
    if not isinstance(model_config, dict):
        raise InputError(
            f"{file} has a {type(model_config).__name__} as its model config, not an object; was it written by "
            "botformer?"
        )
    return stored_names.model_config(model_config)


def _model_config_text(file: Path) -> str | None:
    try:
        demand_file(file)
        with safe_open(file, "pt") as opened:
            return (opened.metadata() or {}).get(_METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} is truncated or not a safetensors file ({error}); download or save it again"
        ) from error
