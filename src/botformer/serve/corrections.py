"""What a person made of predictions on the page: the JSON of /corrections, checked against the images."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat

from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.drawn_shapes import box_around
from botformer.data.detection.keypoints import PIXEL_MIDDLE, KeypointLayout
from botformer.errors import InputError

_Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
_Polygon = Annotated[list[_Point], Field(min_length=3)]
_Side = Annotated[int, Field(ge=1, le=1_000_000)]


class CorrectedCategory(BaseModel):
    id: int
    name: str = Field(min_length=1)
    keypoints: list[str] = []
    skeleton: list[Annotated[list[int], Field(min_length=2, max_length=2)]] = []
    """Pairs of places in `keypoints`, from 0, as /networks has them."""


class CorrectedObject(BaseModel):
    """With polygons, or a box, or both: the box is then that around the polygons."""

    category_id: int
    polygons: list[_Polygon] = []
    box_xyxy: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)] | None = None
    keypoints: list[Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]] = []
    """x, y, v: v is 0 (not there), 1 (hidden) or 2."""


class CorrectedImage(BaseModel):
    name: str = Field(min_length=1)
    """As its file is called in the form."""
    width: _Side
    height: _Side
    label: str | None = None
    objects: list[CorrectedObject] = []


class Corrections(BaseModel):
    task: Literal["classification", "detection"]
    categories: list[CorrectedCategory] = []
    images: list[CorrectedImage] = Field(min_length=1)


def labels_of(corrections: Corrections) -> list[str]:
    """The class of each image. Raises `InputError` where one has none."""
    labels = []
    for image in corrections.images:
        if not image.label:
            raise InputError(f"the image {image.name!r} has no label; give each image one, or leave the image out")
        labels.append(image.label)
    return labels


def coco_records(corrections: Corrections) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The objects and the categories in COCO's form; images are numbered from 1. What reaches beyond an image is cut.

    Raises:
        InputError: an object of no category or without any part on its image, or ids or key points that do not fit.
    """
    layouts = {each.id: _layout(each) for each in corrections.categories}
    if len(layouts) < len(corrections.categories):
        raise InputError("two categories have the same id; give each its own")
    records = []
    for number, image in enumerate(corrections.images, 1):
        for place, found in enumerate(image.objects):
            where = f"object {place} of the image {image.name!r}"
            if found.category_id not in layouts:
                raise InputError(f"{where} has the category {found.category_id}, which is not among the categories")
            shape = _shape(found, image, where) | dict(_keypoints(found, layouts[found.category_id], where))
            records.append({"image_id": number, "category_id": found.category_id} | shape)
    categories = [{"id": each.id, "name": each.name} | coco_layout(layouts[each.id]) for each in corrections.categories]
    return records, categories


def _layout(category: CorrectedCategory) -> KeypointLayout:
    pairs = [(first, second) for first, second in category.skeleton]
    if any(not 0 <= place < len(category.keypoints) for pair in pairs for place in pair):
        raise InputError(f"the skeleton of {category.name!r} names key points that it does not have; they count from 0")
    return KeypointLayout(tuple(category.keypoints), tuple(pairs))


def _shape(found: CorrectedObject, image: CorrectedImage, where: str) -> dict[str, Any]:
    def cut(x: float, y: float) -> tuple[float, float]:
        return min(max(x, 0.0), float(image.width)), min(max(y, 0.0), float(image.height))

    shape: dict[str, Any] = {}
    if found.polygons:
        shape["segmentation"] = [[side for x, y in polygon for side in cut(x, y)] for polygon in found.polygons]
        shape["bbox"] = box_around(shape["segmentation"])
    elif found.box_xyxy is not None:
        (x1, y1), (x2, y2) = cut(*found.box_xyxy[:2]), cut(*found.box_xyxy[2:])
        shape["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    else:
        raise InputError(f"{where} has neither polygons nor box_xyxy; give one of them")
    if not (shape["bbox"][2] > 0 and shape["bbox"][3] > 0):
        raise InputError(f"{where} covers nothing of its image of {image.width}x{image.height} px; remove or redraw it")
    return shape


def _keypoints(found: CorrectedObject, layout: KeypointLayout, where: str) -> Iterator[tuple[str, Any]]:
    if not found.keypoints:
        return
    if len(found.keypoints) != len(layout.names):
        raise InputError(
            f"{where} has {len(found.keypoints)} key points, and its category {len(layout.names)}; give all or none"
        )
    flat: list[float] = []
    for x, y, v in found.keypoints:
        if v not in (0, 1, 2):
            raise InputError(f"{where} has a key point with v {v:g}; expected 0 (not there), 1 (hidden) or 2")
        flat += [x - PIXEL_MIDDLE, y - PIXEL_MIDDLE, int(v)] if v else [0, 0, 0]
    yield "keypoints", flat
