"""Experiment trackers of accelerate (TensorBoard, W&B, MLflow, ...) beside the journal. One process of a run has them.

OUT/trackers.json remembers the run of each tracker, so that a run that is continued is continued there, too.
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from botformer.atomic_write import write_json
from botformer.errors import InputError, unknown
from botformer.read_file import read_json

log = logging.getLogger(__name__)

PROJECT = "botformer"
"""What runs are filed under where a tracker has projects or experiments."""
RUNS = "trackers.json"
_TENSORBOARD = "tensorboard"


def find_trackers(names: tuple[str, ...]) -> dict[str, type[GeneralTracker]]:
    """The class of each tracker, by its name in accelerate or as "module:Class".

    Raises:
        InputError: no such tracker, or its package is not installed.
    """
    return {name: _class_of(name) for name in names}


class Trackers:
    """The trackers of a run. One that fails is said once, and left out from then on: the training goes on."""

    def __init__(
        self,
        names: tuple[str, ...],
        out: Path,
        config: Mapping[str, Any],
        step: int,
        known_steps: Mapping[str, int],
        warn: Callable[[str], object],
    ) -> None:
        """Start them, or continue them at `step`.

        Args:
            config: the recipe, as names with dots and values.
            known_steps: kind of record -> the last step that trackers were told of before the run was stopped. Steps
                up to it happen again as they were, and are not told again. TensorBoard forgets them instead, as the
                journal does.
            warn: says a line.
        """
        self._warn = warn
        self._known_steps: dict[str, Mapping[str, int]] = {}
        """Of each tracker."""
        self._running: dict[str, GeneralTracker] = {}
        classes = find_trackers(names)
        runs = _read_runs(out) if step else {}
        for name, kind in classes.items():
            continued = name in runs
            run = runs.get(name) or {"id": secrets.token_hex(4)}
            tracker = self._guarded(name, lambda kind=kind, name=name, run=run, continued=continued: _start(
                kind, name, out, step, run, continued
            ))  # fmt: skip
            if tracker is None:
                continue
            self._running[name] = tracker
            self._known_steps[name] = known_steps if continued and name != _TENSORBOARD else {}
            if name == "mlflow":
                run = {"id": tracker.tracker.info.run_id}  # pyright: ignore[reportAttributeAccessIssue]
            runs[name] = run
            if not continued:
                self._guarded(name, lambda tracker=tracker: tracker.store_init_configuration(_plain(config)) or True)
        if names:
            write_json(out / RUNS, runs)

    def log(self, record: Mapping[str, Any]) -> None:
        """A record of the journal, as train/loss, evaluation/top1, ... at its step."""
        values = {
            f"{record['kind']}/{name}": value
            for name, value in record.items()
            if name not in ("kind", "step") and value is not None
        }
        for name, tracker in list(self._running.items()):
            if record["step"] > self._known_steps[name].get(record["kind"], 0):
                self._guarded(name, lambda tracker=tracker: tracker.log(values, step=record["step"]) or True)

    def close(self) -> None:
        for name, tracker in list(self._running.items()):
            self._guarded(name, lambda tracker=tracker: tracker.finish() or True)
        self._running = {}

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        """What `call` returns; None where it fails, however it does: it is other people's code, and a network."""
        try:
            return call()
        except Exception as error:
            self._running.pop(name, None)
            reason = str(error).strip().splitlines() or [""]
            self._warn(
                f"WARNING: the tracker {name} failed and is left out from here on ({type(error).__name__}: "
                f"{reason[0][:200]}); the training goes on, and its journal has everything"
            )
            return None


def _class_of(name: str) -> type[GeneralTracker]:
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"run.trackers {name}: {error}; expected module:Class, which Python can import here"
            ) from error
        if not (isinstance(found, type) and issubclass(found, GeneralTracker)):
            raise InputError(f"run.trackers {name} is no subclass of accelerate.tracking.GeneralTracker")
        return found
    if name not in LOGGER_TYPE_TO_CLASS:
        raise unknown("tracker in run.trackers", name, LOGGER_TYPE_TO_CLASS)
    known = LOGGER_TYPE_TO_CLASS[name]
    of_accelerate = known.__module__ == GeneralTracker.__module__  # others were registered, and bring what they need
    if of_accelerate and name not in {str(each) for each in get_available_trackers()}:
        package = "'botformer[log]'" if name == _TENSORBOARD else name
        raise InputError(f"run.trackers {name} needs a package that is not installed; pip install {package}")
    return known


def _start(
    kind: type[GeneralTracker], name: str, out: Path, step: int, run: Mapping[str, str], continued: bool
) -> GeneralTracker:
    options: dict[str, Any] = {}
    places: tuple[Any, ...] = (PROJECT,)
    if name == _TENSORBOARD:
        places, options = (_TENSORBOARD, str(out)), {"purge_step": step + 1}  # its files lie in OUT/tensorboard
    elif name == "wandb":
        options = {"name": out.name, "id": run["id"], "resume": "allow", "dir": str(out)}
    elif name == "mlflow":
        options = {"run_name": out.name, "run_id": run["id"] if continued else None}
    elif kind.requires_logging_directory:  # pyright: ignore[reportAttributeAccessIssue]
        places = (PROJECT, str(out))
    tracker: Any = kind(*places, **options)
    tracker.start()
    return tracker


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that every tracker takes; lists as text."""
    return {
        name: value if isinstance(value, bool | int | float | str) or value is None else json.dumps(value)
        for name, value in config.items()
    }


def _read_runs(out: Path) -> dict[str, dict[str, str]]:
    try:
        content = read_json(out / RUNS)
    except (OSError, ValueError):
        return {}
    runs = content.items() if isinstance(content, dict) else ()
    return {name: run for name, run in runs if isinstance(run, dict) and isinstance(run.get("id"), str)}
