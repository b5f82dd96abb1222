"""One checkpoint: a folder of safetensors and JSON, complete or not there at all. Nothing in it is pickled.

step-00001234/
    model.safetensors       the model's state dict, plain names
    ema.safetensors         the same of the moving average, if the run has one
    optimizer.safetensors   "<parameter>.<name>" as in `optimizer.optimizer_tensors`
    state.json              the fields of `State`
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from botformer import stored_names
from botformer.atomic_write import sync, write_json
from botformer.errors import InputError
from botformer.training.model_tensors import TensorSets

STATE = "state.json"


@dataclass
class State:
    step: int
    """Optimiser steps done."""
    metrics: dict[str, float | None]
    """The latest evaluation; null stands for a number that is not finite."""
    metrics_step: int
    """The step of that evaluation."""
    best_step: int
    """The step with the best headline metric so far; 0: none yet."""
    best_value: float | None
    sets: list[str]
    """The tensor files, without ".safetensors"."""
    recipe: dict[str, Any]
    versions: dict[str, str]
    model_config: dict[str, Any]
    """`Task.model_config()`: how to build the model."""


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int | None:
    """The step a checkpoint's folder is named after; None for any other name."""
    match = re.fullmatch(r"step-(\d{8,})", folder.name)
    return int(match[1]) if match else None


def write_checkpoint(folder: Path, state: State, sets: TensorSets) -> None:
    """Write a new checkpoint. `folder` appears only when everything in it is on the disk."""
    assert sorted(state.sets) == sorted(sets)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in sets.items():
        file = partial / f"{name}.safetensors"
        save_file(_plain(tensors), file, metadata={"format": "pt", "step": str(state.step)})
        sync(file)
    write_state(partial, state)
    partial.rename(folder)
    sync(folder.parent)


def write_state(folder: Path, state: State) -> None:
    write_json(folder / STATE, asdict(state))


def read_state(folder: Path) -> State:
    """Raises `InputError` when there is no checkpoint in `folder` or its state cannot be understood."""
    path = folder / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; {folder} is not a checkpoint of botformer, or an incomplete one"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    expected = {field.name for field in fields(State)}
    if isinstance(content, dict):
        content = stored_names.checkpoint_state(content)
    if not isinstance(content, dict) or content.keys() != expected:
        raise InputError(f"{path} is not a checkpoint's state: expected an object of {', '.join(sorted(expected))}")
    state = State(**content)
    if state.step != step_of(folder):
        raise InputError(f"{path} says step {state.step}, but its folder is called {folder.name}")
    return state


def read_tensors(folder: Path, state: State) -> TensorSets:
    """All tensors of a checkpoint, on the CPU. Raises `InputError` naming the file that is missing or broken."""
    return {name: _read_file(folder / f"{name}.safetensors", state.step) for name in state.sets}


def is_intact(folder: Path) -> bool:
    """Whether the checkpoint can be read (safetensors checks a file's length as it opens it)."""
    try:
        for name in read_state(folder).sets:
            with safe_open(folder / f"{name}.safetensors", framework="pt"):
                pass
    except (InputError, OSError, SafetensorError):
        return False
    return True


def _read_file(path: Path, step: int) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            written_at = (file.metadata() or {}).get("step")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from error
    if written_at != str(step):
        raise InputError(f"{path} was not written with this checkpoint: it is of step {written_at}, expected {step}")
    return stored_names.tensors(tensors)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, in row-major order: what safetensors can store."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
