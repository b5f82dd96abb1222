"""Networks by name."""

from typing import Any

from torch import nn

from botformer.backbone.resnet import Backbone, Classifier
from botformer.backbone.variants import ROWS, Row, find_row
from botformer.detection import Detector, build_detector
from botformer.errors import InputError
from botformer.recipes.detector_settings import Kind, make_settings
from botformer.recipes.model_options import make_options
from botformer.recipes.schema import DetectionImages

ImageSize = int | tuple[int, int] | None


def list_models() -> list[str]:
    """Names that `create_model` and `create_backbone` take, in the order of the table."""
    return list(ROWS)


def create_model(name: str, num_classes: int = 1000, image_size: ImageSize = None, **options: Any) -> Classifier:
    """A classifier: (B, 3, h, w) images, normalised -> (B, num_classes) logits. Any h and w run.

    For RGB images, uint8 or floats in 0..1, call `model(model.preprocess(images))`; it is the same call for a detector.

    Args:
        name: a row of `list_models()`.
        num_classes: at least 1.
        image_size: pixels, one number or (height, width), that the position tables are made for; the row's own by
            default. It changes the parameter count and nothing else.
        options: fields of `botformer.recipes.model_options.ModelOptions`, such as `position`, `drop_path`, `dropout`.

    Raises:
        InputError: an unknown name or option (the nearest is suggested), or a value out of range.
    """
    if not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(f"num_classes must be at least 1 and whole, got {num_classes!r}")
    row = find_row(name)
    return Classifier(row, _height_and_width(image_size, row), make_options(options), num_classes)


def create_backbone(name: str, image_size: ImageSize = None, **options: Any) -> Backbone:
    """The network without its last layer: (B, 3, h, w) -> {"c2": ..., "c5": ...}. Arguments as in `create_model`."""
    row = find_row(name)
    if "dropout" in options:
        raise InputError("dropout stands before the final linear layer, which a backbone does not have; leave it out")
    return Backbone(row, _height_and_width(image_size, row), make_options(options))


def create_detector(
    kind: Kind,
    backbone: str | nn.Module,
    num_classes: int,
    image_size: int | tuple[int, int] = 1024,
    *,
    test_size: int | tuple[int, int] | None = None,
    backbone_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Detector:
    """A detector around a backbone, with the paper's settings (docs/detection.md says which those are).

    For RGB images, uint8 or floats in 0..1, call `model(model.preprocess(images))`; it is the same call for a
    classifier. The detector itself takes a list of (3, h, w) floats in 0..1 and normalises them.

    Args:
        kind: "mask_rcnn", "faster_rcnn" or "keypoint_rcnn".
        backbone: a row of `list_models()`, or any module that returns {"c2": ..., "c5": ...} and has `channels` and
            `strides`, such as timm's `features_only` networks.
        num_classes: classes of objects, without the background; labels are 1 to num_classes.
        image_size: side of the canvas, or (height, width), in pixels; position tables of a row are made for it.
        test_size: the canvas in inference, where it differs: networks trained on crops see whole images later.
        backbone_options: options of `create_backbone` for a row, such as `frozen_stages` or `gradient_checkpointing`.
            BatchNorm (`normalization`, `norm_epsilon`, `norm_momentum`) follows the detector's settings unless it is
            named here; None is not a name.
        settings: fields of `botformer.detection.Settings`.

    Raises:
        InputError: an unknown name or option (the nearest is suggested), or a value out of range.
    """
    chosen = make_settings(settings)
    if isinstance(backbone, str):
        norm = {
            "normalization": chosen.normalization,
            "norm_epsilon": chosen.norm_epsilon,
            "norm_momentum": chosen.norm_momentum,
        }
        named = {name: value for name, value in (backbone_options or {}).items() if value is not None}
        backbone = create_backbone(backbone, image_size, **(norm | named))
    elif backbone_options:
        raise InputError("backbone_options are for the name of a row; a module is taken as it is, so leave them out")
    size = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    return build_detector(kind, backbone, num_classes, size, chosen, test_size)


def network_of(model_config: dict[str, Any], backend: str = "auto") -> Classifier | Detector:
    """The network that a model config describes, with random weights. `create.from_checkpoint.Loaded` says what a model
    config holds; the implementation of the attention (`backend`) depends on the machine and is not in it.

    Raises:
        InputError: a value that is out of range or unknown.
        KeyError, TypeError, ValueError: not the model config of a network.
    """
    task, options = model_config["task"], {"backend": backend} | model_config["options"]
    if task != "detection":
        return create_model(
            model_config["model"],
            len(model_config["class_names"]),
            model_config["image_size"],
            **options,
        )
    return create_detector(
        model_config["detector"],
        model_config["model"],
        len([(int(number), str(name)) for number, name in model_config["categories"]]),
        model_config["image_size"],
        test_size=DetectionImages(**model_config["images"]).canvas,
        backbone_options=options,
        **model_config["settings"],
    )


def _height_and_width(image_size: ImageSize, row: Row) -> tuple[int, int]:
    size = row.image_size if image_size is None else image_size
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise InputError(f"image_size must be at least 1 pixel, one number or (height, width), got {size!r}")
    return sides
