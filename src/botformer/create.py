"""Where the parts meet: networks by name."""

from typing import Any

from botformer.backbone.options import make_options
from botformer.backbone.resnet import Backbone, Classifier
from botformer.backbone.variants import ROWS, Row, find_row
from botformer.errors import InputError

ImageSize = int | tuple[int, int] | None


def list_models() -> list[str]:
    """Names that `create_model` and `create_backbone` take, in the order of the table."""
    return list(ROWS)


def create_model(name: str, num_classes: int = 1000, image_size: ImageSize = None, **options: Any) -> Classifier:
    """A classifier: (B, 3, h, w) images, normalised -> (B, num_classes) logits. Any h and w run.

    Args:
        name: a row of `list_models()`.
        num_classes: at least 1.
        image_size: pixels, one number or (height, width), that the position tables are made for; the row's own by
            default. It changes the parameter count and nothing else.
        options: fields of `botformer.backbone.options.Options`, such as `position`, `drop_path`, `dropout`.

    Raises:
        InputError: an unknown name or option (the nearest is suggested), or a value out of range.
    """
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, got {num_classes}")
    row = find_row(name)
    return Classifier(row, _height_and_width(image_size, row), make_options(options), num_classes)


def create_backbone(name: str, image_size: ImageSize = None, **options: Any) -> Backbone:
    """The same network less its last layer: (B, 3, h, w) -> {"c2": ..., "c5": ...}. Arguments as in `create_model`."""
    row = find_row(name)
    if "dropout" in options:
        raise InputError("dropout stands before the final linear layer, which a backbone does not have; leave it out")
    return Backbone(row, _height_and_width(image_size, row), make_options(options))


def _height_and_width(image_size: ImageSize, row: Row) -> tuple[int, int]:
    size = row.image_size if image_size is None else image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if min(height, width) < 1:
        raise InputError(f"image_size must be at least 1 pixel, got {height}x{width}")
    return height, width
