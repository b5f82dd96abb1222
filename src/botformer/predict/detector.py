"""A detector in a predictor: images as an evaluation prepares them -> objects, and where attention looks from one."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from botformer.backbone.attention_maps import attention_maps
from botformer.backbone.mhsa import MHSA2d
from botformer.create.tile_and_flip import flip_of, with_tile
from botformer.data.detection.keypoints import KeypointLayout
from botformer.data.detection.transforms import fitting_transform
from botformer.data.image_inputs import InputImage
from botformer.data.image_io import BadImage
from botformer.detection import Detector
from botformer.detection.rle_masks import RLEMasks
from botformer.detection.sliced_inference import Tiling
from botformer.detection.task import detect, padded_images
from botformer.errors import InputError
from botformer.plots import draw_detections as plots
from botformer.predict.own_copy import own_copy
from botformer.predict.results import AttentionMaps, DetectionResult, Unreadable
from botformer.recipes.schema import NO_TILED_KEYPOINTS, DetectionImages

log = logging.getLogger("botformer.predict")

_LARGEST_DRAWN_PX = 3200
"""An image with a longer side is drawn smaller by a whole factor."""
_TILES_AT_ONCE = 4


class Prepared(NamedTuple):
    """An image as the network sees it."""

    image: InputImage
    size_px: tuple[int, int]
    canvas: Tensor | None
    """uint8 (3, size, size); None of an image that comes in tiles, which are drawn a few at a time: all of a large
    image's would not fit into memory."""
    extent: tuple[int, int] = (0, 0)
    """(height, width) of the image on the canvas."""


class DetectorNetwork:
    """A detector on its device. It keeps nothing of one call for the next, so threads may share it.

    Args:
        threshold: least score of what is returned.
        tile: side in px of the tiles into which larger images are cut; 0: none; None: as the network was trained.
        flip: detect on mirror images too, and average, where the network was trained with such.
        compute: gives the context in which the network computes, such as one of mixed precision.

    Raises:
        InputError: tiles for key points, or a tile that is too small.
    """

    def __init__(
        self,
        model: Detector,
        model_config: Mapping[str, Any],
        *,
        threshold: float = 0.0,
        tile: int | None = None,
        flip: bool = False,
        compute: Callable[[], AbstractContextManager[object]] = torch.inference_mode,
    ) -> None:
        if tile and model.kind == "keypoint_rcnn":
            raise InputError(f"{NO_TILED_KEYPOINTS}; leave --tile out")
        images = with_tile(DetectionImages(**model_config["images"]), tile)
        self.model, self.canvas, self.max_megapixels = model, model.test_size, images.max_megapixels
        self.tile = images.tile
        self.category_ids: Sequence[int] = [number for number, _ in model_config["categories"]]
        self.names: Sequence[str] = [name for _, name in model_config["categories"]]
        pairs = tuple((first, second) for first, second in model_config.get("skeleton", ()))
        self.layout = KeypointLayout(tuple(model_config.get("keypoint_names", ())), pairs)
        self._threshold, self._compute = threshold, compute
        self.flip = flip_of(model_config) if flip else None

    @property
    def side(self) -> int:
        """The longer side of the canvas."""
        return max(self.canvas)

    def prepare(self, image: InputImage) -> Prepared:
        """Raises `BadImage`; of an image in tiles only for what its header shows."""
        with image.open() as opened:
            size_px = opened.width, opened.height
            if self.tile and len(Tiling((opened.height, opened.width), self.tile).tiles) > 1:
                return Prepared(image, size_px, None)
            transform = fitting_transform(size_px, self.canvas)
            return Prepared(image, size_px, transform.draw(opened), transform.extent)

    def run(
        self, prepared: Sequence[Prepared], on_progress: Callable[[float], object] = lambda images: None
    ) -> list[DetectionResult | Unreadable]:
        """One result each. `on_progress` is called with the number of images that are done, and after each few tiles
        of an image with the fraction of it."""
        results: dict[int, DetectionResult | Unreadable] = {}
        whole = [place for place, each in enumerate(prepared) if each.canvas is not None]
        if whole:
            sizes = [(prepared[place].extent, prepared[place].size_px) for place in whole]
            found = self._detect([cast(Tensor, prepared[place].canvas) for place in whole], sizes)
            results = {place: self._result(prepared[place], each) for place, each in zip(whole, found, strict=True)}
        for place, each in enumerate(prepared):
            if each.canvas is None:
                before = len(results)
                results[place] = self._in_tiles(each, lambda part, before=before: on_progress(before + part))
        return [results[place] for place in range(len(prepared))]

    def attention(self, image: InputImage, box_xyxy: Sequence[float]) -> AttentionMaps:
        return attention_of(own_copy(self.model), image.decode(), box_xyxy)

    def attends(self) -> bool:
        """Whether there is any attention to be drawn."""
        return any(isinstance(module, MHSA2d) for module in self.model.modules())

    def to_plot(self, result: DetectionResult, chosen: Sequence[int], image: Image.Image) -> plots.Shown:
        """Some detections on their image as `plots` draws them; a large image becomes smaller."""
        factor = -(-max(image.size) // _LARGEST_DRAWN_PX)
        drawn, keypoints = np.asarray(image.reduce(factor)), None
        if result.keypoints is not None:
            keypoints = result.keypoints[list(chosen)] / (factor, factor, 1)
            keypoints[..., 2] = 2  # a detector does not know what is hidden: all of its points are drawn alike
        masks = result.masks
        return plots.Shown(
            image=drawn,
            boxes=result.boxes_xyxy[list(chosen)] / factor,
            names=[result.names[index] for index in chosen],
            scores=result.scores[list(chosen)],
            masks=None if masks is None else RLEMasks([masks[index] for index in chosen], drawn.shape[:2], factor),
            keypoints=keypoints,
            skeleton=self.layout.skeleton,
        )

    def draw(self, result: DetectionResult, chosen: Sequence[int], out: Path | BinaryIO) -> None:
        plots.draw_detections(self.to_plot(result, chosen, result.image.decode()), out)

    def draw_attention(self, result: DetectionResult, detection: int, out: Path | BinaryIO) -> None:
        self.check_attention()
        image = result.image.decode()
        maps = attention_of(own_copy(self.model), image, result.boxes_xyxy[detection].tolist())
        plots.draw_detection_attention(self.to_plot(result, [detection], image), 0, maps, out)

    def check_attention(self) -> None:
        """Raises `InputError` for a network without attention layers."""
        if not self.attends():
            raise InputError("this network has no attention layers to draw; leave --attention out")

    def _detect(
        self, canvases: Sequence[Tensor], sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]]
    ) -> list[dict[str, Any]]:
        """Of each canvas (3, H, W) its (height, width) on it, and its (width, height) in pixels of the file."""
        pixels = torch.stack([canvas.permute(1, 2, 0) for canvas in canvases]).permute(0, 3, 1, 2)
        targets = [{"size": extent, "original_size": (height, width)} for extent, (width, height) in sizes]
        device = next(self.model.parameters()).device
        with self._compute():
            return detect(self.model, {"images": pixels.to(device), "targets": targets}, self.flip)

    def _in_tiles(self, prepared: Prepared, on_progress: Callable[[float], object]) -> DetectionResult | Unreadable:
        try:
            image = prepared.image.decode()
        except BadImage as error:
            return Unreadable(prepared.image.name, error.reason)
        tiling = Tiling((image.height, image.width), self.tile)
        found = []
        for first in range(0, len(tiling.tiles), _TILES_AT_ONCE):
            parts = [image.crop(tile) for tile in tiling.tiles[first : first + _TILES_AT_ONCE]]
            transforms = [fitting_transform(part.size, self.canvas) for part in parts]
            canvases = [transform.draw(part) for transform, part in zip(transforms, parts, strict=True)]
            sizes = [(transform.extent, part.size) for transform, part in zip(transforms, parts, strict=True)]
            found += self._detect(canvases, sizes)
            on_progress(len(found) / len(tiling.tiles))
        return self._result(prepared, tiling.merge(found))

    def _result(self, prepared: Prepared, found: Mapping[str, Any]) -> DetectionResult:
        arrays = {key: value.cpu().numpy() for key, value in found.items() if isinstance(value, Tensor)}
        result = DetectionResult(
            name=prepared.image.name,
            size_px=prepared.size_px,
            boxes_xyxy=arrays["boxes"].reshape(-1, 4),
            scores=arrays["scores"],
            labels=arrays["labels"],
            names=[str(self.names[label - 1]) for label in arrays["labels"].tolist()],
            masks=found.get("masks"),
            keypoints=arrays.get("keypoints"),
            keypoints_scores=arrays.get("keypoints_scores"),
            image=prepared.image,
            network=self,
        )
        return result.above(self._threshold) if self._threshold else result


def attention_of(model: Detector, image: Image.Image, box_xyxy: Sequence[float]) -> list[tuple[str, np.ndarray]]:
    """Where each attention layer looks from the centre of a box (in pixels of the image), heads averaged.

    Returns names and weights (h, w) over the image as the network sees it, which add up to 1. What a layer without a
    padding mask spends on the padding beside the image is left out.
    """
    transform = fitting_transform(image.size, model.test_size)
    (scale_x, scale_y), (height, width) = transform.scale, transform.extent
    x1, y1, x2, y2 = box_xyxy
    centre = ((y1 + y2) / 2 * scale_y / model.test_size[0], (x1 + x2) / 2 * scale_x / model.test_size[1])
    batch = {
        "images": transform.draw(image)[None].to(next(model.parameters()).device),
        "targets": [{"size": transform.extent}],
    }
    pixels = padded_images(batch).pixels[0, :, :height, :width]
    strides = cast(dict[str, int], model.backbone.strides)
    maps = []
    for name, heads in attention_maps(model, [pixels], centre):
        stride = next(s for s in sorted(strides.values()) if -(-model.test_size[0] // s) == heads.shape[2])
        # A softmax over fewer cells is the same one, scaled: this is what a layer with a padding mask computes.
        cells = heads[:, :, : -(-height // stride), : -(-width // stride)].float()
        cells = (cells / cells.sum((2, 3), keepdim=True)).mean(1, keepdim=True)
        # The last cells may reach beyond the image.
        weights = F.interpolate(cells, scale_factor=stride, mode="bilinear")[0, 0, :height, :width]
        maps.append((name.removeprefix("backbone."), (weights / weights.sum()).cpu().numpy()))
    return maps
