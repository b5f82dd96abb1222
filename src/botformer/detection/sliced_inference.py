"""Large images in overlapping tiles, and the detections of the tiles merged into those of the image.

Nothing here is as large as the image: masks are run-length encoded and decoded only where a box lies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from botformer import rle
from botformer.errors import InputError
from botformer.recipes.schema import SMALLEST_TILE_PX
from botformer.tile_grid import Tile, tile_grid

_MARGIN = 64
"""A box that ends within a 64th of the side from a border counts as cut by it: detectors are not exact."""
_SAME = 0.5
"""From this overlap on two detections are one object: the fraction of the smaller one that the other covers, or of a
cut object in the region that two tiles share."""


@dataclass(frozen=True)
class Tiling:
    """An image of `size` (height, width) cut into tiles with sides of at most `tile_px`.

    Along a side that is longer than `tile_px` all tiles are `tile_px` long. An object of up to 7/32 of `tile_px` in
    width and height lies in some tile clear of the borders between tiles; larger ones are joined from their parts.
    """

    size: tuple[int, int]
    tile_px: int

    def __post_init__(self) -> None:
        if self.tile_px < SMALLEST_TILE_PX:
            raise InputError(f"a tile has a side of at least {SMALLEST_TILE_PX} px, got {self.tile_px}")

    @cached_property
    def tiles(self) -> list[Tile]:
        """Row by row."""
        return tile_grid(self.size, self.tile_px)

    def merge(self, found: Sequence[Mapping[str, Tensor | Any]]) -> dict[str, Any]:
        """The detections of each tile, in its pixels -> the detections of the image, in its pixels, best first.

        An object that a border between tiles cuts is left out if another tile shows it clear of such borders. The other
        cut objects of one category are joined where they agree in the region that their tiles share; the best score
        counts. Of two objects of one category from different tiles that overlap by half (of the smaller one if one is
        cut, else of their union), the better stays: one that is not cut before one that is, then the higher score, or
        among the cut ones the larger. An object that was detected only in the tile which cuts it is lost.

        Args:
            found: for each tile what a detector returns: `boxes` (n, 4) xyxy, `labels` (n,), `scores` (n,) and, if
                there are masks, `masks`, n in COCO's run-length encoding that lie within their boxes.

        Returns:
            The same of the image, on the CPU. With one tile, exactly its detections.
        """
        assert len(found) == len(self.tiles), (len(found), len(self.tiles))
        if len(found) == 1:
            return dict(found[0])
        pieces = [
            piece
            for number, (tile, objects) in enumerate(zip(self.tiles, found, strict=True))
            for piece in self._pieces(number, tile, objects)
        ]
        kept = _without_repetitions(sorted(self._joined(pieces), key=_Piece.rank))
        kept.sort(key=lambda piece: -piece.score)
        merged: dict[str, Any] = {
            "boxes": torch.tensor(np.array([piece.box_xyxy for piece in kept]).reshape(-1, 4), dtype=torch.float32),
            "labels": torch.tensor([piece.label for piece in kept], dtype=torch.int64),
            "scores": torch.tensor([piece.score for piece in kept], dtype=torch.float32),
        }
        if all("masks" in objects for objects in found):
            merged["masks"] = [piece.mask for piece in kept]
        return merged

    def _pieces(self, number: int, tile: Tile, objects: Mapping[str, Any]) -> "list[_Piece]":
        """What was detected in one tile, in pixels of the image, less what another tile shows better."""
        corner = np.array([tile.left, tile.top])
        boxes = objects["boxes"].detach().cpu().numpy().astype(np.float64).reshape(-1, 4) + np.tile(corner, 2)
        cut = ~self._is_clear(boxes, tile)
        elsewhere = np.zeros_like(cut)
        for other in self.tiles:
            if other != tile:
                elsewhere |= self._is_clear(boxes, other)
        pieces = []
        for index in np.flatnonzero(~(cut & elsewhere)):
            mask = None
            if "masks" in objects:
                size = tile.bottom - tile.top, tile.right - tile.left
                rows, columns = box_pixels(boxes[index] - np.tile(corner, 2), size)
                seen = mask_at(objects["masks"][index], rows, columns)
                start = (tile.top + rows.start, tile.left + columns.start)
                mask = rle.encode_window(seen, start, self.size)
            label, score = int(objects["labels"][index]), float(objects["scores"][index])
            pieces.append(_Piece(number, boxes[index], label, score, bool(cut[index]), mask))
        return pieces

    def _joined(self, pieces: "list[_Piece]") -> "list[_Piece]":
        """Cut pieces that go on in each other become one; the others stay as they are."""
        groups: list[list[_Piece]] = []
        for piece in pieces:
            if piece.is_cut:
                before = [any(self._goes_on(piece, other) for other in group) for group in groups]
                parts = [other for group, does in zip(groups, before, strict=True) if does for other in group]
                groups = [group for group, does in zip(groups, before, strict=True) if not does] + [[piece, *parts]]
        # Numbers of no tile: the joined ones may repeat what was detected in any tile.
        joined = [_join(group, -1 - number) if len(group) > 1 else group[0] for number, group in enumerate(groups)]
        return [piece for piece in pieces if not piece.is_cut] + joined

    def _goes_on(self, one: "_Piece", other: "_Piece") -> bool:
        """Whether two tiles show different parts of the same object: they agree in the region that both show."""
        if one.tile == other.tile or one.label != other.label:
            return False
        shared = _overlap(np.array(self.tiles[one.tile]), np.array(self.tiles[other.tile]))
        common = _common_px([one, other], shared)
        return common > 0 and common >= _SAME * max(_common_px([one], shared), _common_px([other], shared))

    def _is_clear(self, boxes_xyxy: np.ndarray, tile: Tile) -> np.ndarray:
        """(n,) bool: the box lies in the tile and ends well before those of its borders that cut the image."""
        height, width = self.size
        margin = self.tile_px / _MARGIN
        x1, y1, x2, y2 = boxes_xyxy.T
        clear = np.ones(len(boxes_xyxy), dtype=bool)
        for distance_px, is_inner in (
            (x1 - tile.left, tile.left > 0),
            (y1 - tile.top, tile.top > 0),
            (tile.right - x2, tile.right < width),
            (tile.bottom - y2, tile.bottom < height),
        ):
            if is_inner:
                clear &= distance_px >= margin
        return clear


@dataclass(frozen=True, eq=False)
class _Piece:
    """An object as it was detected in one tile, in pixels of the image."""

    tile: int
    box_xyxy: np.ndarray
    label: int
    score: float
    is_cut: bool
    mask: dict[str, Any] | None

    def rank(self) -> tuple[bool, float, int]:
        """Less is better."""
        return self.is_cut, -self.area_px if self.is_cut else -self.score, self.tile

    @cached_property
    def area_px(self) -> float:
        return _common_px([self], self.box_xyxy)


def mask_at(
    encoded: Mapping[str, Any], rows: Sequence[int] | np.ndarray, columns: Sequence[int] | np.ndarray
) -> np.ndarray:
    """bool (rows, columns): which of these pixels a mask covers. The rest is never decoded."""
    height = encoded["size"][0]
    ends = np.cumsum(rle.decode_counts(encoded["counts"]))
    pixels = np.asarray(columns, dtype=np.int64) * height + np.asarray(rows, dtype=np.int64)[:, None]
    # The runs outside are the first, the third, ...
    return np.searchsorted(ends, pixels, side="right") % 2 == 1


def box_pixels(box_xyxy: np.ndarray, size: Sequence[int]) -> tuple[range, range]:
    """Rows and columns of an image (height, width) that a box touches: a detector's mask covers none beyond."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    height, width = size
    rows = range(max(math.floor(y1), 0), max(min(math.ceil(y2), height), 0))
    return rows, range(max(math.floor(x1), 0), max(min(math.ceil(x2), width), 0))


def _overlap(one_xyxy: np.ndarray, other_xyxy: np.ndarray) -> np.ndarray:
    """(4,) xyxy; without area where they do not overlap."""
    return np.concatenate([np.maximum(one_xyxy[:2], other_xyxy[:2]), np.minimum(one_xyxy[2:], other_xyxy[2:])])


def _common_px(pieces: "Sequence[_Piece]", box_xyxy: np.ndarray) -> float:
    """Pixels of a box that all of the pieces cover."""
    for piece in pieces:
        box_xyxy = _overlap(box_xyxy, piece.box_xyxy)
    if (box_xyxy[:2] >= box_xyxy[2:]).any():
        return 0.0
    masks = [piece.mask for piece in pieces if piece.mask is not None]
    if not masks:
        return float(np.prod(box_xyxy[2:] - box_xyxy[:2]))
    pixels = box_pixels(box_xyxy, masks[0]["size"])
    return float(np.logical_and.reduce([mask_at(mask, *pixels) for mask in masks]).sum())


def _join(pieces: "Sequence[_Piece]", number: int) -> "_Piece":
    """One object of several pieces; `number` stands for its tile."""
    boxes = np.stack([piece.box_xyxy for piece in pieces])
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    masks = [piece.mask for piece in pieces if piece.mask is not None]
    mask = None
    if masks:
        size = masks[0]["size"]
        rows, columns = box_pixels(box, size)
        whole = np.logical_or.reduce([mask_at(mask, rows, columns) for mask in masks])
        mask = rle.encode_window(whole, (rows.start, columns.start), (size[0], size[1]))
    return _Piece(number, box, pieces[0].label, max(piece.score for piece in pieces), True, mask)


def _without_repetitions(pieces: "list[_Piece]") -> "list[_Piece]":
    """Of pieces, the best first, those that no better one of another tile and the same category repeats."""
    kept: list[_Piece] = []
    boxes = np.zeros((len(pieces), 4))
    origins = np.zeros((len(pieces), 2), dtype=np.int64)  # tile, label
    for piece in pieces:
        count = len(kept)
        x1, y1, x2, y2 = boxes[:count].T
        near = (x1 < piece.box_xyxy[2]) & (x2 > piece.box_xyxy[0]) & (y1 < piece.box_xyxy[3]) & (y2 > piece.box_xyxy[1])
        near &= (origins[:count, 0] != piece.tile) & (origins[:count, 1] == piece.label)
        if any(_is_same(piece, kept[index]) for index in np.flatnonzero(near)):
            continue
        boxes[count], origins[count] = piece.box_xyxy, (piece.tile, piece.label)
        kept.append(piece)
    return kept


def _is_same(one: _Piece, other: _Piece) -> bool:
    """Two whole objects must agree as a whole: a fragment that was taken for an object is not the object."""
    smaller = min(one.area_px, other.area_px)
    if smaller <= 0:
        return False
    common = _common_px([one, other], one.box_xyxy)
    is_cut = one.is_cut or other.is_cut
    return common >= _SAME * (smaller if is_cut else one.area_px + other.area_px - common)
