"""Key points of YOLO pose labels -> those of a COCO file."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botformer.data.detection.keypoints import flip_indices
from botformer.errors import InputError

log = logging.getLogger("botformer.data")

LIMIT = 10**6
"""Numbers of classes and of key points are below: a file may ask for more names than fit into memory."""

_COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
_COCO_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""Of COCO's persons: pairs counted from 1, as in its files."""


@dataclass(frozen=True)
class PoseLayout:
    """The key points of every object."""

    names: tuple[str, ...]
    values: int
    """Per point: x and y, or x, y and v."""
    skeleton: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def numbers(self) -> int:
        """Of a line, after the box."""
        return self.count * self.values

    def category(self) -> dict[str, Any]:
        """What a category of a COCO file says of them."""
        return {"keypoints": list(self.names), "skeleton": [list(pair) for pair in self.skeleton]}

    def record(self, numbers: Sequence[float], width: int, height: int) -> dict[str, Any]:
        """What an annotation of a COCO file says of them. `numbers` are fractions of the image, and v.

        The makers of YOLO divide COCO's coordinates by the size and add no half pixel; so none is taken off. Without
        v, points at (0, 0) or before are not labelled.
        """
        points: list[float] = []
        for start in range(0, len(numbers), self.values):
            x, y = numbers[start : start + 2]
            v = numbers[start + 2] if self.values == 3 else 2 * (min(x, y) >= 0 and max(x, y) > 0)
            points += [x * width, y * height, int(v) if v in (0, 1, 2) else v]
        return {"keypoints": points}


def pose_layout(said: Mapping[str, Any], where: str) -> PoseLayout | None:
    """From `kpt_shape`, `flip_idx` and `kpt_names` of a data.yaml; None where it has no `kpt_shape`.

    Flips follow the names of the points, so that points which `flip_idx` exchanges are called left and right where
    nobody names them. Seventeen points that are exchanged as COCO's are COCO's.

    Raises InputError where one of the three makes no sense.
    """
    shape = said.get("kpt_shape")
    if shape is None:
        return None
    numbers = [whole_number(value) for value in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or not numbers[0] or numbers[1] not in (2, 3):
        raise InputError(f"{where}: kpt_shape must be [number of key points, 2 or 3], got {shape!r}")
    count, values = numbers[0], numbers[1]
    flips = _flips(said.get("flip_idx"), count, where)
    names = _given_names(said.get("kpt_names"), count)
    if names is not None:
        if flips is not None and flip_indices(names) != flips:
            log.warning(
                "%s: flip_idx exchanges other key points than their names say; give images.keypoint_pairs", where
            )
        return PoseLayout(names, values)
    if flips is not None and count == len(_COCO_NAMES) and flip_indices(_COCO_NAMES) == flips:
        return PoseLayout(_COCO_NAMES, values, _COCO_SKELETON)
    if flips is None:
        log.info("%s: no flip_idx; where images are flipped, each of the %d key points stays itself", where, count)
        flips = list(range(count))
    return PoseLayout(tuple(_name(place, other) for place, other in enumerate(flips)), values)


def _name(place: int, other: int) -> str:
    """From 1. Which of a pair is left is not known; a flip exchanges them either way."""
    if place == other:
        return f"point_{place + 1}"
    first, second = sorted((place + 1, other + 1))
    return f"{'left' if place < other else 'right'}_{first}_{second}"


def _flips(value: Any, count: int, where: str) -> list[int] | None:
    if value is None or value == []:
        return None
    flips = [whole_number(each) for each in value] if isinstance(value, list) else []
    known = [each for each in flips if each is not None and each < count]
    if len(flips) != count or len(known) != count or any(known[known[place]] != place for place in range(count)):
        raise InputError(
            f"{where}: flip_idx must say for each of {count} key points which of them it becomes in a flipped image, "
            f"counted from 0; got {value!r}"
        )
    return known


def _given_names(value: Any, count: int) -> tuple[str, ...] | None:
    """A list, or one per class: all the same, or not used."""
    lists = list(value.values()) if isinstance(value, dict) else [value]
    first = lists[0] if lists else None
    if not isinstance(first, list) or any(each != first for each in lists):
        return None
    names = tuple(map(str, first))
    return names if len(set(names)) == len(names) == count else None


def whole_number(text: Any) -> int | None:
    """From 0, below `LIMIT`; None where the text says none, or is no text."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"\s*0*\d{1,6}\s*", text) else None
