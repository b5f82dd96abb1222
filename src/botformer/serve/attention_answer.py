"""Where a network looks from a place of an image -> the JSON of /attention."""

import base64
from typing import Any

import numpy as np

from botformer.errors import InputError
from botformer.explain.attention_heads import LayerHeads, heads_of_query
from botformer.serve.served_network import SeenLayers


def attention_answer(state: SeenLayers, x: float, y: float) -> dict[str, Any]:
    """Of a place in pixels of the upright image.

    Raises:
        InputError: the place is not on the image, or in the border that the network does not see.
    """
    seen = state.seen
    height, width = seen.image_px
    if not (0 <= x <= width and 0 <= y <= height):
        raise InputError(f"x {x:g}, y {y:g} lies outside the image, which is {width}x{height} px (width x height)")
    place = seen.seen(y, x)
    seen_px = tuple(seen.pixels.shape[1:])
    if not all(0 <= at <= side for at, side in zip(place, seen_px, strict=True)):
        left, top, right, bottom = seen.box_xyxy
        raise InputError(
            f"x {x:g}, y {y:g} lies in the border that the network does not see; it sees x from {left:.0f} to "
            f"{right:.0f}, y from {top:.0f} to {bottom:.0f}"
        )
    heads = heads_of_query(state.layers, seen.pixels, place)
    return {
        "x": x,
        "y": y,
        "seen_box_xyxy": list(seen.box_xyxy),
        "seen_px": list(seen_px),
        "layers": [_layer(layer) for layer in heads],
    }


def _layer(layer: LayerHeads) -> dict[str, Any]:
    attention, content = layer.attention, layer.content_alone
    _, height, width = attention.shape
    return {
        "name": layer.name,
        "stride_px": layer.stride_px,
        "height": height,
        "width": width,
        "query_cell": list(layer.query_cell),
        "heads": [
            _maps(attention[head], None if content is None else content[head]) for head in range(layer.heads)
        ],
        "mean": _maps(attention.mean(0), None if content is None else content.mean(0)),
    }  # fmt: skip


def _maps(attention: np.ndarray, content: np.ndarray | None) -> dict[str, Any]:
    return {
        "max": float(attention.max()),
        "attention": _bytes(attention),
        "content": None if content is None else _bytes(content),
        "content_max": None if content is None else float(content.max()),
    }


def _bytes(values: np.ndarray) -> str:
    """(H, W) -> base64 of uint8, row by row: 255 times the fourth root of the fraction of the maximum.

    A sharp head has cells of a thousandth of its maximum that are still above the mean of all cells.
    """
    return base64.b64encode(np.rint(255 * (values / values.max()) ** 0.25).astype(np.uint8).tobytes()).decode("ascii")
