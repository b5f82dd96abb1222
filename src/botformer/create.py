"""Where the parts meet: networks by name, tasks from recipes, trained networks from checkpoints."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from botformer.backbone.options import Options, make_options
from botformer.backbone.resnet import Backbone, Classifier
from botformer.backbone.variants import ROWS, Row, find_row
from botformer.classification.task import ClassificationTask
from botformer.detection import Detector, build_detector, make_settings
from botformer.detection.settings import Kind
from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.training.checkpoint import read_state
from botformer.training.checkpoints import checkpoint_folder
from botformer.weights import initialise, load_weights, read_state_dict

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
    if not isinstance(num_classes, int) or num_classes < 1:
        raise InputError(f"num_classes must be at least 1 and whole, got {num_classes!r}")
    row = find_row(name)
    return Classifier(row, _height_and_width(image_size, row), make_options(options), num_classes)


def create_backbone(name: str, image_size: ImageSize = None, **options: Any) -> Backbone:
    """The same network less its last layer: (B, 3, h, w) -> {"c2": ..., "c5": ...}. Arguments as in `create_model`."""
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
    backbone_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Detector:
    """A detector around a backbone, with the paper's settings (docs/detection.md says which those are).

    Args:
        kind: "mask_rcnn", "faster_rcnn" or "keypoint_rcnn".
        backbone: a row of `list_models()`, or any module that gives {"c2": ..., "c5": ...} and says its `channels` and
            `strides`, such as timm's `features_only` networks.
        num_classes: kinds of objects, without the background; labels are 1 to num_classes.
        image_size: side of the canvas, or (height, width), in pixels; position tables of a row are made for it.
        backbone_options: options of `create_backbone` for a row, such as `frozen_stages` or `gradient_checkpointing`.
            BatchNorm follows the detector's settings unless it is named here.
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
        backbone = create_backbone(backbone, image_size, **(norm | (backbone_options or {})))
    elif backbone_options:
        raise InputError("backbone_options are for a row's name; a module comes as it is")
    size = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    return build_detector(kind, backbone, num_classes, size, chosen)


def create_classification_task(recipe: Recipe, class_names: Sequence[str]) -> ClassificationTask:
    """What `training.fit` trains for a recipe on pictures of these classes, with the recipe's first weights loaded."""
    known = {field.name for field in fields(Options)}
    options = {name: value for name, value in asdict(recipe.model).items() if name in known}
    model = create_model(recipe.model.name, len(class_names), recipe.images.size, **options)
    if recipe.model.weights:
        load_weights(model, _weights_file(recipe.model.weights))
    card = {
        "task": "classification",
        "model": recipe.model.name,
        "image_size": recipe.images.size,
        "options": options,
        "class_names": list(class_names),
        "images": asdict(recipe.images),
    }
    return ClassificationTask(
        model,
        card,
        model.position_table_names(),
        label_smoothing=recipe.optimizer.label_smoothing,
        mixup=recipe.images.mixup,
        cutmix=recipe.images.cutmix,
    )


class Loaded(NamedTuple):
    """A trained network: `model` in evaluation mode, on the CPU, and what its checkpoint says of it."""

    model: Classifier
    card: dict[str, Any]
    """Row ("model"), "options", "class_names", "images" (how pictures are prepared), "image_size"."""


def load(checkpoint: str | Path) -> Loaded:
    """The network of a run's folder (its best checkpoint) or of one checkpoint's folder; averaged weights if it has.

    Raises:
        InputError: no checkpoint there, or a broken or foreign one.
    """
    folder = _checkpoint(Path(checkpoint))
    state = read_state(folder)
    card = state.card
    try:
        names = card["class_names"]
        model = create_model(card["model"], len(names), card["image_size"], **card["options"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder} does not say which network it holds ({error!r}); was it written by botformer?"
        ) from error
    file = _weights_of(folder)
    match = initialise(model, read_state_dict(file))
    if match.missing or match.unused or match.other_shape:
        raise InputError(f"{file} does not fit {card['model']} with {len(names)} classes: {match}")
    return Loaded(model.eval(), card)


def _checkpoint(path: Path) -> Path:
    if (path / "state.json").is_file():
        return path
    folder = checkpoint_folder(path, "best") or checkpoint_folder(path, "last")
    if folder is None:
        what = "has no checkpoint yet" if path.is_dir() else "is not a folder"
        raise InputError(f"{path} {what}; expected the --out folder of a training run, or one of its checkpoints")
    return folder


def _weights_file(source: str) -> str | Path:
    """A run's or a checkpoint's folder stands for the weights in it; anything else for itself."""
    return _weights_of(_checkpoint(Path(source))) if Path(source).is_dir() else source


def _weights_of(checkpoint: Path) -> Path:
    """The averaged weights where there are any."""
    averaged = checkpoint / "ema.safetensors"
    return averaged if averaged.is_file() else checkpoint / "model.safetensors"


def _height_and_width(image_size: ImageSize, row: Row) -> tuple[int, int]:
    size = row.image_size if image_size is None else image_size
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise InputError(f"image_size must be at least 1 pixel, one number or (height, width), got {size!r}")
    return sides
