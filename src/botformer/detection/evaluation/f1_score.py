"""True and false positives and false negatives: detections matched with objects one to one, and what the counts give.

Matching is greedy, as in COCO: the best detection first, each takes the free object that it overlaps most, if that
is enough. Where objects do not overlap each other, an IoU above 1/2 is possible with one object only, so that no
matching, not the optimal one either, finds more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from botformer.detection.evaluation.oks import object_keypoint_similarity


class BestF1(NamedTuple):
    threshold: float
    """Least score of a detection that counts."""
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Matches:
    """Overlaps of n detections with m objects of one image and category."""

    scores: np.ndarray
    """(n,), best first."""
    ious: np.ndarray
    """(n, m)."""
    in_crowd: np.ndarray
    """(n,): greatest fraction of the detection that lies in one crowd; there it counts neither way."""

    @staticmethod
    def of(
        truth: list[dict[str, Any]],
        found: list[dict[str, Any]],
        kind: str,
        size: Sequence[int],
        most: int,
        sigmas: np.ndarray | None = None,
    ) -> "Matches":
        """Records in COCO's form of an image of (height, width); at most `most` detections, the best.

        For key points the overlap is the OKS with these `sigmas`, and an object without any counts like a crowd.
        """
        from faster_coco_eval import mask

        found = sorted(found, key=lambda record: -record["score"])[:most]
        ignored = [record["iscrowd"] or (kind == "keypoints" and not record["num_keypoints"]) for record in truth]
        objects = [record for record, skip in zip(truth, ignored, strict=True) if not skip]
        crowds = [record for record, skip in zip(truth, ignored, strict=True) if skip]
        height, width = size

        def shapes(records: list[dict[str, Any]]) -> Any:
            if kind == "box":
                return np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)
            return [mask.segmToRle(record["segmentation"], width, height) for record in records]

        def overlaps(others: list[dict[str, Any]]) -> np.ndarray:
            if not found or not others:
                return np.zeros((len(found), len(others)))
            if sigmas is not None:
                return object_keypoint_similarity(found, others, sigmas)
            return np.asarray(mask.iou(shapes(found), shapes(others), [record["iscrowd"] for record in others]))

        in_crowd = overlaps(crowds).max(1, initial=0.0)
        return Matches(np.array([record["score"] for record in found]), overlaps(objects), in_crowd)

    def taken(self, iou: float) -> np.ndarray:
        """(n,) int: the object that each detection takes, -1 for none, -2 where it lies in a crowd instead.

        What a detection takes does not depend on those with lower scores.
        """
        free = np.ones(self.ious.shape[1], dtype=bool)
        taken = np.full(len(self.scores), -1)
        for index, row in enumerate(self.ious):
            candidates = np.where(free, row, -1.0)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= iou:
                taken[index] = best
                free[best] = False
            elif self.in_crowd[index] >= iou:
                taken[index] = -2
        return taken


def detection_accuracy(matches: Sequence[Matches], iou: float, score_threshold: float) -> float:
    """TP / (TP + FP + FN) of the detections with at least this score; 1 where there is nothing and nothing is found."""
    hits = misses = false_positives = 0
    for part in matches:
        taken = part.taken(iou)[part.scores >= score_threshold]
        found = int((taken >= 0).sum())
        hits, misses, false_positives = (
            hits + found,
            misses + part.ious.shape[1] - found,
            false_positives + int((taken == -1).sum()),
        )
    return hits / (hits + misses + false_positives) if hits + misses + false_positives else 1.0


def best_f1(matches: Sequence[Matches], iou: float) -> BestF1:
    """The score threshold with the greatest F1 = 2 TP / (2 TP + FP + FN); the highest of equals."""
    taken = np.concatenate([np.zeros(0, int), *(part.taken(iou) for part in matches)])
    scores = np.concatenate([np.zeros(0), *(part.scores for part in matches)])
    objects = sum(part.ious.shape[1] for part in matches)
    counting = taken != -2
    scores, right = scores[counting], taken[counting] >= 0
    if not len(scores) or not objects:
        return BestF1(1.0, 0.0, 0.0, 0.0)
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(right[order])
    last = np.append(scores[1:] != scores[:-1], True)  # of equal scores all count, or none
    found = np.arange(1, len(scores) + 1)[last]
    scores, right = scores[last], right[last]
    f1 = 2 * right / (found + objects)
    best = int(f1.argmax())
    return BestF1(float(scores[best]), float(f1[best]), float(right[best] / found[best]), float(right[best] / objects))
