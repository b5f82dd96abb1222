"""Trained networks from checkpoints and from files that say what they hold."""

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from botformer.backbone.resnet import Classifier
from botformer.create.networks import network_of
from botformer.detection import Detector
from botformer.errors import InputError
from botformer.training.checkpoint import read_state
from botformer.training.checkpoints import checkpoint_folder
from botformer.weights import SHIPPED, load_state, read_model_config, read_state_dict


class Loaded(NamedTuple):
    """A trained network: `model` in evaluation mode, on the CPU, and what its checkpoint says of it."""

    model: Classifier | Detector
    model_config: dict[str, Any]
    """"task" ("classification" or "detection"), row ("model"), "options", "images" (how images are prepared),
    "image_size"; "class_names", or "categories" [[id, name], ...], "detector" and "settings", with key points
    "keypoint_names", "keypoint_sigmas" and "skeleton"."""


def load(checkpoint: str | Path) -> Loaded:
    """The network of a run's folder (its best checkpoint; RUN/last is the last), of one checkpoint's folder, with
    averaged weights if it has them, of a .safetensors file with a model config in it, or one of the package by name
    ("nuclei").

    Raises:
        InputError: no checkpoint there, or a broken or foreign one.
    """
    file = Path(weights_file(checkpoint))
    if not file.is_file():
        raise InputError(
            f"{file} does not exist; expected the --out folder of a training run, one of its checkpoints, a "
            f".safetensors file that botformer.save wrote, or a network that comes with botformer: {', '.join(SHIPPED)}"
        )
    state = file.with_name("state.json")
    model_config = read_state(file.parent).model_config if state.is_file() else read_model_config(file)
    return Loaded(_build(model_config, read_state_dict(file), file).eval(), model_config)


def weights_file(source: str | Path) -> str | Path:
    """What stands for weights: a run's or a checkpoint's folder, RUN/last or RUN/best, or a shipped network's name. A
    folder without a checkpoint that happens to be called like one does not count. The rest stands for itself."""
    path = Path(source)
    if path.name in ("last", "best") and path.is_file():
        path = checkpoint_folder(path.parent, path.name) or path
    if str(source) in SHIPPED and not path.is_file() and not _holds_checkpoint(path):
        shipped = SHIPPED[str(source)]
        if not shipped.is_file():
            raise InputError(
                f"the network {str(source)!r} should come with botformer, but its file {shipped} is missing; install "
                "botformer again, or name a network of yours"
            )
        return shipped
    return _weights_of(_checkpoint(path)) if path.is_dir() else source


def _build(model_config: dict[str, Any], state: dict[str, Tensor], file: Path) -> Classifier | Detector:
    try:
        model = network_of(model_config)
    except InputError as error:  # a value that this version does not know
        raise InputError(f"the model config of {file} cannot be built: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} does not say which network it holds ({error!r}); was it written by botformer?"
        ) from error
    match = load_state(model, state)
    if match.missing or match.unused or match.other_shape:
        kinds = len(model_config["categories" if model_config["task"] == "detection" else "class_names"])
        raise InputError(f"{file} does not fit {model_config['model']} with {kinds} classes: {match}")
    return model


def _holds_checkpoint(path: Path) -> bool:
    return (path / "state.json").is_file() or checkpoint_folder(path, "last") is not None


def _checkpoint(path: Path) -> Path:
    if (path / "state.json").is_file():
        return path
    folder = checkpoint_folder(path, "best") or checkpoint_folder(path, "last")
    if folder is None:
        raise InputError(
            f"{path} has no checkpoint yet; expected the --out folder of a training run, or one of its checkpoints"
        )
    return folder


def _weights_of(checkpoint: Path) -> Path:
    """The averaged weights where there are any."""
    averaged = checkpoint / "ema.safetensors"
    return averaged if averaged.is_file() else checkpoint / "model.safetensors"
