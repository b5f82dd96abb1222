"""Say what is on images, and show it: botformer predict IMAGE... [--checkpoint RUN]."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from botformer.errors import InputError

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Arguments:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, or folders of images."""
    checkpoint: Path = Path("nuclei")
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, or the name of a network that comes with the package."""
    out: Path | None = None
    """Where drawings and JSON files go; by default predictions/ in the run, or runs/predictions/NAME."""
    query: tuple[float, float] | None = None
    """Classifiers: the place that looks, as shares of the image: 0.5 0.5 is its centre (default), 0 0 its upper left
    corner."""
    threshold: float | None = None
    """Detectors: least score of what is drawn and counted on screen, 0.5 by default. The JSON file has all."""
    tile: int | None = None
    """Detectors: see images larger than this through overlapping windows of so many pixels a side. A window is scaled
    to the network's canvas as a whole image is, so this decides how large objects look."""
    attention: bool = False
    """Detectors: also draw where the attention layers look from the centre of one detection."""
    detection: int | None = None
    """Detectors: which one looks, from the best, 0 (default), on."""
    annotations: Path | None = None
    """Detectors: a COCO file whose image ids the JSON files shall use, to score them against it."""
    max_megapixels: float | None = None
    """A larger image counts as unreadable (it may be a decompression bomb); by default the network's own limit."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer predict", description=__doc__)
    _check(given)
    out = given.out or _usual_place(given.checkpoint)
    files = _files(given.images, out)

    from rich.console import Console

    from botformer.create import load
    from botformer.recipes.schema import Run
    from botformer.training.distributed import open_accelerator

    model, model_config = load(given.checkpoint)
    if given.max_megapixels is not None:
        model_config["images"]["max_megapixels"] = given.max_megapixels
    is_detector = model_config["task"] == "detection"
    _refuse(given, ("query",) if is_detector else _OF_DETECTORS, model_config["task"])
    console = Console(soft_wrap=True)
    console.print(f"network: {_named(given.checkpoint, model_config)}", markup=False)
    model.to(open_accelerator(Run(device=given.device, precision="float32")).device)
    drawings = _drawings(files, out, "prediction")
    if is_detector:
        from botformer.predict.detector import PredictOptions, predict_images, summary

        chosen = {name: getattr(given, name) for name in _OF_DETECTORS if getattr(given, name) is not None}
        places = list(zip(files, drawings, _drawings(files, out, "attention"), strict=True))
        results, bad = predict_images(model, model_config, places, out, PredictOptions(**chosen))
        told = summary(results, chosen.get("threshold", PredictOptions.threshold))
        left = "drawings, predictions.json (all detections) and images.json (their images)"
    else:
        from botformer.predict.classifier import predict_images, summary

        results, bad = predict_images(model, model_config, list(zip(files, drawings, strict=True)), out, given.query)
        told, left = summary(results), "drawings and predictions.json"
    Console().print(told)
    console.print(f"{left} are in {out}", markup=False)
    if bad:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in bad.items())
        raise InputError(f"{len(bad)} of {len(files)} images could not be read:\n{listed}")


_OF_DETECTORS = ("threshold", "tile", "attention", "detection", "annotations")


def _check(given: Arguments) -> None:
    """Values that no network could use."""
    if given.query is not None and not all(0 <= share <= 1 for share in given.query):
        raise InputError(f"--query takes two shares of the image between 0 and 1, got {given.query}")
    if given.threshold is not None and not 0 <= given.threshold <= 1:
        raise InputError(f"--threshold is a score between 0 and 1, got {given.threshold}")
    if given.detection is not None and given.detection < 0:
        raise InputError(f"--detection counts from the best, which is 0; got {given.detection}")
    if given.detection is not None and not given.attention:
        raise InputError("--detection says whose attention is drawn; give --attention too, or leave it out")
    if given.attention and given.tile is not None:
        raise InputError("--attention shows one look at the whole image; leave --tile or --attention out")


def _refuse(given: Arguments, options: Sequence[str], task: str) -> None:
    """Options that this network has no use for."""
    defaults = {field.name: field.default for field in fields(Arguments)}
    for name in options:
        if getattr(given, name) != defaults[name]:
            of, other = ("detector", "classifiers") if task == "detection" else ("classifier", "detectors")
            raise InputError(f"{given.checkpoint} is a {of}, and --{name} is for {other}; leave it out")


def _usual_place(checkpoint: Path) -> Path:
    return checkpoint / "predictions" if checkpoint.is_dir() else Path("runs/predictions") / checkpoint.stem


def _named(checkpoint: Path, model_config: dict[str, Any]) -> str:
    """The network in a few words."""
    kind = [model_config["detector"]] if "detector" in model_config else []
    names = model_config.get("class_names") or [name for _, name in model_config["categories"]]
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    origin = "" if checkpoint.exists() else ", which comes with botformer"
    return f"{checkpoint}{origin} ({' '.join([*kind, model_config['model']])}; {some})"


def _files(given: Sequence[Path], out: Path) -> list[Path]:
    """The images named, and those in the folders named, in order. Drawings of an earlier time are no images."""
    from botformer.data.classification.dataset import EXTENSIONS

    files = []
    for path in given:
        if path.is_dir():
            drawn = out if path.resolve() in out.resolve().parents else None
            found = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in EXTENSIONS
                and not p.name.startswith(".")
                and not (drawn and drawn.resolve() in p.resolve().parents)
            )
            if not found:
                raise InputError(f"{path} holds no images ({', '.join(EXTENSIONS)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; expected an image or a folder of images")
    if not files:
        raise InputError("name at least one image: botformer predict IMAGE...")
    return files


def _drawings(files: Sequence[Path], out: Path, kind: str) -> list[Path]:
    """NAME.KIND.png for each file, numbered where several have the same name; never one of the images themselves."""
    taken = {file.resolve() for file in files}
    drawings = []
    for file in files:
        names = (f"{file.stem}.{kind}{number}.png" for number in ("", *(f"-{n}" for n in range(2, len(files) + 2))))
        drawing = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(drawing.resolve())
        drawings.append(drawing)
    return drawings
