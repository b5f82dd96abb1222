"""What /openapi.json and /docs say of the answers of the routes."""

from typing import Any

_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"detail": {"type": "string"}}}}}
_WORDS = {
    400: "no body, or a form that is none",
    404: "no such network, or the image is not kept any more: send it to /predict again",
    413: "too many bytes or pixels",
    415: "not an image",
    422: "a damaged image, or a value that makes no sense",
    429: "the queue is full; the header Retry-After says in how many seconds to try again",
    503: "the server is stopping",
    504: "not done in time",
}
ABOUT = (
    'Errors have the status 4xx or 5xx and the JSON {"detail": "what was wrong, what was expected, what to do"}. '
    "Places and boxes are in pixels of the upright image, from its upper left corner."
)
HEALTH = {"status": "ok"}
NETWORKS: dict[str, Any] = {
    "networks": [
        {
            "name": "nuclei",
            "source": "comes with botformer",
            "task": "detection",
            "kind": "mask_rcnn",
            "row": "botnet_mini",
            "classes": ["nucleus"],
            "side_px": 512,
            "attention": [{"name": "backbone.layer4.0.conv2", "heads": 4, "stride_px": 8}],
            "parameters": 1690155,
            "category_ids": [1],
            "keypoints": [],
            "skeleton": [],
        }
    ],
    "limits": {"queue": 128, "megabytes": 20.0, "megapixels": 100.0, "seconds": 60.0, "bytes": 20000000},
    "examples": [{"name": "nuclei", "url": "/examples/nuclei.png", "about": "...", "for": ["nuclei"]}],
    "version": "...",
}
PREDICT = {
    "image": "sha256 of the file",
    "network": "nuclei",
    "name": "image",
    "width": 512,
    "height": 512,
    "task": "detection",
    "detections": [
        {
            "label": "nucleus",
            "category_id": 1,
            "score": 0.98,
            "box_xyxy": [62.77, 156.99, 84.87, 177.15],
            "segmentation": {"size": [512, 512], "counts": "COCO's run lengths"},
            "outlines": [[[71.5, 157.0], [84.0, 164.5], [69.5, 177.0]]],
        }
    ],
}
ATTENTION = {
    "image": "sha256 of the file",
    "network": "nuclei",
    "x": 100.0,
    "y": 200.0,
    "seen_box_xyxy": [0.0, 0.0, 512.0, 512.0],
    "seen_px": [512, 512],
    "layers": [
        {
            "name": "backbone.layer4.0.conv2",
            "stride_px": 8,
            "height": 64,
            "width": 64,
            "query_cell": [25, 12],
            "heads": [{"max": 0.02, "attention": "base64", "content": "base64", "content_max": 0.01}],
            "mean": {"max": 0.02, "attention": "base64", "content": "base64", "content_max": 0.01},
        }
    ],
}
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
        },
    }
}
CORRECTIONS_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["annotations"],
                    "properties": {
                        "annotations": {"type": "string", "description": "JSON: task, categories, images"},
                        "image": {"type": "string", "format": "binary", "description": "one per image"},
                    },
                }
            }
        },
    }
}


def answers(example: Any, *errors: int, media_type: str = "application/json", words: str = "done") -> dict[Any, Any]:
    """The `responses` of a route: what it answers, and its errors."""
    content = {media_type: {"example": example} if example else {}}
    return {200: {"description": words, "content": content}} | {
        status: {"description": _WORDS[status], "content": _ERROR} for status in errors
    }
