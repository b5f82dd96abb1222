"""What the graph of a detector gives -> detections as `Detector.padded_detections` gives them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from botformer.detection.rcnn import Result, in_image
from botformer.detection.roi_heads.box_head import Detections


def read_detections(
    outputs: Mapping[str, np.ndarray], seen: Sequence[tuple[int, int]], sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """One dict per image, best first, in pixels of an image of that size; masks as run lengths.

    Args:
        outputs: by name, of B images.
        seen: (height, width) of each image on the canvas: the graph's input `sizes`.
        sizes: (height, width) of each image as its file has it.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in outputs.items()}
    found = []
    for image, (on_canvas, size) in enumerate(zip(seen, sizes, strict=True)):
        count = int((tensors["scores"][image] > 0).sum())
        own = {name: values[image, :count] for name, values in tensors.items()}
        keypoints = None
        if "keypoints" in own:
            points, logits = own["keypoints"][..., :2], own["keypoints"][..., 2]
            keypoints = torch.cat([points, torch.ones_like(points[..., :1])], -1), logits
        result = Result(Detections(own["boxes"], own["labels"], own["scores"]), own.get("masks"), keypoints)
        found.append(in_image(result, on_canvas, size))
    return found
