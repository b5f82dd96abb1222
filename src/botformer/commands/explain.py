"""Show what a trained network looks at on an image, on one page: botformer explain IMAGE [--checkpoint RUN]."""

from dataclasses import dataclass
from html import escape
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich import box
from rich.table import Table

from botformer.commands.results_folder import results_folder
from botformer.commands.screen import print_table, progress_bar
from botformer.errors import InputError
from botformer.recipes.schema import Device
from botformer.terminal import screen
from botformer.text import printable

if TYPE_CHECKING:
    import numpy as np

    from botformer.report.explanation import Explanation


@dataclass(frozen=True)
class Arguments:
    image: Annotated[Path, tyro.conf.Positional]
    checkpoint: Path = Path("nuclei")
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, hf://OWNER/NAME on the Hugging Face hub, or the name of a network that comes with the package."""
    pixel: tuple[int, int] | None = None
    """Show the attention from this pixel of the image (y x, from 0). By default a classifier's from where Grad-CAM is
    brightest, a detector's from the middle of the detection."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Explain this class; of a detector, its best detection. By default the most probable one."""
    detection: int | None = None
    """Detectors: explain this detection, by rank; 0, the best, by default."""
    out: Path | None = None
    """The page, ending in .html, or a folder for it; by default explain/IMAGE.html in the run
    (explain/step-.../IMAGE.html of one checkpoint), or runs/explain/NAME/IMAGE.html. There a page of another image, or
    with other options, is not replaced: the new one gets a number."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer explain", description=__doc__)
    _check(given)
    explain_image(given)


def explain_image(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.create.from_checkpoint import load_for_rgb
    from botformer.recipes.schema import Run
    from botformer.report.explanation import ExplainOptions, explain
    from botformer.report.explanation_page import command_line, write_explanation_page
    from botformer.training.distributed import open_accelerator

    image, checkpoint = printable(str(given.image)), printable(str(given.checkpoint))
    command = command_line(image, checkpoint, _options(given))
    out = _out(given, command)
    loaded = load_for_rgb(given.checkpoint)
    loaded.model.to(open_accelerator(Run(device=given.device, precision="float32")).device)
    options = ExplainOptions(given.pixel, given.class_name, given.detection)
    with progress_bar("explaining") as bar:
        explanation = explain(loaded, given.image, options, bar.show)
        bar.show(0.8)
        write_explanation_page(explanation, image, checkpoint, command, out)
    _print(explanation)
    screen().print(f"the page: {out}")


def _check(given: Arguments) -> None:
    if given.detection is not None and given.detection < 0:
        raise InputError(f"--detection counts from the best, which is 0; got {given.detection}")
    if given.detection is not None and (given.pixel is not None or given.class_name is not None):
        raise InputError("--detection says what is explained; leave --pixel and --class out")


def _out(given: Arguments, command: str) -> Path:
    name = f"{given.image.stem}.html"
    if given.out is None:
        page = results_folder(given.checkpoint, "explain") / name
        pages = chain([page], (page.with_stem(f"{page.stem}-{number}") for number in count(2)))
        own = f">{escape(command)}</"  # all of the block that says how the page is made again
        return next(each for each in pages if not each.exists() or own in each.read_text("utf-8", "replace"))
    if given.out.resolve() == given.image.resolve():
        raise InputError(f"--out {given.out} is the image itself; name a page, such as {name}")
    return given.out if given.out.suffix.lower() in (".html", ".htm") else given.out / name


def _options(given: Arguments) -> list[str]:
    """Those that were given, for the page."""
    chosen = []
    if given.pixel is not None:
        chosen += ["--pixel", *map(str, given.pixel)]
    if given.class_name is not None:
        chosen += ["--class", given.class_name]
    if given.detection is not None:
        chosen += ["--detection", str(given.detection)]
    return chosen


def _print(explanation: "Explanation") -> None:
    from botformer.report.explanation import ExplainedDetection
    from botformer.report.explanation_page import layer_title, percent

    console = screen()
    subject = explanation.subject
    if isinstance(subject, ExplainedDetection):
        console.print(
            f"detection {subject.number} of {subject.count}: {subject.name}, score {subject.score:.3f}, read from "
            f"{subject.cam.level}"
        )
    elif subject is not None:
        console.print(f"class {subject.name}, {percent(subject.probability)}")
    y, x = explanation.seen.in_image(*explanation.query_yx)
    console.print(f"attention from {explanation.query_words} (y {int(y)}, x {int(x)})")
    if not explanation.heads:
        console.print("no attention layers: Grad-CAM alone")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("attention layer", overflow="fold")
    for header in ("cells", "heads", "brightest, times the mean", "decided by position"):
        table.add_column(header, justify="right")
    for layer in explanation.heads:
        attention = layer.attention
        height, width = attention.shape[1:]
        brightest = attention.max((1, 2)) * height * width
        fraction = layer.position_fraction
        table.add_row(
            layer_title(layer.name),
            f"{width}\N{MULTIPLICATION SIGN}{height}",
            str(layer.heads),
            _span(brightest, "{:.1f}"),
            "no positions" if layer.position is None else _span(100 * fraction, "{:.0f}", "%"),
        )
    print_table(console, table)
    if explanation.without is not None:
        before, after = explanation.without.with_positions, explanation.without.without_positions
        best, then = int(before.argmax()), int(after.argmax())
        console.print(
            f"without positions: {explanation.class_names[then]} {percent(float(after[then]))} (with them: "
            f"{explanation.class_names[best]} {percent(float(before[best]))})"
        )


def _span(values: "np.ndarray", number: str, unit: str = "") -> str:
    low, high = (number.format(end) for end in (values.min(), values.max()))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"
