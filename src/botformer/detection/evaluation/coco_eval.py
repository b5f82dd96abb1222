"""COCO's average precision of boxes, masks and key points, by faster-coco-eval: the same numbers as pycocotools.

Detections and ground truth are kept per image, under its id: an image that two processes saw counts once.
They are JSON text in COCO's form, which goes between processes whole, where lists would be walked number by number.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from botformer.detection.evaluation.f1_score import BestF1, Matches, best_f1, detection_accuracy
from botformer.detection.evaluation.oks import keypoint_sigmas, keypoints_area
from botformer.errors import InputError

Kind = Literal["box", "mask", "keypoints"]
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Average precision and recall over IoU 0.5 to 0.95; at 0.5 and 0.75 alone; of small (below 32x32 px), medium and large
(from 96x96) objects; recall with 1, 10 and 100 detections per image. -1 where there is nothing to be found."""
KEYPOINT_NUMBERS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""The same over OKS 0.5 to 0.95, with 20 detections per image; COCO labels no key points of small objects."""

log = logging.getLogger("botformer.detection")

_MATCHED_IOU = 0.5
_IOU_TYPES: dict[Kind, Literal["bbox", "segm", "keypoints"]] = {"box": "bbox", "mask": "segm", "keypoints": "keypoints"}
_COCOS_MOST, _COCOS_MOST_WITH_KEYPOINTS = 100, 20
_PIXEL_MIDDLE = 0.5
"""COCO's key points name the pixel they lie in; ours, as boxes, are measured from the edge of the image."""


def numbers_of(kind: Kind) -> tuple[str, ...]:
    """Names of COCO's numbers for this kind."""
    return KEYPOINT_NUMBERS if kind == "keypoints" else NUMBERS


ImageId = int | str
"""As the data set has it: COCO's file may number or name its images, with numbers of any size and sign."""


class CocoEvaluator:
    """Average precision of a detector. `update` it with every batch; then ask `compute` and the others.

    Args:
        categories: (id, name) as the data set has them; label 1 is the first.
        kinds: what is measured.
        max_detections: best detections of an image that count. COCO's is 100; images with more objects need more
            (the numbers keep their names: AR100 is then the recall with `max_detections`). Of key points COCO counts
            the best 20; with more than 100 here, as many here as there. Of an image in tiles all count.
        keypoint_names, sigmas: of key points, see `oks.keypoint_sigmas`.
    """

    def __init__(
        self,
        categories: Sequence[tuple[int, str]],
        kinds: Sequence[Kind] = ("box", "mask"),
        max_detections: int = 100,
        keypoint_names: Sequence[str] = (),
        sigmas: Sequence[float] = (),
    ) -> None:
        if find_spec("faster_coco_eval") is None:
            raise InputError("average precision needs the package faster-coco-eval: pip install 'botformer[detection]'")
        if max_detections <= 10:
            raise InputError(f"max_detections must be more than 10 (COCO's 1, 10 and 100), got {max_detections}")
        self.categories = [(int(number), name) for number, name in categories]
        self.kinds = tuple(kinds)
        self._max_detections = max_detections
        self.keypoint_names = tuple(keypoint_names)
        if "keypoints" in self.kinds and not self.keypoint_names:
            raise InputError("to measure key points their names are needed; give keypoint_names")
        self.sigmas = tuple(keypoint_sigmas(self.keypoint_names, sigmas).tolist())
        self.images: dict[ImageId, dict[str, Any]] = {}
        """image id -> "size" (height, width), and as JSON "truth", COCO's annotations, and "found", COCO's results; and
        how many were found in its tiles, "in_tiles", each of which may have as many as the network gives of one image.
        """
        self._evaluated: dict[Kind, _Evaluated] = {}

    def update(self, predictions: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> None:
        """Predictions in pixels of the files: `boxes` (n, 4) xyxy, `labels` (n,), `scores` (n,) and, for masks,
        `masks`, n compressed run lengths, for key points `keypoints` (n, K, 3) x, y, v. `batch["targets"]` have
        `image_id`, `original_size` and `ground_truth`."""
        self._evaluated = {}
        for found, target in zip(predictions, batch["targets"], strict=True):
            image_id = target["image_id"]
            self.images[image_id] = {
                "size": [int(side) for side in target["original_size"]],
                "truth": target["ground_truth"],
                "found": json.dumps(coco_results(found, image_id, self.categories)),
                "in_tiles": len(found["scores"]) if "tile_px" in target else 0,
            }

    @property
    def max_detections(self) -> int:
        """How many detections of an image count."""
        return max([self._max_detections, *(image["in_tiles"] for image in self.images.values())])

    def state(self) -> dict[ImageId, dict[str, Any]]:
        return self.images

    def merge(self, states: list[dict[ImageId, dict[str, Any]]]) -> None:
        self._evaluated = {}
        for state in states:
            self.images.update(state)
        self.images = {image_id: self.images[image_id] for image_id in _in_order(self.images)}

    def only(self, image_ids: Iterable[ImageId]) -> "CocoEvaluator":
        """The same of some of the images, such as those of one stain."""
        part = CocoEvaluator(self.categories, self.kinds, self._max_detections, self.keypoint_names, self.sigmas)
        part.images = {image_id: self.images[image_id] for image_id in image_ids}
        return part

    def results(self) -> list[dict[str, Any]]:
        """All detections as COCO's results.json has them, by image id.

        Scored by pycocotools they give these very numbers; for masks and key points take `bbox` out first
        (see `_Evaluated.found`).
        """
        return [result for image_id in _in_order(self.images) for result in json.loads(self.images[image_id]["found"])]

    def compute(self) -> dict[str, float]:
        """`box_AP` ... `box_ARl`, `mask_AP` ..., `keypoints_AP` ... (see `numbers_of`), and `images`."""
        metrics: dict[str, float] = {}
        for kind in self.kinds:
            metrics |= {f"{kind}_{name}": value for name, value in self._evaluate(kind).numbers.items()}
        return metrics | {"images": len(self.images)}

    def per_class(self, kind: Kind) -> list[dict[str, Any]]:
        """`id`, `name`, `objects`, `AP`, `AP50` and `AP75` of each category; -1 where it has no objects."""
        precision = self._evaluate(kind).precision
        counts = {number: 0 for number, _ in self.categories}
        for record in self._evaluate(kind).truth:
            ignored = record["iscrowd"] or (kind == "keypoints" and not record["num_keypoints"])
            counts[record["category_id"]] += not ignored
        return [
            {
                "id": number,
                "name": name,
                "objects": counts[number],
                "AP": _mean(precision[:, :, place]),
                "AP50": _mean(precision[0, :, place]),
                "AP75": _mean(precision[5, :, place]),
            }
            for place, (number, name) in enumerate(sorted(self.categories))
        ]

    def precision_recall(self, kind: Kind, iou: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Recall (101,) from 0 to 1, and the precision there (101,), averaged over categories that have objects.

        Their area is AP at this IoU. The precision at a recall is the best that any threshold reaches there or beyond.
        """
        evaluated = self._evaluate(kind)
        place = int(np.abs(evaluated.ious - iou).argmin())
        if abs(evaluated.ious[place] - iou) > 1e-6:
            raise InputError(f"precision and recall are known at IoU {evaluated.ious.round(2).tolist()}, not at {iou}")
        curves = evaluated.precision[place].T
        curves = curves[curves[:, 0] > -1]
        return evaluated.recalls, curves.mean(0) if len(curves) else np.zeros(len(evaluated.recalls))

    def best_f1(self, kind: Kind) -> BestF1:
        """The score threshold that makes the best F1 at IoU 0.5, all categories together: what to draw from."""
        return best_f1([matches for _, matches in self._matches(kind)], _MATCHED_IOU)

    def community_ap(
        self, kind: Kind, score_threshold: float, ious: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9)
    ) -> dict[float, float]:
        """IoU -> TP / (TP + FP + FN) of the detections with at least this score: the nuclei community's AP.

        Counted over all images together (as StarDist does), with greedy matching (see `f1_score`). A threshold chosen
        on the same images flatters. -1 where there is nothing to be found, and there are no false positives.
        """
        matches = [matches for _, matches in self._matches(kind)]
        accuracy = {iou: detection_accuracy(matches, iou, score_threshold) for iou in ious}
        objects = sum(part.ious.shape[1] for part in matches)
        return accuracy if objects else {iou: -1.0 if value == 1 else value for iou, value in accuracy.items()}

    def per_image(self, kind: Kind, score_threshold: float) -> dict[ImageId, float]:
        """image id -> TP / (TP + FP + FN) at IoU 0.5, for the best and the worst images; 1 where both are empty."""
        of_image: dict[ImageId, list[Matches]] = {image_id: [] for image_id in self.images}
        for image_id, matches in self._matches(kind):
            of_image[image_id].append(matches)
        return {
            image_id: detection_accuracy(parts, _MATCHED_IOU, score_threshold) for image_id, parts in of_image.items()
        }

    def _evaluate(self, kind: Kind) -> "_Evaluated":
        if kind not in self._evaluated:
            self._evaluated[kind] = _Evaluated(self.images, self.categories, kind, self.max_detections, self.sigmas)
        return self._evaluated[kind]

    def _matches(self, kind: Kind) -> list[tuple[ImageId, Matches]]:
        """(image id, overlaps of its detections and objects of one category)."""
        return self._evaluate(kind).matches


def coco_results(
    found: Mapping[str, Any], image_id: ImageId, categories: Sequence[tuple[int, str]]
) -> list[dict[str, Any]]:
    """An image's detections, in pixels of the file, as COCO's results: `image_id`, `category_id`, `bbox` xywh,
    `score`, and `segmentation` where there are masks, `keypoints` [x, y, v, ...] where there are key points."""
    boxes = np.asarray(found["boxes"].detach().cpu(), dtype=np.float64).reshape(-1, 4)
    labels, scores = found["labels"].tolist(), found["scores"].tolist()
    points = None
    if "keypoints" in found:
        points = found["keypoints"].detach().cpu().numpy().astype(np.float64)
        points[..., :2] -= _PIXEL_MIDDLE
        points = points.reshape(len(points), 3 * points.shape[1])
    results = []
    for index, ((x1, y1, x2, y2), label, score) in enumerate(zip(boxes.tolist(), labels, scores, strict=True)):
        result = {
            "image_id": image_id,
            "category_id": categories[label - 1][0],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        if "masks" in found:
            result["segmentation"] = found["masks"][index]
        if points is not None:
            result["keypoints"] = points[index].tolist()
        results.append(result)
    return results


@dataclass(frozen=True)
class _Evaluated:
    """One kind of average precision of some images."""

    images: dict[ImageId, dict[str, Any]]
    categories: list[tuple[int, str]]
    kind: Kind
    max_detections: int
    sigmas: tuple[float, ...]

    @property
    def most(self) -> int:
        """Detections per image that count."""
        if self.kind == "keypoints" and self.max_detections <= _COCOS_MOST:
            return _COCOS_MOST_WITH_KEYPOINTS
        return self.max_detections

    @cached_property
    def _coco(self) -> Any:
        """faster-coco-eval's evaluation, done."""
        from faster_coco_eval import COCO, COCOeval_faster

        truth, found = COCO(), COCO()
        # All ids are numbered anew, in their order, on which the rank of equal scores depends. The evaluation computes
        # with image and category ids as C++ does, where large ones and negative ones become others; ids of annotations
        # may repeat or be missing, and 0 means "matched with nothing" to it.
        image_numbers = {image_id: number for number, image_id in enumerate(_in_order(self.images), 1)}
        category_numbers = {each: number for number, (each, _) in enumerate(sorted(self.categories), 1)}
        images = [
            {"id": number, "height": self.images[image_id]["size"][0], "width": self.images[image_id]["size"][1]}
            for image_id, number in image_numbers.items()
        ]
        categories = [{"id": category_numbers[each], "name": name} for each, name in self.categories]
        for coco, records in ((truth, self.truth), (found, self.found)):
            annotations = [
                record
                | {
                    "id": number,
                    "image_id": image_numbers[record["image_id"]],
                    "category_id": category_numbers[record["category_id"]],
                }
                for number, record in enumerate(records, 1)
            ]
            coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
            coco.createIndex()
        of_keypoints = self.kind == "keypoints"
        evaluation = COCOeval_faster(
            truth,
            found,
            _IOU_TYPES[self.kind],
            print_function=log.debug,
            kpt_oks_sigmas=list(self.sigmas) if of_keypoints else None,
        )
        # For key points it would leave out the categories without objects.
        evaluation.params.catIds = sorted(category_numbers.values())
        evaluation.params.maxDets = [self.most] if of_keypoints else [1, 10, self.most]
        evaluation.run()
        return evaluation

    @property
    def precision(self) -> np.ndarray:
        """(IoU, recall, category), all sizes, -1 where a category has no objects; categories by id."""
        return self._coco.eval["precision"][:, :, :, 0, -1]

    @property
    def ious(self) -> np.ndarray:
        return self._coco.params.iouThrs

    @property
    def recalls(self) -> np.ndarray:
        return self._coco.params.recThrs

    @cached_property
    def numbers(self) -> dict[str, float]:
        if self.most < self.max_detections:
            self._say_cut()
        return dict(zip(numbers_of(self.kind), map(float, self._coco.stats), strict=True))

    def _say_cut(self) -> None:
        """Where COCO's limit on detections with key points is below the objects, no detector reaches an AP of 1."""
        labelled = [(each["image_id"], each["category_id"]) for each in self.truth if each["num_keypoints"]]
        counts = Counter(labelled)
        images = {image_id for (image_id, _), count in counts.items() if count > self.most}
        if images:
            log.warning(
                "%d images have more than %d objects with key points of one class, up to %d, and COCO's numbers of key "
                "points count the %d best detections of an image, as long as there are at most %d (max_detections)",
                len(images), self.most, max(counts.values()), self.most, _COCOS_MOST,
            )  # fmt: skip

    @cached_property
    def matches(self) -> list[tuple[ImageId, Matches]]:
        groups: dict[tuple[ImageId, int], tuple[list[dict], list[dict]]] = {}
        for place, records in enumerate((self.truth, self.found)):
            for record in records:
                groups.setdefault((record["image_id"], record["category_id"]), ([], []))[place].append(record)
        sigmas = np.array(self.sigmas) if self.kind == "keypoints" else None
        return [
            (image_id, Matches.of(truth, found, self.kind, self.images[image_id]["size"], self.max_detections, sigmas))
            for (image_id, _), (truth, found) in sorted(groups.items(), key=lambda item: _rank(*item[0]))
        ]

    @cached_property
    def truth(self) -> list[dict[str, Any]]:
        """COCO's annotations. For masks, an object with a box alone is a crowd: what is found there counts neither way,
        because nobody knows its shape."""
        records = [record for image in self.images.values() for record in json.loads(image["truth"])]
        return [_with_shape(record) for record in records] if self.kind == "mask" else records

    @cached_property
    def found(self) -> list[dict[str, Any]]:
        """COCO's results, with the size that decides whether one is small, medium or large: that of the mask, of the
        box around the key points, or of the box.

        Where a result has a box too, pycocotools takes the box's size for masks and key points; COCO's own form of such
        results has none.
        """
        records = [record for image in self.images.values() for record in json.loads(image["found"])]
        if self.kind == "box":
            return [record | {"area": record["bbox"][2] * record["bbox"][3], "iscrowd": 0} for record in records]
        if self.kind == "keypoints":
            return [record | {"area": keypoints_area(record["keypoints"]), "iscrowd": 0} for record in records]
        from faster_coco_eval import mask

        return [record | {"area": float(mask.area(record["segmentation"])), "iscrowd": 0} for record in records]


def _with_shape(record: dict[str, Any]) -> dict[str, Any]:
    if "segmentation" in record:
        return record
    x, y, w, h = record["bbox"]
    return record | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]], "iscrowd": 1}


def _in_order(image_ids: Iterable[ImageId]) -> list[ImageId]:
    """Numbers by size, and then names by their letters."""
    return sorted(image_ids, key=_rank)


def _rank(image_id: ImageId, category_id: int = 0) -> tuple[bool, ImageId, int]:
    return isinstance(image_id, str), image_id, category_id


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else -1.0
