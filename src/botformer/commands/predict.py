"""Say what is on pictures, and show where the attention looks: botformer predict IMAGE... --checkpoint RUN."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from botformer.errors import InputError

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Arguments:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, or folders of pictures."""
    checkpoint: Path
    """The --out folder of a training run (its best checkpoint), or the folder of one checkpoint."""
    out: Path | None = None
    """Where the drawings and predictions.json go; predictions/ in the run by default."""
    query: tuple[float, float] = (0.5, 0.5)
    """The place that looks, as shares of the picture: 0.5 0.5 is its centre, 0 0 its upper left corner."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer predict", description=__doc__)
    if not all(0 <= share <= 1 for share in given.query):
        raise InputError(f"--query takes two shares of the picture between 0 and 1, got {given.query}")
    from rich import box
    from rich.console import Console
    from rich.table import Table

    files = _files(given.images)
    out = given.out or given.checkpoint / "predictions"
    results, bad = predict_files(given.checkpoint, files, out, given.query, given.device)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("picture", "best", "", "then"):
        table.add_column(header, overflow="fold")
    for result in results:
        (name, probability), *others = result["top5"]
        then = ", ".join(f"{other} {p:.1%}" for other, p in others[:3])
        table.add_row(result["file"], name, f"{probability:.1%}", then)
    console = Console()
    console.print(table)
    console.print(f"drawings and predictions.json are in {out}")
    if bad:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in bad.items())
        raise InputError(f"{len(bad)} of {len(files)} pictures could not be read:\n{listed}")


def predict_files(
    checkpoint: Path, files: Sequence[Path], out: Path, query: tuple[float, float], device: Device = "auto"
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Predict every file, draw it to OUT and write OUT/predictions.json.

    Returns the entries of that file, {"file", "top5": [[name, probability], ...], "drawing"}, and the files that could
    not be read with the reason.
    """
    import json

    from rich.console import Console
    from rich.progress import track

    from botformer.create import load
    from botformer.data.decoding import BadImage
    from botformer.pictures.predictions import draw_prediction
    from botformer.recipes.schema import Run
    from botformer.training.devices import open_accelerator

    model, card = load(checkpoint)
    model.to(open_accelerator(Run(device=device, precision="float32")).device)
    out.mkdir(parents=True, exist_ok=True)
    results, bad = [], {}
    for file, drawing in track(
        list(zip(files, _drawings(files, out), strict=True)), "predicting", console=Console(stderr=True), transient=True
    ):
        try:
            prediction = look_at(model, card, file, query)
        except BadImage as error:
            bad[str(file)] = error.reason
            continue
        draw_prediction(**vars(prediction) | {"out": drawing})
        top5 = [[name, round(p, 6)] for name, p in zip(prediction.names, prediction.probabilities, strict=True)]
        results.append({"file": str(file), "top5": top5, "drawing": drawing.name})
    (out / "predictions.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results, bad


def look_at(model: Any, card: dict[str, Any], file: Path, query: tuple[float, float]) -> Any:
    """The `pictures.predictions.Prediction` of one file: top 5 and the attention of every layer, heads averaged."""
    import torch

    from botformer.backbone.attention_maps import attention_maps
    from botformer.classification.normalise import normalise
    from botformer.data.decoding import decode
    from botformer.data.transforms import evaluation_transform
    from botformer.pictures.predictions import Prediction
    from botformer.recipes.schema import Images

    images = Images(**card["images"])
    pixels = evaluation_transform(images)(decode(file, file.name, images.max_megapixels))
    batch = normalise(pixels[None].to(next(model.parameters()).device))
    with torch.inference_mode():
        best = model(batch)[0].float().softmax(-1).topk(min(5, len(card["class_names"])))
    return Prediction(
        image=pixels.permute(1, 2, 0).numpy(),
        names=[card["class_names"][index] for index in best.indices.tolist()],
        probabilities=best.values.tolist(),
        attention=[(name, heads[0].mean(0).cpu().numpy()) for name, heads in attention_maps(model, batch, query)],
        query_yx=(query[0] * (images.size - 1), query[1] * (images.size - 1)),
    )


def _files(given: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, in order."""
    from botformer.data.sources import EXTENSIONS

    files = []
    for path in given:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.name.startswith("."))
            if not found:
                raise InputError(f"{path} holds no pictures ({', '.join(EXTENSIONS)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; expected a picture or a folder of pictures")
    if not files:
        raise InputError("name at least one picture: botformer predict IMAGE... --checkpoint RUN")
    return files


def _drawings(files: Sequence[Path], out: Path) -> list[Path]:
    """A PNG for each file, numbered where several have the same name; never one of the pictures themselves."""
    taken = {file.resolve() for file in files}
    drawings = []
    for file in files:
        names = (f"{file.stem}.prediction{number}.png" for number in ("", *(f"-{n}" for n in range(2, len(files) + 2))))
        drawing = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(drawing.resolve())
        drawings.append(drawing)
    return drawings
