"""What classifiers say about images: the best classes, and the attention from one place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CENTRE = (0.5, 0.5)


def predict_images(
    model: Any,
    model_config: dict[str, Any],
    places: Sequence[tuple[Path, Path]],
    out: Path,
    query: tuple[float, float] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Predict every (file, drawing), draw it, and write OUT/predictions.json.

    Returns the entries of that file, {"file", "top5": [[name, probability], ...], "drawing"}, and the files that could
    not be read with the reason; they are in that file too, as {"file", "unreadable": reason}.
    """
    import json

    from rich.console import Console
    from rich.progress import track

    from botformer.data.image_io import BadImage
    from botformer.plots.top5 import draw_prediction

    out.mkdir(parents=True, exist_ok=True)
    results, bad = [], {}
    for file, drawing in track(places, "predicting", console=Console(stderr=True), transient=True):
        try:
            prediction = look_at(model, model_config, file, query or CENTRE)
        except BadImage as error:
            bad[str(file)] = error.reason
            continue
        draw_prediction(**vars(prediction) | {"out": drawing})
        top5 = [[name, round(p, 6)] for name, p in zip(prediction.names, prediction.probabilities, strict=True)]
        results.append({"file": str(file), "top5": top5, "drawing": drawing.name})
    entries = [*results, *({"file": file, "unreadable": reason} for file, reason in bad.items())]
    (out / "predictions.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results, bad


def look_at(model: Any, model_config: dict[str, Any], file: Path, query: tuple[float, float]) -> Any:
    """The `images.predictions.Prediction` of one file: top 5 and the attention of every layer, heads averaged."""
    import torch

    from botformer.backbone.attention_maps import attention_maps
    from botformer.data.classification.transforms import evaluation_transform
    from botformer.data.image_io import decode
    from botformer.image_normalization import normalize_bytes
    from botformer.plots.top5 import Prediction
    from botformer.recipes.schema import Images

    images = Images(**model_config["images"])
    pixels = evaluation_transform(images)(decode(file, file.name, images.max_megapixels))
    batch = normalize_bytes(pixels[None].to(next(model.parameters()).device))
    with torch.inference_mode():
        best = model(batch)[0].float().softmax(-1).topk(min(5, len(model_config["class_names"])))
    return Prediction(
        image=pixels.permute(1, 2, 0).numpy(),
        names=[model_config["class_names"][index] for index in best.indices.tolist()],
        probabilities=best.values.tolist(),
        attention=[(name, heads[0].mean(0).cpu().numpy()) for name, heads in attention_maps(model, batch, query)],
        query_yx=(query[0] * (images.size - 1), query[1] * (images.size - 1)),
    )


def summary(results: Sequence[dict[str, Any]]) -> Any:
    """The entries of `predict_images` as a table for the screen."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("image", "best", "", "then"):
        table.add_column(header, overflow="fold")
    for result in results:
        (name, probability), *others = result["top5"]
        then = ", ".join(f"{other} {p:.1%}" for other, p in others[:3])
        table.add_row(escape(result["file"]), escape(name), f"{probability:.1%}", escape(then))
    return table
