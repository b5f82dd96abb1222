"""Key points of a COCO file: their names and skeleton, those of an annotation, and which of them a flip exchanges."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from botformer.data.mirrored_names import mirrored_names
from botformer.errors import InputError

log = logging.getLogger("botformer.data")

Keypoints = tuple[tuple[float, float, int], ...]
"""(x, y, v) of each point, as COCO has them: x and y count pixels from 0, so that the middle of a pixel is half a pixel
further in the coordinates of boxes; v is 0 (not labelled), 1 (labelled, but hidden) or 2 (visible)."""

PIXEL_MIDDLE = 0.5
"""From COCO's coordinates of key points, which name a pixel, to those of boxes, which measure from the image's edge."""


class KeypointLayout(NamedTuple):
    """The key points that every object of a data set has."""

    names: tuple[str, ...] = ()
    """None: the objects have no key points."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """Pairs of places in `names`, from 0 (COCO's file counts from 1): the limbs to draw."""


NO_KEYPOINTS = KeypointLayout()


def keypoint_layout(categories: Sequence[Mapping[str, Any]], where: str) -> KeypointLayout:
    """What the categories of a COCO file say of their key points; an empty layout where none names any.

    Raises:
        InputError: the names are none, or categories have different ones.
    """
    names = {record["name"]: _names(record, where) for record in categories}
    if not any(names.values()):
        return NO_KEYPOINTS
    first = next(name for name, points in names.items() if points)
    for name, points in names.items():
        if points != names[first]:
            raise InputError(
                f"{where}: a key point detector needs the same key points for every category, but {first!r} has "
                f"{_listed(names[first])} and {name!r} has {_listed(points)}; give all categories the same "
                "'keypoints', leave out the categories that lack them, or train one detector per kind of key points"
            )
    count = len(names[first])
    pairs = next((record["skeleton"] for record in categories if isinstance(record.get("skeleton"), list)), [])
    good = [pair for pair in pairs if _is_pair(pair, count)]
    if len(good) < len(pairs):
        log.warning(
            "%s: %d of %d pairs of the skeleton left out: each must be two numbers from 1 to %d",
            where, len(pairs) - len(good), len(pairs), count,
        )  # fmt: skip
    return KeypointLayout(names[first], tuple((a - 1, b - 1) for a, b in good))


def read_keypoints(record: Mapping[str, Any], count: int) -> tuple[Keypoints, int, str]:
    """The key points of an annotation, how many of them are labelled, and why they were left out, if they were.

    Where there are none, all are (0, 0, 0), not labelled. `num_keypoints` is the record's, or counted.
    """
    nothing: Keypoints = ((0, 0, 0),) * count
    values = record.get("keypoints")
    if values is None or values == []:
        return nothing, 0, ""
    if not isinstance(values, list) or len(values) != 3 * count:
        found = f"{len(values)} numbers" if isinstance(values, list) else f"a {type(values).__name__}"
        return nothing, 0, f"key points left out: {found}, not x, y, v of {count} points"
    if not all(map(_is_number, values)):
        return nothing, 0, "key points left out: not finite numbers"
    for place, v in enumerate(values[2::3]):
        if v not in (0, 1, 2):
            return nothing, 0, f"key points left out: v of point {place + 1} is {v!r}, not 0, 1 or 2"
    points = tuple(zip(values[0::3], values[1::3], map(int, values[2::3]), strict=True))
    said = record.get("num_keypoints")
    labelled = sum(v > 0 for _, _, v in points)
    return points, said if isinstance(said, int) and not isinstance(said, bool) else labelled, ""


def flip_indices(names: Sequence[str], pairs: Sequence[Sequence[str]] = ()) -> list[int]:
    """For each key point the place of the one that stands there after a flip from left to right; most often itself.

    `pairs` of names are exchanged; where none are given, those whose names differ in nothing but left and right:
    left_eye and right_eye, "ear left", LeftHand, frontLeftPaw, lefteye, l_knee, hand.R, wingL1. What has no partner
    stays.

    Raises:
        InputError: a pair names a point that is not there.
    """
    places = {name: place for place, name in enumerate(names)}
    partner = {}
    for pair in pairs:
        for name in pair:
            if name not in places or len(pair) != 2:
                raise InputError(
                    f"images.keypoint_pairs has ({', '.join(pair)}); expected pairs of the key points "
                    f"{', '.join(names)}"
                )
        partner |= {pair[0]: pair[1], pair[1]: pair[0]}
    if not pairs:
        lower = {name.lower(): name for name in names}
        by_name = {
            name: next((lower[each] for each in mirrored_names(name) if each in lower), name) for name in lower.values()
        }
        partner = {name: other for name, other in by_name.items() if by_name[other] == name}
    return [places[partner.get(name, name)] for name in names]


def _names(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = record.get("keypoints") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(
            f"{where}: 'keypoints' of the category {record['name']!r} must be a list of different names, got "
            f"{str(names)[:200]}"
        )
    return tuple(names)


def _is_pair(pair: Any, count: int) -> bool:
    return (
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, int) and 1 <= each <= count for each in pair)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # NaN is not


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
