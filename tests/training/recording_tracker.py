"""Trackers of somebody's own: one that writes lines into a folder, and ones that fail."""

import json
from pathlib import Path

from accelerate.tracking import GeneralTracker


class LineTracker(GeneralTracker):
    """OUT/lines.jsonl: what it was told, in the order it was told."""

    name = "lines"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: str):
        super().__init__()
        self.run_name, self.file = run_name, Path(logging_dir) / "lines.jsonl"

    @property
    def tracker(self):
        return self.file

    def _write(self, **content) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(content) + "\n")

    def start(self):
        self._write(started=self.run_name)

    def store_init_configuration(self, values):
        self._write(config=values)

    def log(self, values, step=None, **kwargs):
        self._write(step=step, values=values)

    def finish(self):
        self._write(finished=True)


class FailsAtTheStart(LineTracker):
    def start(self):
        raise OSError("nobody is logged in\nand more")


class FailsLater(LineTracker):
    def log(self, values, step=None, **kwargs):
        if step == 3:
            raise ConnectionError("the network is gone")
        super().log(values, step)


class NoTracker:
    pass
