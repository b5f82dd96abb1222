"""Networks by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from botformer.backbone.resnet import Backbone, Classifier
from botformer.backbone.variants import ROWS, Row, find_row
from botformer.detection import Detector, build_detector
from botformer.errors import InputError
from botformer.image_normalization import channel_statistics
from botformer.recipes.check import as_whole, height_and_width
from botformer.recipes.detector_settings import Kind, make_settings
from botformer.recipes.model_options import make_options
from botformer.recipes.schema import DetectionImages

ImageSize = int | Sequence[int] | None
_MOST = 10_000_000
"""Classes or channels: beyond, a number is a mistake."""


def list_models() -> list[str]:
    """Names that `create_model` and `create_backbone` take, in the order of the table."""
    return list(ROWS)


def create_model(
    name: str, num_classes: int = 1000, image_size: ImageSize = None, *, in_chans: int = 3, **options: Any
) -> Classifier:
    """A classifier: (B, in_chans, h, w) images, normalised -> (B, num_classes) logits. Any h and w run.

    `botnet50` is BoTNet-50 of the paper's Table 1, `botnet_s1_50` the same with stride 1 throughout c5.

    For images, uint8 or floats in 0..1, call `model(model.preprocess(images))`; it is the same call for a detector.

    Args:
        name: a row of `list_models()`.
        num_classes: at least 1.
        image_size: pixels, one number or (height, width), that the position tables are made for; the row's own by
            default. It changes the parameter count and nothing else.
        in_chans: channels of the images. `load_weights` adapts the first convolution of an RGB network to it, and
            `model.mean` and `model.std` are what `preprocess` normalises by.
        options: fields of `botformer.recipes.model_options.ModelOptions`, such as `position`, `drop_path`, `dropout`.

    Raises:
        InputError: an unknown name or option (the nearest is suggested), or a value out of range.
    """
    row = find_row(name)
    classes, channels = _count("num_classes", num_classes), _count("in_chans", in_chans)
    return Classifier(row, _size(image_size, row), make_options(options), classes, channels)


def create_backbone(name: str, image_size: ImageSize = None, *, in_chans: int = 3, **options: Any) -> Backbone:
    """The network without its last layer: (B, C, h, w) -> {"c2": ..., "c5": ...}. Arguments as in `create_model`.

    Raises:
        InputError: as there, and for `dropout`, which stands before the last layer.
    """
    row = find_row(name)
    if "dropout" in options:
        raise InputError("dropout stands before the final linear layer, which a backbone does not have; leave it out")
    return Backbone(row, _size(image_size, row), make_options(options), _count("in_chans", in_chans))


def create_detector(
    kind: Kind,
    backbone: str | nn.Module,
    num_classes: int,
    image_size: int | Sequence[int] = 1024,
    *,
    test_size: ImageSize = None,
    backbone_options: dict[str, Any] | None = None,
    in_chans: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **settings: Any,
) -> Detector:
    """A detector around a backbone, with the paper's settings (docs/detection.md says which those are).

    Mask R-CNN is what the paper trains on COCO (sections 4.1 to 4.6).

    For images, uint8 or floats in 0..1, call `model(model.preprocess(images))`; it is the same call for a classifier.
    The detector itself takes a list of (in_chans, h, w) floats in 0..1 and normalises them.

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
        in_chans: channels of the images: 3, or what a module takes.
        mean, std: of each channel, for values in 0..1; ImageNet's by default, of which the average stands for each
            channel where there are not three.
        settings: fields of `botformer.recipes.detector_settings.Settings`.

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
        channels = {} if in_chans is None else {"in_chans": in_chans}
        backbone = create_backbone(backbone, image_size, **(norm | named | channels))
    elif backbone_options:
        raise InputError("backbone_options are for the name of a row; a module is taken as it is, so leave them out")
    detector = build_detector(kind, backbone, num_classes, image_size, chosen, test_size, mean, std)
    if in_chans is not None and detector.in_chans != in_chans:
        raise InputError(
            f"in_chans is {in_chans}, but the backbone takes images of {detector.in_chans} channels; build it for "
            f"{in_chans}, or give {in_chans} values of mean and std if it does not say what it takes (`in_chans`)"
        )
    return detector


def network_of(model_config: dict[str, Any], backend: str = "auto") -> Classifier | Detector:
    """The network that a model config describes, with random weights. `create.from_checkpoint.Loaded` says what a model
    config holds; the implementation of the attention (`backend`) depends on the machine and is not in it.

    Raises:
        InputError: a value that is out of range or unknown.
        KeyError, TypeError, ValueError: not the model config of a network.
    """
    task, options = model_config["task"], {"backend": backend} | model_config["options"]
    in_chans = model_config.get("in_chans", 3)
    mean, std = model_config.get("mean"), model_config.get("std")
    if task != "detection":
        model = create_model(
            model_config["model"],
            len(model_config["class_names"]),
            model_config["image_size"],
            in_chans=in_chans,
            **options,
        )
        model.mean, model.std = channel_statistics(in_chans, mean, std)
        return model
    return create_detector(
        model_config["detector"],
        model_config["model"],
        len([(int(number), str(name)) for number, name in model_config["categories"]]),
        model_config["image_size"],
        test_size=canvas_of(model_config),
        backbone_options=options,
        in_chans=in_chans,
        mean=mean,
        std=std,
        **model_config["settings"],
    )


def canvas_of(model_config: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the canvas on which a detector sees images in inference."""
    size = model_config.get("test_size") or DetectionImages(**model_config["images"]).canvas
    return height_and_width("test_size", size)


def _size(image_size: ImageSize, row: Row) -> tuple[int, int]:
    return height_and_width("image_size", row.image_size if image_size is None else image_size)


def _count(name: str, value: Any) -> int:
    count = as_whole(value)
    if count is None or not 1 <= count <= _MOST:
        raise InputError(f"{name} must be at least 1 and whole, and at most {_MOST}, got {value!r}")
    return count
