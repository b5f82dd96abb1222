"""Object key point similarity (OKS): how near detected key points come to those of an object, from 0 to 1.

OKS = mean over the object's labelled points of exp(-d^2 / (2 area (2 sigma)^2)), as pycocotools computes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from botformer.errors import InputError

_COCO = {
    "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035, "right_ear": 0.035,
    "left_shoulder": 0.079, "right_shoulder": 0.079, "left_elbow": 0.072, "right_elbow": 0.072,
    "left_wrist": 0.062, "right_wrist": 0.062, "left_hip": 0.107, "right_hip": 0.107,
    "left_knee": 0.087, "right_knee": 0.087, "left_ankle": 0.089, "right_ankle": 0.089,
}  # fmt: skip
"""Of a person, in COCO's order."""

DEFAULT_SIGMA = 0.05
"""Of a point that is not one of COCO's: between an eye's and a wrist's."""


def keypoint_sigmas(names: Sequence[str], given: Sequence[float] = ()) -> np.ndarray:
    """float64 (K,): those that are given, COCO's for COCO's names, else `DEFAULT_SIGMA` for every point.

    Raises:
        InputError: not one per point, or not above 0.
    """
    if given:
        if len(given) != len(names) or min(given) <= 0:
            raise InputError(
                f"keypoint_sigmas are {', '.join(map(str, given))}; expected one above 0 for each of the {len(names)} "
                f"key points {', '.join(names)}"
            )
        return np.array(given, dtype=np.float64)
    if list(names) == list(_COCO):
        return np.array(list(_COCO.values()))
    return np.full(len(names), DEFAULT_SIGMA)


def object_keypoint_similarity(
    found: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]], sigmas: np.ndarray
) -> np.ndarray:
    """OKS (n, m) of n results with m annotations in COCO's form.

    An annotation without labelled points stands for its surroundings: points within its box, enlarged by its size on
    every side, are at no distance.
    """
    similarity = np.zeros((len(found), len(truth)))
    if not len(found) or not len(truth):
        return similarity
    points = np.array([record["keypoints"] for record in found], dtype=np.float64).reshape(len(found), -1, 3)[..., :2]
    variances = (2 * sigmas) ** 2
    for place, record in enumerate(truth):
        target = np.array(record["keypoints"], dtype=np.float64).reshape(-1, 3)
        labelled = target[:, 2] > 0
        if labelled.any():
            offset = (points - target[:, :2])[:, labelled]
        else:
            x, y, w, h = record["bbox"]
            low, high = np.array([x - w, y - h]), np.array([x + 2 * w, y + 2 * h])
            offset = np.maximum(low - points, 0) + np.maximum(points - high, 0)
            labelled = np.ones(len(sigmas), dtype=bool)
        exponent = (offset**2).sum(-1) / variances[labelled] / (record["area"] + np.spacing(1)) / 2
        similarity[:, place] = np.exp(-exponent).mean(1)
    return similarity


def keypoints_area(keypoints: Sequence[float]) -> float:
    """Of the box around the points of a result [x, y, v, ...]: what decides whether it is medium or large."""
    x, y = keypoints[0::3], keypoints[1::3]
    return (max(x) - min(x)) * (max(y) - min(y))
