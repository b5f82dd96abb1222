"""Classify images, or detect objects on them, and draw the result: botformer predict IMAGE... [--checkpoint RUN]."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.commands.results_folder import results_folder
from botformer.commands.screen import file_name, print_table, progress_bar
from botformer.errors import InputError
from botformer.recipes.schema import Device
from botformer.terminal import screen
from botformer.text import and_more, printable

if TYPE_CHECKING:
    from botformer.predict.prediction_records import BulkOptions, BulkSummary
    from botformer.predict.predictor import Predictor


@dataclass(frozen=True)
class Arguments:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, folders of images, tars of images, .txt files with a path per line, or patterns in quotation marks such
    as 'scans/**/*.jpg' (** is any depth). - is standard input: the bytes of one image, or paths of images, one per line
    (or ended by NUL, as of find -print0)."""
    checkpoint: str = "nuclei"
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, hf://OWNER/NAME on the Hugging Face hub, or the name of a network that comes with the package."""
    out: Path | None = None
    """Folder for drawings and JSON files; by default predictions/ in the run (predictions/step-.../ of one checkpoint),
    or runs/predictions/NAME, or with -2, -3 and so on behind it where other images were predicted into it. What was
    stopped there goes on where it stopped; what was finished is made anew."""
    draw: int | Literal["all"] | None = None
    """How many images are drawn, the first, by default 100; predictions are written of all."""
    batch_size: int | None = None
    """Images that the network sees at once; by default by the size of its canvas, at most 64."""
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
    device: Device = "auto"
    engine: Literal["plain", "ray"] = "plain"
    """ray: in several processes, on this machine or on a cluster, with Ray Data (pip install 'botformer[ray]'). It also
    writes predictions.parquet, and draws nothing. It takes seconds to start: for many GPUs, machines or images."""
    ray_address: str | None = None
    """--engine ray: the cluster, such as auto (the one that this machine belongs to) or HOST:6379; IMAGES and OUT must
    lie where all its machines see them. By default Ray is started on this machine, for this command."""


_OF_CLASSIFIERS = ("query",)
_OF_DETECTORS = ("threshold", "tile", "tta", "attention", "detection", "annotations")
_DRAWN = 100
_NOT_ON_RAY = ("query", "attention", "detection")
_OF_DRAWINGS = ("query", "threshold", "attention", "detection", "annotations")
_LISTED = 5
"""Classes that are named on the screen."""
_MUCH_SMALLER = 4
"""From this factor on, what was not found on an image may have been too small on the network's canvas."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer predict", description=__doc__)
    _check(given)
    predict(given)


def predict(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.create.from_checkpoint import load_for_rgb
    from botformer.detection import Detector
    from botformer.predict.bulk import predict_files
    from botformer.predict.files import list_images
    from botformer.predict.prediction_log import free_folder, without_numbered
    from botformer.predict.prediction_records import BulkOptions
    from botformer.predict.predictor import predictor
    from botformer.recipes.schema import Run
    from botformer.training.distributed import open_accelerator

    out = given.out or results_folder(Path(given.checkpoint), "predictions")
    files = list_images(given.images, out, _standard_input(given.images))
    if given.out is None:
        files = without_numbered(files, out)
        out = free_folder(out, files)
    loaded = load_for_rgb(given.checkpoint)
    _refuse(given, _OF_CLASSIFIERS if isinstance(loaded.model, Detector) else _OF_DETECTORS, loaded.model_config)
    console = screen()
    console.print(f"network: {_description(given.checkpoint, loaded.model_config)}")
    tile = given.tile
    if given.attention:
        tile = 0
        if loaded.model_config["images"].get("tile"):
            console.print("attention is drawn over the whole image, which is not cut into tiles for it")
    make = partial(
        predictor, loaded, batch_size=given.batch_size, tile=tile, flip=given.tta == "flip",
        max_megapixels=given.max_megapixels,
    )  # fmt: skip
    chosen: Any = {name: getattr(given, name) for name in _OF_DRAWINGS if getattr(given, name) is not None}
    if given.engine == "ray":
        options = BulkOptions(**chosen, draw=0)
        network = make(device="cpu")
        summary = _predict_on_ray(given, make, files, out, options, console)
    else:
        options = BulkOptions(**chosen, draw=_drawn(given))
        network = make(device=open_accelerator(Run(device=given.device, precision="float32")).device)
        with progress_bar("predicting") as bar:
            summary = predict_files(network, files, out, options, bar.show)
    if summary.earlier:
        console.print(f"{summary.earlier} images were predicted before this run was stopped, and are not done again")
    if isinstance(loaded.model, Detector):
        categories = dict(zip(summary.category_ids, network.names, strict=True))
        table = _detections_table(summary.first, categories, options, given.tile, network.network.side, console)
    else:
        table = _classes_table(summary.first, console)
    print_table(console, table)
    if summary.images - summary.unreadable > len(summary.first):
        console.print(f"... and {summary.images - summary.unreadable - len(summary.first)} more images")
    _print_files(summary, out, given, console)
    if summary.unreadable:
        listed = [f"  {printable(bad['file_name'])}: {bad['error']}" for bad in summary.first_unreadable]
        listed += ["  ..."] * (summary.unreadable > len(listed))
        raise InputError(f"{summary.unreadable} of {summary.images} images could not be read:\n" + "\n".join(listed))


def _predict_on_ray(
    given: Arguments,
    make: "Callable[..., Predictor]",
    files: Sequence[Path],
    out: Path,
    options: "BulkOptions",
    console: Console,
) -> "BulkSummary":
    import torch

    from botformer.predict.ray_engine import predict_on_ray

    if given.ray_address is None:
        without_gpus = "" if torch.cuda.is_available() else "; one machine without GPUs may be done sooner without"
        console.print(f"Ray starts, which takes seconds{without_gpus}")
    with progress_bar("predicting") as bar:
        summary = predict_on_ray(make, files, out, options, given.ray_address, given.device, bar.show)
    if given.ray_address is None and summary.first_done_s > summary.all_done_s / 2:
        console.print(
            f"the first images were done after {summary.first_done_s:.0f} s, all after {summary.all_done_s:.0f} s: a "
            "job as small as this on one machine may be done sooner without --engine ray"
        )
    return summary


def _drawn(given: Arguments) -> int | None:
    """None: all."""
    return None if given.draw == "all" else _DRAWN if given.draw is None else given.draw


def _print_files(summary: "BulkSummary", out: Path, given: Arguments, console: Console) -> None:
    drawings = "drawings, " if summary.drawn else ""
    rows = ", and predictions.parquet a row" if given.engine == "ray" else ""
    if given.engine == "plain" and summary.drawn < summary.images - summary.unreadable:
        console.print(f"{summary.drawn} of {summary.images} images are drawn; --draw all draws every one")
    console.print(
        f"{drawings}predictions.json (all predictions) and images.json (the images) are in {out}; predictions.jsonl "
        f"there has a line per image{rows}"
    )


def _standard_input(paths: Sequence[Path]) -> Callable[[], bytes]:
    """What reads it, where a path is "-"."""
    if paths.count(Path("-")) > 1:
        raise InputError("- is given twice, but there is only one standard input")
    if Path("-") in paths and sys.stdin.isatty():
        raise InputError("nothing is piped into -; give an image's bytes (< IMAGE) or a list of paths (find ... |)")
    return lambda: sys.stdin.buffer.read()


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
    if given.draw not in ("all", None) and given.draw < 0:
        raise InputError(f"--draw takes a number of images, or all; got {given.draw}")
    if given.engine == "ray":
        _check_for_ray(given)
    elif given.ray_address is not None:
        raise InputError("--ray-address says where --engine ray predicts; give --engine ray too, or leave it out")


def _check_for_ray(given: Arguments) -> None:
    for name in _NOT_ON_RAY:
        if getattr(given, name):
            raise InputError(f"--{name} is for drawings, and --engine ray draws nothing; leave one of them out")
    if given.draw:
        raise InputError(
            "--engine ray draws nothing; leave --draw out, and draw a few of the images without --engine ray into "
            "another --out"
        )
    if given.device == "mps":
        raise InputError("--engine ray shares out GPUs of NVIDIA or CPUs; use --device cpu, or leave --engine ray out")


def _refuse(given: Arguments, options: Sequence[str], model_config: Mapping[str, Any]) -> None:
    """Options that this network has no use for."""
    defaults = {field.name: field.default for field in fields(Arguments)}
    for name in options:
        if getattr(given, name) != defaults[name]:
            of, other = (
                ("detector", "classifiers") if model_config["task"] == "detection" else ("classifier", "detectors")
            )
            raise InputError(f"{given.checkpoint} is a {of}, and --{name} is for {other}; leave it out")


def _description(checkpoint: str, model_config: dict[str, Any]) -> str:
    """The network in a few words."""
    from botformer.create.from_checkpoint import is_shipped

    kind = [model_config["detector"]] if "detector" in model_config else []
    names = model_config.get("class_names") or [name for _, name in model_config["categories"]]
    origin = ", which comes with botformer" if is_shipped(checkpoint) else ""
    return f"{checkpoint}{origin} ({' '.join([*kind, model_config['model']])}; {and_more(names, _LISTED)})"


def _classes_table(records: Sequence[Mapping[str, Any]], console: Console) -> Table:
    table = _table("image", "best class", "probability", "then")
    for record in records:
        (name, probability), *others = record["top5"]
        then = ", ".join(f"{other} {p:.1%}" for other, p in others[:3])
        table.add_row(file_name(record["file_name"], console), name, f"{probability:.1%}", then)
    return table


def _detections_table(
    records: Sequence[Mapping[str, Any]],
    categories: Mapping[int, str],
    options: "BulkOptions",
    tile: int | None,
    canvas: int,
    console: Console,
) -> Table:
    table = _table("image", f"detections, score {options.threshold:g} or more", "best score", "")
    for record in records:
        found = record["detections"]
        names = Counter(categories[each["category_id"]] for each in found if each["score"] >= options.threshold)
        counts = ", ".join(f"{count} \N{MULTIPLICATION SIGN} {name}" for name, count in names.most_common())
        best = f"{max(each['score'] for each in found):.3f}" if found else ""
        note = "" if counts or tile else _shrunk(record, canvas)
        if options.attention and options.detection >= len(found):
            note = f"no detection {options.detection}, so no attention"
        table.add_row(file_name(record["file_name"], console), counts or "nothing", best, note)
    return table


def _shrunk(record: Mapping[str, Any], canvas: int) -> str:
    """Why nothing may have been found on a large image."""
    factor = max(record["width"], record["height"]) / canvas
    return f"seen {factor:.0f} times smaller: try --tile" if factor >= _MUCH_SMALLER else ""


def _table(image: str, first: str, number: str, last: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(image, no_wrap=True)
    table.add_column(first, overflow="fold")
    table.add_column(number, justify="right", no_wrap=True)
    table.add_column(last, overflow="fold")
    return table
