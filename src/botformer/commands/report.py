"""Make the page of a run anew: botformer report RUN --data DIR."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from botformer.commands.screen import progress_bar
from botformer.recipes.schema import Device
from botformer.terminal import screen


@dataclass(frozen=True)
class Arguments:
    run: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run, finished or not."""
    data: str = ""
    """What it was trained on; by default what its plan or its evaluation names. Without data there are no images."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer report", description=__doc__)
    # Heavy, and --help should not wait for it.
    from botformer.report.run_report import write_run_report

    with progress_bar("evaluating") as bar:
        page = write_run_report(given.run, given.data, bar.show, device=given.device)
    screen().print(f"{page}")
