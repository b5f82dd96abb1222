"""What a detector predicts on images: objects, and where its attention looks from one of them."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from botformer.backbone.attention_maps import attention_maps
from botformer.backbone.mhsa import MHSA2d
from botformer.create.tile_and_flip import flip_of, with_tile
from botformer.data.detection.keypoints import KeypointLayout
from botformer.data.detection.object_sizes import say_small_objects
from botformer.data.detection.transforms import fitting_transform
from botformer.data.image_io import BadImage, EncodedImage
from botformer.detection import Detector
from botformer.detection.evaluation.coco_eval import coco_results
from botformer.detection.flip_augmentation import Flip
from botformer.detection.rle_masks import RLEMasks
from botformer.detection.sliced_inference import Tiling
from botformer.detection.task import detect, padded_images
from botformer.errors import InputError
from botformer.plots import draw_detections as plots
from botformer.predict.coco_ids import IdAndSize, image_ids
from botformer.predict.files import IMAGES, PREDICTIONS, Predictions, drawing_files, read_image
from botformer.recipes.schema import NO_TILED_KEYPOINTS, DetectionImages

log = logging.getLogger("botformer.predict")

_LARGEST_DRAWN_PX = 3200
"""An image with a longer side is drawn smaller by a whole factor."""
_MUCH_SMALLER = 4
"""From this factor on, what was not found on an image may have been too small on the network's canvas."""


class DetectionResult(TypedDict):
    """The objects on one image, best first, in its pixels."""

    boxes: Tensor
    """(n, 4) xyxy."""
    labels: Tensor
    """(n,) from 1."""
    scores: Tensor
    """(n,) from 0 to 1."""
    masks: NotRequired[list[dict[str, Any]]]
    """n masks in COCO's run-length encoding, of a Mask R-CNN."""
    keypoints: NotRequired[Tensor]
    """(n, keypoints, 3), of a Keypoint R-CNN."""
    keypoints_scores: NotRequired[Tensor]
    """(n, keypoints)."""


@dataclass(frozen=True)
class PredictOptions:
    threshold: float = 0.5
    """Least score of the detections that are drawn and counted."""
    tile: int | None = None
    """Side in px of the tiles into which larger images are cut; 0: the whole image at once; None: what the network was
    trained for (`images.tile`)."""
    flip: bool = False
    """Detect on the mirror image too, and average."""
    attention: bool = False
    """Whether to draw where the attention layers look from one detection."""
    detection: int = 0
    """Which one: 0 is the best."""
    annotations: Path | None = None
    """A COCO file that gives the images their ids."""


@dataclass(frozen=True)
class ImageSummary:
    """One image and what was detected on it, in a few words."""

    file: Path
    counts: dict[str, int]
    """Category -> detections with at least the threshold, the most frequent first."""
    best: float | None
    """The highest score; None where nothing was detected."""
    note: str = ""


def detect_image(
    model: Detector,
    image: Image.Image | EncodedImage,
    canvas: int,
    tile: int = 0,
    on_progress: Callable[[float], object] = lambda fraction: None,
    flip: Flip | None = None,
) -> DetectionResult:
    """All detections on one RGB image, decoded or not.

    Args:
        canvas: side in px of the square on which the network sees the image, as in an evaluation.
        tile: side in px of the tiles into which a larger image is cut, each then seen like an image of its own; 0: the
            whole image at once.
        on_progress: called with the fraction of the image that is done.
        flip: detect on the mirror image too.
    """
    with torch.inference_mode():
        tiling = Tiling((image.height, image.width), tile) if tile else None
        if tiling is None or len(tiling.tiles) == 1:
            (found,) = detect(model, _batch(model, image, canvas), flip)
            return cast(DetectionResult, found)
        whole = image.by_pillow() if isinstance(image, EncodedImage) else image
        parts = []
        for number, part in enumerate(tiling.tiles, 1):
            parts += detect(model, _batch(model, whole.crop(part), canvas), flip)
            on_progress(number / len(tiling.tiles))
        return cast(DetectionResult, tiling.merge(parts))


def attention_of(
    model: Detector, image: Image.Image, canvas: int, box_xyxy: Sequence[float]
) -> list[tuple[str, np.ndarray]]:
    """Where each attention layer looks from the centre of a box (in pixels of the image), heads averaged.

    Returns names and weights (h, w) over the image as the network sees it, which add up to 1. What a layer without a
    padding mask spends on the padding beside the image is left out.
    """
    transform = fitting_transform(image.size, canvas)
    (scale_x, scale_y), (height, width) = transform.scale, transform.extent
    x1, y1, x2, y2 = box_xyxy
    centre = ((y1 + y2) / 2 * scale_y / canvas, (x1 + x2) / 2 * scale_x / canvas)
    pixels = padded_images(_batch(model, image, canvas)).pixels[0, :, :height, :width]
    strides = cast(dict[str, int], model.backbone.strides)
    maps = []
    for name, heads in attention_maps(model, [pixels], centre):
        stride = next(s for s in sorted(strides.values()) if -(-canvas // s) == heads.shape[2])
        # A softmax over fewer cells is the same one, scaled: this is what a layer with a padding mask computes.
        cells = heads[:, :, : -(-height // stride), : -(-width // stride)].float()
        cells = (cells / cells.sum((2, 3), keepdim=True)).mean(1, keepdim=True)
        # The last cells may reach beyond the image.
        weights = F.interpolate(cells, scale_factor=stride, mode="bilinear")[0, 0, :height, :width]
        maps.append((name.removeprefix("backbone."), (weights / weights.sum()).cpu().numpy()))
    return maps


def to_draw(
    image: Image.Image,
    found: DetectionResult,
    chosen: Sequence[int],
    categories: Sequence[tuple[int, str]],
    skeleton: Sequence[tuple[int, int]] = (),
) -> plots.Shown:
    """Some detections, by their places in `found`, as `plots.detections` draws them; a large image becomes smaller."""
    factor = -(-max(image.size) // _LARGEST_DRAWN_PX)
    drawn = np.asarray(image.reduce(factor))
    masks, keypoints = found.get("masks"), None
    if "keypoints" in found:
        keypoints = found["keypoints"].cpu().numpy()[list(chosen)] / (factor, factor, 1)
        keypoints[..., 2] = 2  # a detector does not know what is hidden: all of its points are drawn alike
    return plots.Shown(
        image=drawn,
        boxes=found["boxes"].cpu().numpy().reshape(-1, 4)[list(chosen)] / factor,
        names=[categories[int(found["labels"][index]) - 1][1] for index in chosen],
        scores=found["scores"].cpu().numpy()[list(chosen)],
        masks=None if masks is None else RLEMasks([masks[index] for index in chosen], drawn.shape[:2], factor),
        keypoints=keypoints,
        skeleton=skeleton,
    )


def predict_files(
    model: Detector,
    model_config: Mapping[str, Any],
    files: Sequence[Path],
    out: Path,
    options: PredictOptions,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> tuple[list[ImageSummary], dict[Path, str]]:
    """Detect objects on every file, draw them, and write predictions.json (COCO's results) and images.json; all into
    the folder `out`.

    `on_progress` is called with the fraction of the files that are done.

    Returns:
        A summary of each image, and the files that could not be read with the reason.

    Raises:
        InputError: options that do not fit the network or the files.
    """
    if options.attention and not any(isinstance(module, MHSA2d) for module in model.modules()):
        raise InputError(f"{model_config['model']} has no attention layers to draw; leave --attention out")
    if options.tile and model.kind == "keypoint_rcnn":
        raise InputError(f"{NO_TILED_KEYPOINTS}; leave --tile out")
    written = [(out / name).resolve() for name in (PREDICTIONS, IMAGES)]
    if options.annotations and options.annotations.resolve() in written:
        raise InputError(f"{options.annotations} would be overwritten; name another --out")
    images = with_tile(DetectionImages(**model_config["images"]), 0 if options.attention else options.tile)
    if options.attention and model_config["images"].get("tile"):
        log.info("attention is drawn over the whole image, which is not cut into tiles for it")
    flip = flip_of(model_config) if options.flip else None
    categories = [(number, name) for number, name in model_config["categories"]]
    layout = KeypointLayout(tuple(model_config.get("keypoint_names", ())), _pairs(model_config.get("skeleton", ())))
    ids, categories, annotated = image_ids(files, categories, options.annotations)
    if annotated is not None:
        say_small_objects(annotated, images.canvas, images.tile)
    drawings, attention_drawings = (drawing_files(files, out, kind) for kind in ("prediction", "attention"))
    out.mkdir(parents=True, exist_ok=True)
    summaries: list[ImageSummary] = []
    predictions = Predictions(categories, layout)
    for number, (file, known) in enumerate(zip(files, ids, strict=True)):
        on_progress(number / len(files))
        try:
            image, encoded = read_image(file, images.max_megapixels)
            _check_size(file, image, known)
        except BadImage as error:
            predictions.unreadable[file] = error.reason
            continue
        found = detect_image(
            model,
            encoded,
            images.canvas,
            images.tile,
            on_progress=lambda fraction, number=number: on_progress((number + fraction) / len(files)),
            flip=flip,
        )
        predictions.records.extend(coco_results(found, known.id, categories))
        predictions.add_image(known.id, file, image, drawings[number])
        scores = found["scores"].tolist()
        shown = to_draw(
            image,
            found,
            [i for i, score in enumerate(scores) if score >= options.threshold],
            categories,
            layout.skeleton,
        )
        plots.draw_detections(shown, drawings[number])
        note = _shrunk(image, images.canvas) if not shown.names and not images.tile else ""
        if options.attention and options.detection >= len(scores):
            note = f"no detection {options.detection}, so no attention"
        elif options.attention:
            box = found["boxes"][options.detection].tolist()
            one, maps = (
                to_draw(image, found, [options.detection], categories, layout.skeleton),
                attention_of(model, image, images.canvas, box),
            )
            plots.draw_detection_attention(one, 0, maps, attention_drawings[number])
        counts = dict(Counter(shown.names).most_common())
        summaries.append(ImageSummary(file, counts, max(scores, default=None), note))
    predictions.write(out)
    return summaries, predictions.unreadable


def _shrunk(image: Image.Image, canvas: int) -> str:
    """Why nothing may have been found on a large image."""
    factor = max(image.size) / canvas
    return f"seen {factor:.0f} times smaller: try --tile" if factor >= _MUCH_SMALLER else ""


def _pairs(skeleton: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a, b in skeleton)


def _check_size(file: Path, image: Image.Image, known: IdAndSize) -> None:
    """As in an evaluation, where the annotated boxes would not fit."""
    if known.size_px is not None and image.size != known.size_px:
        (width, height), (known_width, known_height) = image.size, known.size_px
        raise BadImage(
            file.name,
            f"is {width}x{height} pixels upright, its record (image id {known.id}) says {known_width}x{known_height}",
        )


def _batch(model: Detector, image: Image.Image | EncodedImage, canvas: int) -> dict[str, Any]:
    """One image as an evaluation batch brings it."""
    transform = fitting_transform(image.size, canvas)
    pixels = transform.draw(image)[None].to(next(model.parameters()).device)
    return {
        "images": pixels,
        "targets": [{"size": transform.extent, "original_size": (image.height, image.width)}],
    }
