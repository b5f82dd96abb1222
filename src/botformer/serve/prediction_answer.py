"""Results -> the JSON of /predict."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from botformer.classification.metrics import rounded_probability
from botformer.predict.results import ClassificationResult, DetectionResult, Result
from botformer.serve.mask_outlines import outlines

_DIGITS = 2
"""Of pixels."""


def prediction_answer(
    result: Result, image: str, network: str, category_ids: Sequence[int], *, with_outlines: bool
) -> dict[str, Any]:
    """Of the image whose bytes have this sha256, by the network of this name."""
    width, height = result.size_px
    about = {"image": image, "network": network, "name": result.name, "width": width, "height": height}
    if isinstance(result, ClassificationResult):
        top5 = [{"label": label, "probability": probability} for label, probability in result.top5]
        probabilities = [rounded_probability(p) for p in result.of_classes.tolist()]
        return about | {"task": "classification", "top5": top5, "probabilities": probabilities}
    found = _detections(result, category_ids, with_outlines)
    return about | {"task": "detection", "detections": found}


def at_least(result: Result, threshold: float) -> Result:
    """What scores so much, or is so probable."""
    if isinstance(result, DetectionResult):
        return result.above(threshold)
    kept = sum(p >= threshold for p in result.probabilities)  # the best come first
    labels, probabilities, places = result.labels[:kept], result.probabilities[:kept], result.places[:kept]
    return replace(result, labels=labels, probabilities=probabilities, places=places)


def _detections(result: DetectionResult, category_ids: Sequence[int], with_outlines: bool) -> list[dict[str, Any]]:
    found = []
    for place, (box, score, label) in enumerate(
        zip(result.boxes_xyxy.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True)
    ):
        one: dict[str, Any] = {
            "label": result.names[place],
            "category_id": category_ids[label - 1],
            "score": rounded_probability(score),
            "box_xyxy": [round(side, _DIGITS) for side in box],
        }
        if result.masks is not None:
            one["segmentation"] = result.masks[place]
            if with_outlines:
                one["outlines"] = outlines(result.masks[place])
        if result.keypoints is not None and result.keypoints_scores is not None:
            scores = result.keypoints_scores[place].tolist()
            one["keypoints"] = [
                [round(x, _DIGITS), round(y, _DIGITS), rounded_probability(score)]
                for (x, y, _), score in zip(result.keypoints[place].tolist(), scores, strict=True)
            ]
        found.append(one)
    return found
