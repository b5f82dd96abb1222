"""Look at images and labels before training on them: botformer data DIR [--checkpoint RUN]."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from botformer.commands.screen import new_table, print_table, progress_bar
from botformer.errors import InputError
from botformer.read_file import at_home
from botformer.recipes.schema import Device
from botformer.terminal import screen
from botformer.text import printable

if TYPE_CHECKING:
    from botformer.report.finding import Finding
    from botformer.report.inspection import Inspection

_LISTED = 3
"""Examples of a finding on the screen; the page has more."""
_CLASSES = 20
"""Rows of the table on the screen."""


@dataclass(frozen=True)
class Arguments:
    data: Annotated[str, tyro.conf.Positional]
    """As for `botformer train`: class folders, tars (also http://), Parquet files, COCO, YOLO, Pascal VOC, LabelMe,
    VIA or Label Studio; hfds/OWNER/NAME."""
    out: Path | None = None
    """The page; runs/data/NAME.html by default."""
    checkpoint: Path | None = None
    """A trained network: also show where it is sure and the labels say something else."""
    fast: bool = False
    """Read the headers of the images alone: no copies, no damage inside. With --checkpoint: not the training images."""
    device: Device = "auto"
    """Where the network of --checkpoint runs."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer data", description=__doc__)
    if not look(given):
        sys.exit(1)


def look(given: Arguments) -> bool:
    """Print what is found and write the page. Returns whether a network could be trained on the data."""
    # Heavy, and --help should not wait for it.
    from botformer.report.data_page import write_data_page
    from botformer.report.inspection import inspect_data

    out = given.out or Path("runs/data") / f"{at_home(given.data).resolve().name or 'data'}.html"
    if out.is_dir():
        raise InputError(f"--out is the page, and {out} is a folder; name a file in it, such as {out / 'data.html'}")
    if out.suffix.lower() not in (".html", ".htm"):
        lost = f", and {out} would be replaced" if out.exists() else ""
        raise InputError(f"--out is the page, an .html file{lost}; such as {out}.html")
    out.parent.mkdir(parents=True, exist_ok=True)
    found = inspect_data(given.data, given.checkpoint, given.fast, progress_bar, given.device)
    write_data_page(found, out)  # first: whoever reads the lines may stop early
    _print(found)
    screen().print(f"with images: {out}")
    return found.trainable


def _print(found: "Inspection") -> None:
    from botformer.report.data_page import in_short, looked_at
    from botformer.report.data_tables import class_bars

    console = screen()
    console.print(in_short(found))
    if looked_at(found):
        console.print(looked_at(found))
    if found.data.splits:
        bars = class_bars(found.data)
        table = new_table("objects" if found.data.is_detection else "images", *bars.series)
        for name, values in bars.rows[:_CLASSES]:
            table.add_row(printable(name), *(f"{value:,.0f}" for value in values))
        if len(bars.rows) > _CLASSES:
            table.add_row(f"and {len(bars.rows) - _CLASSES} more classes")
        print_table(console, table)
    for finding in found.findings:
        console.print(_words(finding))
    if not found.findings:
        console.print("nothing wrong, nothing odd")


def _words(finding: "Finding") -> str:
    lines = [f"{finding.severity.upper()}: {finding.sentence}"]
    if finding.severity != "note":
        lines += [f"    {line.strip()}" for line in finding.listed[:_LISTED]]
        if len(finding.listed) > _LISTED:
            lines.append("    ...")
    lines += [f"  {fix}" for fix in (finding.fix, finding.command) if fix]
    return "\n".join(lines)
