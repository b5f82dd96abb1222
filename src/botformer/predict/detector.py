"""What detectors find on images: drawings, COCO's results, and where the attention looks from one object."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from botformer.errors import InputError

_LARGEST_DRAWN_PX = 3200
"""A drawing has fewer; an image with a longer side is drawn smaller by a whole factor."""
_LISTED = 5


@dataclass(frozen=True)
class PredictOptions:
    threshold: float = 0.5
    """Least score of what is drawn."""
    tile: int | None = None
    """Side in px of the windows through which larger images are seen; None: all at once."""
    attention: bool = False
    """Whether to draw where the attention looks from one detection."""
    detection: int = 0
    """Which one, from the best."""
    annotations: Path | None = None
    """A COCO file that gives the images their ids."""


@dataclass(frozen=True)
class ImageSummary:
    """An image and what was found on it, in a few words."""

    file: Path
    counts: dict[str, int]
    """Category -> detections with at least the threshold."""
    best: float | None
    """The highest score; None where nothing was found."""
    note: str = ""


def predict_images(
    model: Any,
    model_config: dict[str, Any],
    places: Sequence[tuple[Path, Path, Path]],
    out: Path,
    wanted: PredictOptions,
) -> tuple[list[ImageSummary], dict[str, str]]:
    """Detect on every (file, drawing, drawing of the attention), draw it, and write two files in COCO's form.

    OUT/predictions.json holds all detections, as results; OUT/images.json the records of images and categories that
    they refer to, and under "unreadable" the files that could not be read.

    Returns what was seen, and the files that could not be read with the reason.
    """
    import json

    from rich.console import Console
    from rich.progress import Progress

    from botformer.backbone.mhsa import MHSA2d
    from botformer.data.detection.coco_writer import coco_layout
    from botformer.data.detection.keypoints import KeypointLayout
    from botformer.data.image_io import BadImage, decode
    from botformer.detection.evaluation.coco_eval import coco_results
    from botformer.plots.detections import draw_detection_attention, draw_detections
    from botformer.recipes.schema import DetectionImages

    if wanted.attention and not any(isinstance(module, MHSA2d) for module in model.modules()):
        raise InputError(f"{model_config['model']} has no attention layers to be shown; leave --attention out")
    if wanted.tile is not None and model_config["detector"] == "keypoint_rcnn":
        raise InputError("key points of objects that lie in several tiles cannot be joined; leave --tile out")
    layout = KeypointLayout(tuple(model_config.get("keypoint_names", ())), tuple(model_config.get("skeleton", ())))
    results_file, images_file = out / "predictions.json", out / "images.json"
    if wanted.annotations and wanted.annotations.resolve() in (results_file.resolve(), images_file.resolve()):
        raise InputError(f"{wanted.annotations} would be overwritten; name another --out")
    images = DetectionImages(**model_config["images"])
    records = _records([file for file, _, _ in places], model_config["categories"], wanted.annotations)
    out.mkdir(parents=True, exist_ok=True)
    seen: list[ImageSummary] = []
    results: list[dict[str, Any]] = []
    read: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("predicting", total=len(places))
        for number, ((file, drawing, attention), record) in enumerate(zip(places, records, strict=True)):
            progress.update(bar, completed=number)
            try:
                image = decode(file, file.name, images.max_megapixels)
                _check_size(file, image, record)
            except BadImage as error:
                bad[str(file)] = error.reason
                continue
            found = find(model, image, images.canvas, wanted.tile, lambda share: progress.advance(bar, share))
            results += coco_results(found, record.id, model_config["categories"])
            read.append(
                {"id": record.id, "file_name": file.as_posix(), "width": image.width, "height": image.height}
                | {"drawing": drawing.name}
            )
            chosen = [index for index, score in enumerate(found["scores"].tolist()) if score >= wanted.threshold]
            shown = _shown(image, found, chosen, model_config["categories"], layout.skeleton)
            draw_detections(shown, drawing)
            note = ""
            if wanted.attention and wanted.detection >= len(found["scores"]):
                note = f"no detection {wanted.detection}, so no attention"
            elif wanted.attention:
                looking = _shown(image, found, [wanted.detection], model_config["categories"], layout.skeleton)
                maps = attention_of(model, image, images.canvas, found["boxes"][wanted.detection].tolist())
                draw_detection_attention(looking, 0, maps, attention)
            best = max(found["scores"].tolist(), default=None)
            seen.append(ImageSummary(file, dict(Counter(shown.names).most_common()), best, note))
    said = {
        "images": read,
        "categories": [
            {"id": number, "name": name} | coco_layout(layout) for number, name in model_config["categories"]
        ],
        "unreadable": [{"file_name": Path(file).as_posix(), "reason": reason} for file, reason in bad.items()],
    }
    results_file.write_text(json.dumps(results) + "\n", encoding="utf-8")
    images_file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return seen, bad


def find(
    model: Any, image: Any, canvas: int, tile: int | None = None, on_window: Callable[[float], Any] = lambda _: None
) -> dict[str, Any]:
    """All a detector finds on an image (Pillow's, RGB), best first, in its pixels.

    The image comes onto a canvas of so many pixels a side just as in an evaluation. With `tile`, parts of it do, if
    it is larger than that. `on_window` is called after each part with its share of the whole.

    Returns `boxes` (n, 4) xyxy, `labels` (n,) from 1, `scores` (n,) and, by the kind of detector, `masks`, run lengths,
    or `keypoints` (n, K, 3) x, y, 1.
    """
    import torch

    from botformer.detection.sliced_inference import Tiling
    from botformer.detection.task import detect

    with torch.inference_mode():
        if tile is None:
            (found,) = detect(model, _batch(model, image, canvas))
            on_window(1)
            return found
        tiling = Tiling((image.height, image.width), tile)
        parts = []
        for window in tiling.windows:
            parts += detect(model, _batch(model, image.crop(window), canvas))
            on_window(1 / len(tiling.windows))
        return tiling.unite(parts)


def attention_of(model: Any, image: Any, canvas: int, box_xyxy: Sequence[float]) -> list[tuple[str, Any]]:
    """Where each attention layer looks from the centre of a box (in pixels of the image), heads averaged.

    Returns names and weights (h, w), which add up to 1 over the pixels of the image as it lies on its canvas. What
    goes to the padding beside it, where a layer is not told of that, is left out.
    """
    from torch.nn import functional as F

    from botformer.backbone.attention_maps import attention_maps
    from botformer.data.detection.transforms import fitting_transform
    from botformer.detection.task import padded_images

    transform = fitting_transform(image.size, canvas)
    (scale_x, scale_y), (height, width) = transform.scale, transform.extent
    x1, y1, x2, y2 = box_xyxy
    centre = ((y1 + y2) / 2 * scale_y / canvas, (x1 + x2) / 2 * scale_x / canvas)
    padded = padded_images(_batch(model, image, canvas))
    maps = []
    for name, heads in attention_maps(model, [padded.pixels[0, :, :height, :width]], centre):
        stride = next(s for s in sorted(model.backbone.strides.values()) if -(-canvas // s) == heads.shape[2])
        # A softmax over fewer cells is the same one, scaled: this makes it what a layer does that is told of padding.
        cells = heads[:, :, : -(-height // stride), : -(-width // stride)].float()
        cells = (cells / cells.sum((2, 3), keepdim=True)).mean(1, keepdim=True)
        # The last cells may reach beyond the image.
        weights = F.interpolate(cells, scale_factor=stride, mode="bilinear")[0, 0, :height, :width]
        maps.append((name.removeprefix("backbone."), (weights / weights.sum()).cpu().numpy()))
    return maps


def summary(seen: Sequence[ImageSummary], threshold: float) -> Any:
    """What `predict_images` saw as a table for the screen."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("image", f"found (score {threshold:g} or more)", "best score", ""):
        table.add_column(header, overflow="fold")
    for image in seen:
        counts = ", ".join(f"{count} \N{MULTIPLICATION SIGN} {name}" for name, count in image.counts.items())
        best = "" if image.best is None else f"{image.best:.3f}"
        table.add_row(escape(str(image.file)), escape(counts or "nothing"), best, escape(image.note))
    return table


class _Record(NamedTuple):
    id: int
    size: tuple[int, int] | None
    """(width, height) where somebody says so."""


def _records(files: Sequence[Path], categories: Sequence[Any], annotations: Path | None) -> list[_Record]:
    """An id for each file: 1, 2, ..., or that of the COCO file's image whose name the file's path ends in."""
    if annotations is None:
        return [_Record(number, None) for number, _ in enumerate(files, 1)]
    from botformer.data.detection.coco_reader import open_coco

    source = open_coco(annotations, annotations.parent)
    theirs, ours = [list(category) for category in source.categories], [list(category) for category in categories]
    if theirs != ours:
        raise InputError(
            f"{annotations} has the categories {_some(theirs)}, the network knows {_some(ours)} (id name); they must "
            "be the same for scores to mean anything"
        )
    known = {record.file: record for record in map(source.image, range(len(source)))}
    matches = [_longest_match(file, known) for file in files]
    strangers = [str(file) for file, match in zip(files, matches, strict=True) if match is None]
    if strangers:
        raise InputError(f"{annotations} does not name {_some(strangers)}; leave out these files, or --annotations")
    records = [known[match] for match in matches if match is not None]
    twice = [file for file, count in Counter(record.file for record in records).items() if count > 1]
    if twice:
        raise InputError(f"several files are {_some(twice)} of {annotations}; name one of each")
    return [_Record(record.id, (record.width, record.height)) for record in records]


def _longest_match(file: Path, known: Mapping[str, Any]) -> str | None:
    parts = file.absolute().parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if name in known), None)


def _check_size(file: Path, image: Any, record: _Record) -> None:
    """An evaluation leaves out what its boxes would not fit, too."""
    from botformer.data.image_io import BadImage

    if record.size is not None and image.size != record.size:
        (width, height), (said_width, said_height) = image.size, record.size
        raise BadImage(
            file.name,
            f"is {width}x{height} pixels upright, its record (image id {record.id}) says {said_width}x{said_height}",
        )


def _batch(model: Any, image: Any, canvas: int) -> dict[str, Any]:
    """One image as an evaluation batch brings it."""
    from botformer.data.detection.transforms import fitting_transform

    transform = fitting_transform(image.size, canvas)
    pixels = transform.draw(image)[None].to(next(model.parameters()).device)
    return {
        "images": pixels,
        "targets": [{"size": transform.extent, "original_size": (image.height, image.width)}],
    }


def _shown(
    image: Any,
    found: Mapping[str, Any],
    chosen: Sequence[int],
    categories: Sequence[Any],
    skeleton: Sequence[Any] = (),
) -> Any:
    """Some detections as `images.detections` draws them, on an image that is not too large for a drawing."""
    import numpy as np

    from botformer.plots.detections import Shown

    factor = -(-max(image.size) // _LARGEST_DRAWN_PX)
    boxes = found["boxes"].cpu().numpy().reshape(-1, 4)[list(chosen)]
    drawn = np.asarray(image.reduce(factor))
    keypoints = None
    if "keypoints" in found:
        keypoints = found["keypoints"].cpu().numpy()[list(chosen)] / (factor, factor, 1)
        keypoints[..., 2] = 2  # a detector does not know what is hidden: all of its points are drawn alike
    return Shown(
        image=drawn,
        boxes=boxes / factor,
        names=[categories[found["labels"][index] - 1][1] for index in chosen],
        scores=found["scores"].cpu().numpy()[list(chosen)],
        masks=_Masks([found["masks"][i] for i in chosen], boxes, drawn.shape[:2], factor) if "masks" in found else None,
        keypoints=keypoints,
        skeleton=skeleton,
    )


@dataclass(frozen=True)
class _Masks(Sequence[Any]):
    """Masks (h, w) of an image that is drawn smaller by a factor, made one at a time."""

    runs: Sequence[Mapping[str, Any]]
    boxes_xyxy: Any
    size: tuple[int, int]
    """(h, w) of the drawing."""
    factor: int

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: Any) -> Any:
        import numpy as np

        from botformer.detection.sliced_inference import box_pixels, mask_at

        height, width = self.runs[index]["size"]
        mask = np.zeros(self.size, dtype=bool)
        rows, columns = box_pixels(self.boxes_xyxy[index] / self.factor, self.size)
        # The middle of each block of pixels stands for it.
        taken = (
            np.minimum(np.asarray(side, dtype=np.int64) * self.factor + self.factor // 2, longest - 1)
            for side, longest in ((rows, height), (columns, width))
        )
        mask[rows.start : rows.stop, columns.start : columns.stop] = mask_at(self.runs[index], *taken)
        return mask


def _some(names: Sequence[Any]) -> str:
    said = [name if isinstance(name, str) else " ".join(map(str, name)) for name in names[:_LISTED]]
    return ", ".join(said) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
