"""The checkpoints of a run: OUT/checkpoints, and the pointers OUT/last and OUT/best.

A pointer is a text file with the name of a folder. It moves only after the folder it names is complete, and a folder
goes only after no pointer names it.
"""

import shutil
from pathlib import Path

from botformer.atomic_write import write_text
from botformer.errors import InputError
from botformer.training.checkpoint import (
    State,
    folder_name,
    is_intact,
    read_state,
    step_of,
    write_checkpoint,
    write_state,
)
from botformer.training.model_tensors import TensorSets

LAST = "last"
BEST = "best"


def checkpoint_folder(out: Path, pointer: str = LAST) -> Path | None:
    """The checkpoint that `pointer` ("last" or "best") of a run names; None when the run has none yet.

    Without the pointer "last" it is the newest one: the run was killed after its first checkpoint was complete.
    Raises `InputError` when the pointer names nothing that is there.
    """
    path = out / pointer
    if not path.exists():
        folders = _step_folders(out) if pointer == LAST else []
        return folders[-1] if folders else None
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    folder = out / "checkpoints" / name
    if step_of(folder) is None or folder.parent != out / "checkpoints" or not folder.is_dir():
        raise InputError(f"{path} names the checkpoint {name[:80]!r}, which is not there. {older_checkpoints(out)}")
    return folder


def older_checkpoints(out: Path, than: Path | None = None) -> str:
    """What to do about a broken checkpoint, as a sentence."""
    steps = [(step_of(folder), folder) for folder in _step_folders(out)]
    limit = step_of(than) if than else None
    intact = [f for step, f in steps if step is not None and (limit is None or step < limit) and is_intact(f)]
    if not intact:
        return f"No older checkpoint is there to resume from; start again with another --out, or delete {out}"
    names = ", ".join(folder.name for folder in intact)
    newest = intact[-1].name
    return f"Intact older checkpoints: {names}. To continue from one (later ones will go): echo {newest} > {out / LAST}"


class Checkpoints:
    """Writes the checkpoints of a run and removes the old ones. One process of a run has it."""

    def __init__(self, out: Path, keep: int, resumed: State | None):
        """Removes what a killed run left: unfinished folders and those that no pointer had reached."""
        self.out = out
        self.keep = keep
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        for partial in (out / "checkpoints").glob(".step-*.partial"):
            shutil.rmtree(partial)
        for folder in _step_folders(out):
            if (step_of(folder) or 0) > (resumed.step if resumed else -1):
                shutil.rmtree(folder)
        if resumed:
            self._point(resumed)  # a kill may have come between the two pointers

    def save(self, state: State, sets: TensorSets) -> Path:
        folder = self.out / "checkpoints" / folder_name(state.step)
        if folder.exists():  # resumed here: the same weights, of which more may be known now
            assert read_state(folder).step == state.step
            write_state(folder, state)
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
