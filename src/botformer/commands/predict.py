"""Classify images, or detect objects on them, and draw the result: botformer predict IMAGE... [--checkpoint RUN]."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.commands.screen import file_name, print_table, progress_bar
from botformer.errors import InputError
from botformer.terminal import screen
from botformer.text import and_more, printable

if TYPE_CHECKING:
    from botformer.classification.metrics import ImagePrediction
    from botformer.predict.detector import ImageSummary


@dataclass(frozen=True)
class Arguments:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, folders of images, or patterns in quotation marks such as 'scans/**/*.jpg' (** is any depth). - is
    standard input: the bytes of one image, or paths of images, one per line (or ended by NUL, as of find -print0)."""
    checkpoint: Path = Path("nuclei")
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, or the name of a network that comes with the package."""
    out: Path | None = None
    """Folder for drawings and JSON files; by default predictions/ in the run, or runs/predictions/NAME."""
    query: tuple[float, float] | None = None
    """Classifiers: draw the attention from this position (y x), as fractions of the image: 0.5 0.5 is the centre
    (default), 0 0 the upper left corner."""
    threshold: float | None = None
    """Detectors: score threshold of what is drawn and counted, 0.5 by default. predictions.json has all detections."""
    tile: int | None = None
    """Detectors: cut larger images into overlapping tiles of so many pixels a side; 0: none. Each tile is resized to
    the network's input size as a whole image is, so this decides how large objects look. By default as the network
    was trained for (images.tile)."""
    tta: Literal["none", "flip"] | None = None
    """Detectors: test-time augmentation. flip: detect on each image and on its mirror image, and average."""
    attention: bool = False
    """Detectors: also draw where the attention layers look from the centre of one detection."""
    detection: int | None = None
    """Detectors: which detection, by rank; 0, the best, by default."""
    annotations: Path | None = None
    """Detectors: a COCO annotation file whose image ids predictions.json shall use, to score it against that file."""
    max_megapixels: float | None = None
    """Larger images count as unreadable (they may be decompression bombs); by default the network's own limit."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"


_OF_CLASSIFIERS = ("query",)
_OF_DETECTORS = ("threshold", "tile", "tta", "attention", "detection", "annotations")
_LISTED = 5
"""Classes that are named on the screen."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer predict", description=__doc__)
    _check(given)
    predict(given)


def predict(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.create.from_checkpoint import load_for_rgb
    from botformer.detection import Detector
    from botformer.predict import classifier, detector
    from botformer.predict.files import list_images
    from botformer.recipes.schema import Run
    from botformer.training.distributed import open_accelerator

    out = given.out or _default_out(given.checkpoint)
    files = list_images(_with_standard_input(given.images, out), out)
    model, model_config = load_for_rgb(given.checkpoint)
    if given.max_megapixels is not None:
        model_config["images"]["max_megapixels"] = given.max_megapixels
    _refuse(given, _OF_CLASSIFIERS if isinstance(model, Detector) else _OF_DETECTORS, model_config["task"])
    console = screen()
    console.print(f"network: {_description(given.checkpoint, model_config)}")
    model.to(open_accelerator(Run(device=given.device, precision="float32")).device)
    chosen: Any = {name: getattr(given, name) for name in _OF_DETECTORS if getattr(given, name) is not None}
    flip = chosen.pop("tta", "none") == "flip"
    options = detector.PredictOptions(**chosen, flip=flip)
    with progress_bar("predicting") as bar:
        if isinstance(model, Detector):
            summaries, unreadable = detector.predict_files(model, model_config, files, out, options, bar.show)
            table = _detections_table(summaries, options.threshold, console)
        else:
            query = given.query or classifier.CENTRE
            records, unreadable = classifier.predict_files(model, model_config, files, out, query, bar.show)
            table = _classes_table(records, console)
    print_table(console, table)
    console.print(f"drawings, predictions.json (all predictions) and images.json (the images) are in {out}")
    if unreadable:
        listed = "\n".join(f"  {printable(str(file))}: {reason}" for file, reason in unreadable.items())
        raise InputError(f"{len(unreadable)} of {len(files)} images could not be read:\n{listed}")


def _with_standard_input(paths: Sequence[Path], out: Path) -> list[Path]:
    """`paths`, with what standard input says in the place of "-"."""
    from botformer.predict.files import from_standard_input

    if paths.count(Path("-")) > 1:
        raise InputError("- is given twice, but there is only one standard input")
    if Path("-") in paths and sys.stdin.isatty():
        raise InputError("nothing is piped into -; give an image's bytes (< IMAGE) or a list of paths (find ... |)")
    return [
        file
        for path in paths
        for file in (from_standard_input(sys.stdin.buffer.read(), out) if path == Path("-") else [path])
    ]


def _check(given: Arguments) -> None:
    """Values that no network could use."""
    if given.query is not None and not all(0 <= fraction <= 1 for fraction in given.query):
        raise InputError(f"--query takes two fractions of the image between 0 and 1, got {given.query}")
    if given.threshold is not None and not 0 <= given.threshold <= 1:
        raise InputError(f"--threshold is a score between 0 and 1, got {given.threshold}")
    if given.detection is not None and given.detection < 0:
        raise InputError(f"--detection counts from the best, which is 0; got {given.detection}")
    if given.detection is not None and not given.attention:
        raise InputError("--detection says whose attention is drawn; give --attention too, or leave it out")
    if given.attention and given.tile:
        raise InputError("--attention is drawn over the whole image; leave --tile or --attention out")


def _refuse(given: Arguments, options: Sequence[str], task: str) -> None:
    """Options that this network has no use for."""
    defaults = {field.name: field.default for field in fields(Arguments)}
    for name in options:
        if getattr(given, name) != defaults[name]:
            of, other = ("detector", "classifiers") if task == "detection" else ("classifier", "detectors")
            raise InputError(f"{given.checkpoint} is a {of}, and --{name} is for {other}; leave it out")


def _default_out(checkpoint: Path) -> Path:
    return checkpoint / "predictions" if checkpoint.is_dir() else Path("runs/predictions") / checkpoint.stem


def _description(checkpoint: Path, model_config: dict[str, Any]) -> str:
    """The network in a few words."""
    kind = [model_config["detector"]] if "detector" in model_config else []
    names = model_config.get("class_names") or [name for _, name in model_config["categories"]]
    origin = "" if checkpoint.exists() else ", which comes with botformer"
    return f"{checkpoint}{origin} ({' '.join([*kind, model_config['model']])}; {and_more(names, _LISTED)})"


def _classes_table(records: "Sequence[ImagePrediction]", console: Console) -> Table:
    table = _table("image", "best class", "probability", "then")
    for record in records:
        (name, probability), *others = record["top5"]
        then = ", ".join(f"{other} {p:.1%}" for other, p in others[:3])
        table.add_row(file_name(record["file_name"], console), name, f"{probability:.1%}", then)
    return table


def _detections_table(summaries: "Sequence[ImageSummary]", threshold: float, console: Console) -> Table:
    table = _table("image", f"detections, score {threshold:g} or more", "best score", "")
    for summary in summaries:
        counts = ", ".join(f"{count} \N{MULTIPLICATION SIGN} {name}" for name, count in summary.counts.items())
        best = "" if summary.best is None else f"{summary.best:.3f}"
        table.add_row(file_name(str(summary.file), console), counts or "nothing", best, summary.note)
    return table


def _table(image: str, first: str, number: str, last: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(image, no_wrap=True)
    table.add_column(first, overflow="fold")
    table.add_column(number, justify="right", no_wrap=True)
    table.add_column(last, overflow="fold")
    return table
