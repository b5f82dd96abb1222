"""Exports of Label Studio, JSON and JSON_MIN, of images of 64x48 pixels."""

import json
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 64, 48
CAT = {"x": 37.5, "y": 25.0, "width": 25.0, "height": 50.0, "rotation": 0}
"""The cat of `layout_examples`, in per cent: x 24 to 40, y 12 to 36."""


def region(kind: str = "rectanglelabels", value: dict[str, Any] | None = None, label: str = "cat", **more: Any):
    value = {kind: [label]} | (CAT if value is None else value)
    head = {"from_name": "label", "to_name": "image", "type": kind, "origin": "manual"}
    return head | {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "value": value} | more


def task(image: str, *results: dict[str, Any], number: int = 1, **more: Any) -> dict[str, Any]:
    annotation = {"id": 10 + number, "completed_by": 1, "was_cancelled": False, "ground_truth": False}
    annotation |= {"result": list(results), "updated_at": "2026-01-02T10:00:00Z"}
    return {"id": number, "data": {"image": image}, "annotations": [annotation], "predictions": []} | more


def export(images: Sequence[str]) -> str:
    return json.dumps([task(image, region(), number=number) for number, image in enumerate(images, 1)])


def export_min(images: Sequence[str]) -> str:
    value = CAT | {"rectanglelabels": ["cat"], "original_width": WIDTH, "original_height": HEIGHT}
    return json.dumps(
        [
            {"image": image, "id": number, "label": [value], "annotator": 1, "annotation_id": number}
            | {"created_at": "2026-01-02T10:00:00Z", "updated_at": "2026-01-02T10:00:00Z", "lead_time": 3.5}
            for number, image in enumerate(images, 1)
        ]
    )
