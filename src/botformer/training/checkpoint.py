"""Checkpoints: one of them, and those of a run with the pointers OUT/last and OUT/best. Nothing in them is pickled.

OUT/checkpoints/step-00001234/      complete, or not there at all
    model.safetensors               the model's state dict, plain names
    ema.safetensors                 the same of the moving average, if the run has one
    optimizer.safetensors           "<parameter>.<name>" as in `optimizer.optimizer_tensors`
    state.json                      the fields of `State`, with checksums of the other files and of its own content

The same run writes the same bytes. A pointer is a text file with the name of a folder. It moves only after the folder
that it names is complete, and a folder is removed only after no pointer names it.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from botformer import stored_names
from botformer.atomic_write import atomic_file, atomic_folder, remove_leftovers, write_json, write_text
from botformer.errors import InputError
from botformer.read_file import demand_file, open_file, read_json, read_text
from botformer.recipes.check import is_finite
from botformer.tensor_file import write_tensors
from botformer.text import and_more, readable_bytes
from botformer.training.loaded_weights import RANDOM, LoadedWeights

STATE = "state.json"
LAST = "last"
BEST = "best"

TensorSets = dict[str, dict[str, Tensor]]
"""The tensors of a checkpoint: "model", "ema" if there is one, and "optimizer", each by name."""

_COMPILED = "_orig_mod."
"""What `torch.compile(module)` puts in front of the names inside the module."""


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
    loaded: LoadedWeights = RANDOM
    """What the run started from."""
    data: dict[str, Any] = field(default_factory=dict)
    """`TrainBatches.data`: which images it is trained on."""
    processes: int = 1
    sha256: dict[str, str] = field(default_factory=dict)
    """Of each tensor file, by its set; empty in checkpoints of older versions."""


_CHECKSUM = "state_sha256"
"""In state.json: the SHA-256 of everything else there."""
_MOST_STEPS = 10**12
_SETS = {"model", "ema", "optimizer"}


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and is_finite(value)


def _is_object_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _is_loaded(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(LoadedWeights)}:
        return False
    *texts, names = value["source"], value["sha256"], value["names"]
    return isinstance(names, list) and all(isinstance(text, str) for text in (*texts, *names))


_STEP = (_is_step, f"a whole number from 0 to {_MOST_STEPS:,}")
_OBJECT = (_is_object_of(lambda value: True), "an object")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "step": _STEP,
    "metrics": (_is_object_of(lambda value: value is None or _is_number(value)), "an object of numbers or null"),
    "metrics_step": _STEP,
    "best_step": _STEP,
    "best_value": (lambda value: value is None or _is_number(value), "a number or null"),
    "sets": (
        lambda value: isinstance(value, list) and len(value) <= len(_SETS) and all(s in _SETS for s in map(str, value)),
        f"a list of {', '.join(sorted(_SETS))}",
    ),
    "recipe": _OBJECT,
    "versions": (_is_object_of(lambda value: isinstance(value, str)), "an object of texts"),
    "model_config": _OBJECT,
    "loaded": (_is_loaded, "an object with source, sha256 and names"),
    "data": _OBJECT,
    "processes": _STEP,
    "sha256": (_is_object_of(lambda value: isinstance(value, str)), "an object of texts"),
}
"""What the fields of a state.json may hold. What is in the recipe and in the model config is checked by their types."""


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int | None:
    """The step a checkpoint's folder is named after; None for any other name."""
    match = re.fullmatch(r"step-(\d{8,})", folder.name)
    return int(match[1]) if match else None


def write_checkpoint(folder: Path, state: State, sets: TensorSets) -> None:
    """Write a new checkpoint. `folder` appears only when everything in it is on the disk.

    Raises `InputError` when the disk has no room for it; nothing of it is left then.
    """
    assert sorted(state.sets) == sorted(sets)
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(tensor.nbytes for tensors in sets.values() for tensor in tensors.values()) + _MORE_BYTES
    if shutil.disk_usage(folder.parent).free < needed:
        raise no_room(folder, needed)
    try:
        with atomic_folder(folder) as unfinished:
            sha256 = {}
            for name, tensors in sets.items():
                with atomic_file(unfinished / f"{name}.safetensors") as file:
                    write_tensors(file, tensors, {"format": "pt"})
                    sha256[name] = _sha256(file)
            write_state(unfinished, replace(state, sha256=sha256))
    except OSError as error:
        if error.errno in FULL:
            raise no_room(folder, needed) from error
        raise


FULL = (errno.ENOSPC, errno.EDQUOT)
_MORE_BYTES = 2**20
"""About what a checkpoint has besides its tensors."""


def no_room(file: Path, needed: int) -> InputError:
    """For a disk that cannot hold `file`, with which the `needed` bytes of a checkpoint would come."""
    free = shutil.disk_usage(next(folder for folder in file.parents if folder.exists())).free
    return InputError(
        f"{file} cannot be written: the disk (or the quota) is full. A checkpoint takes {readable_bytes(needed)}, "
        f"{readable_bytes(free)} are free. Make room for {readable_bytes(2 * needed)} there; the same command then "
        "continues after the last checkpoint, which is whole"
    )


def write_state(folder: Path, state: State) -> None:
    content = json.loads(json.dumps(asdict(state)))
    write_json(folder / STATE, content | {_CHECKSUM: _sha256_of_json(content)})


def _sha256_of_json(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_state(folder: Path) -> State:
    """Raises `InputError` when there is no checkpoint in `folder` or its state cannot be understood."""
    path = folder / STATE
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; {folder} is not a checkpoint of botformer, or an incomplete one"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    expected = {field.name for field in fields(State)}
    if isinstance(content, dict):
        checksum = content.pop(_CHECKSUM, None)
        if checksum is not None and checksum != _sha256_of_json(content):
            raise InputError(f"{path} is damaged, or was changed: its content has another checksum than it says")
        content = stored_names.checkpoint_state(content)
    if not isinstance(content, dict) or content.keys() != expected:
        raise InputError(f"{path} is not a checkpoint's state: expected an object of {', '.join(sorted(expected))}")
    for name, (fits, kind) in _FIELDS.items():
        if not fits(content[name]):
            raise InputError(f"{path}: {name} is {str(content[name])[:80]!r}, expected {kind}")
    names = tuple(content["loaded"]["names"])
    content["loaded"] = LoadedWeights(**content["loaded"] | {"names": names})
    state = State(**content)
    if state.step != step_of(folder):
        raise InputError(f"{path} is of step {state.step}, but its folder is called {folder.name}")
    return state


def read_tensors(folder: Path, state: State) -> TensorSets:
    """All tensors of a checkpoint, on the CPU. Raises `InputError` naming the file that is missing or damaged."""
    check_files(folder, state)
    return {name: _read_file(folder / f"{name}.safetensors") for name in state.sets}


def check_files(folder: Path, state: State) -> None:
    """Raises `InputError` naming the tensor file of a checkpoint that is missing or not as it was written."""
    for name in state.sets:
        check_file(folder, state, name)


def check_file(folder: Path, state: State, name: str) -> None:
    """As `check_files`, of one set of tensors."""
    path = folder / f"{name}.safetensors"
    try:
        if state.sha256:
            intact = _sha256(path) == state.sha256.get(name)
        else:  # of an older version: safetensors at least checks the length
            demand_file(path)
            with safe_open(path, framework="pt"):
                intact = True
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from error
    if not intact:
        raise InputError(f"{path} is damaged: it has another checksum (SHA-256) than {folder / STATE} says")


def is_intact(folder: Path) -> bool:
    """Whether the checkpoint is as it was written."""
    try:
        check_files(folder, read_state(folder))
    except InputError:
        return False
    return True


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        demand_file(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from error
    return stored_names.tensors(tensors)


def checkpoint_folder(out: Path, pointer: str = LAST) -> Path | None:
    """The checkpoint that `pointer` ("last" or "best") of a run names; None when the run has none yet.

    Without the pointer "last" it is the newest one: the run was killed after its first checkpoint was complete.
    Raises `InputError` when the pointer names nothing that is there.
    """
    path = out / pointer
    if not path.exists():
        folders = _step_folders(out) if pointer == LAST else []
        return folders[-1] if folders else None
    try:
        name = read_text(path, errors="replace").strip()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. {older_checkpoints(out)}") from error
    folder = out / "checkpoints" / name
    if step_of(folder) is None or folder.parent != out / "checkpoints" or not folder.is_dir():
        raise InputError(f"{path} names the checkpoint {name[:80]!r}, which is not there. {older_checkpoints(out)}")
    return folder


def older_checkpoints(out: Path, than: Path | None = None) -> str:
    """What to do about a damaged checkpoint, as a sentence."""
    intact = newest_intact(out, than)
    if intact is None:
        return f"No older checkpoint is there to resume from; start again with another --out, or delete {out}"
    return f"To continue from the intact one before it, {intact.name} (later ones are removed): --resume previous"


def newest_intact(out: Path, than: Path | None = None) -> Path | None:
    """The newest checkpoint that is as it was written, of those older `than` another."""
    limit = step_of(than) if than else None
    older = [folder for folder in _step_folders(out) if limit is None or (step_of(folder) or 0) < limit]
    return next((folder for folder in reversed(older) if is_intact(folder)), None)


class Checkpoints:
    """Writes the checkpoints of a run and removes the old ones. One process of a run has it."""

    def __init__(self, out: Path, keep: int, resumed: State | None):
        """Removes what a killed run left: unfinished folders and those that no pointer had reached."""
        self.out = out
        self.keep = keep
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        remove_leftovers(out / "checkpoints")
        for folder in _step_folders(out):
            if (step_of(folder) or 0) > (resumed.step if resumed else -1):
                shutil.rmtree(folder)
        if resumed:
            self._point(resumed)  # a kill may have come between the two pointers

    def has(self, step: int) -> bool:
        """Whether the checkpoint of a step is still there: somebody may have removed it."""
        return (self.out / "checkpoints" / folder_name(step)).is_dir()

    def save(self, state: State, sets: TensorSets) -> Path:
        folder = self.out / "checkpoints" / folder_name(state.step)
        if folder.exists():  # the same weights, of which more is known now
            write_state(folder, replace(state, sha256=read_state(folder).sha256))
        else:
            write_checkpoint(folder, state, sets)
        self._point(state)
        self._prune()
        return folder

    def _point(self, state: State) -> None:
        write_text(self.out / LAST, folder_name(state.step) + "\n")
        if state.best_step:
            write_text(self.out / BEST, folder_name(state.best_step) + "\n")
        else:
            (self.out / BEST).unlink(missing_ok=True)

    def _prune(self) -> None:
        pointed = {checkpoint_folder(self.out, LAST), checkpoint_folder(self.out, BEST)}
        for folder in _step_folders(self.out)[: -self.keep]:
            if folder not in pointed:
                shutil.rmtree(folder)


def _step_folders(out: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    folders = [f for f in (out / "checkpoints").glob("step-*") if step_of(f) is not None and f.is_dir()]
    return sorted(folders, key=lambda folder: step_of(folder) or 0)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` under its plain names. The tensors share memory with the model."""
    return {name.replace(_COMPILED, ""): tensor for name, tensor in model.state_dict().items()}


@torch.no_grad()
def load_model_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors` into `model`. Raises `InputError` unless names and shapes are the same."""
    own = model_tensors(model)
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise InputError(
            f"other weights than this model's: missing {and_more(missing, 3) or 'none'}, "
            f"unknown {and_more(unknown, 3) or 'none'}"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            found, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise InputError(f"{name!r} has shape {found}; this model has {expected}")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
