"""The message of a run that met an infinite or undefined number."""

import math
import shlex
from pathlib import Path

from accelerate.utils import gather_object

from botformer.atomic_write import write_json
from botformer.errors import InputError
from botformer.text import and_more
from botformer.training.checkpoint import checkpoint_folder
from botformer.training.distributed import Accelerator
from botformer.training.schedule import Plan
from botformer.training.train_step import StepResult

FILES_IN_MESSAGE = 20

_TRY = (
    "try a lower optimizer.learning_rate, a longer schedule.warmup_epochs, optimizer.clip_norm 1 or run.precision "
    + "float32"
)


def loss_error(result: StepResult, plan: Plan, out: Path, accelerator: Accelerator) -> InputError:
    """The error for a loss that is not finite; the images of the processes it came from are also in a file."""
    info = result.info
    bad = {name: value for name, value in result.own_losses.items() if not math.isfinite(value)}
    found = gather_object([{"losses": bad, "files": info.files}] if bad else [])
    losses = {name: value for part in found for name, value in part["losses"].items()} or {"sum": result.loss}
    files = [file for part in found for file in part["files"]]
    listed = out / "non_finite.json"
    if accelerator.is_main_process:
        values = {name: str(value) for name, value in losses.items()}
        write_json(listed, {"step": info.step, "lr": info.learning_rate, "losses": values, "files": files})
    names = and_more(files, FILES_IN_MESSAGE) or "not named"
    if len(files) > FILES_IN_MESSAGE:
        names += f" (all in {listed})"
    return InputError(
        f"the loss is not finite ({', '.join(f'{name} {value}' for name, value in losses.items())}) "
        f"at step {info.step} (epoch {plan.epoch(info.step):.2f}), learning rate {info.learning_rate:.3g}. "
        f"Images of the batch: {names}. Look at these images; {_TRY}. {_how(out)}"
    )


def weights_error(step: int, plan: Plan, out: Path) -> InputError:
    return InputError(
        f"the weights stopped being finite at or before step {step} (epoch {plan.epoch(step):.2f}) in {out}, although "
        f"every loss was finite. {_TRY.capitalize()}. {_how(out)}"
    )


def _how(out: Path) -> str:
    """A run keeps its recipe; what was tried again without a change would meet the same number."""
    try:
        saved = checkpoint_folder(out)
    except InputError:  # it was removed; the number matters more
        return "No checkpoint was written after it"
    if saved is None:
        return "Nothing is saved yet: the same --out takes them"
    return (
        f"No checkpoint was written after it. A run keeps the recipe it began with, so start another from the weights "
        f"of {saved.name}: --model.weights {shlex.quote(str(saved))}, with another --out"
    )
