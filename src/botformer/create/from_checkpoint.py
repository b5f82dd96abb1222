"""Trained networks from checkpoints and from .safetensors files with a model config."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from botformer.backbone.resnet import Classifier
from botformer.create.model_config import check_model_config
from botformer.create.networks import network_of
from botformer.detection import Detector
from botformer.errors import InputError
from botformer.training.checkpoint import check_file, checkpoint_folder, read_state
from botformer.weights import SHIPPED, Match, load_state, read_model_config, read_state_dict
from botformer.weights.hub_file import SAFETENSORS, hub_file, is_hub_address, read_address
from botformer.weights.load import check_finite
from botformer.weights.model_file import holds_model_config

_EXPORTED = ("config.json", "run.py")
"""What `botformer export` writes beside a network, in any format."""


class Loaded(NamedTuple):
    """A trained network."""

    model: Classifier | Detector
    """In evaluation mode, on the CPU."""
    model_config: dict[str, Any]
    """"task" ("classification" or "detection"), "model" (its row in the table of variants), "options", "images" (how
    images are prepared), "image_size"; "class_names", or "categories" [[id, name], ...], "detector" and "settings";
    of key points "keypoint_names", "keypoint_sigmas" and "skeleton". Where they are not as usual: "in_chans", "mean"
    and "std" of the channels, and a detector's "test_size". `botformer.model_config` makes one of a network."""


def load(checkpoint: str | Path) -> Loaded:
    """Load a trained network.

    Args:
        checkpoint: the folder of a run (its best checkpoint; RUN/last is the last), the folder of one checkpoint (its
            averaged weights, where it has some), a .safetensors file of `botformer.save` or a folder with one of the
            name model.safetensors, hf://owner/name or hf://owner/name@revision on the Hugging Face hub, or the name of
            a network that comes with the package ("nuclei").

    Raises:
        InputError: no checkpoint there, one that is broken or of another program, or weights that are not finite
            (`read_state_dict` gives them all the same, to look at).
    """
    return load_hub(checkpoint) if is_hub_address(checkpoint) else _load_file(Path(weights_file(checkpoint)))


def load_hub(address: str | Path, cache_dir: str | Path | None = None, local_files_only: bool = False) -> Loaded:
    """As `load`, of hf://owner/name[@revision][/file]; `cache_dir` and `local_files_only` as in `hub_file`."""
    where = partial(hub_file, cache_dir=cache_dir, local_files_only=local_files_only)
    file = where(address, (SAFETENSORS,))
    if file.suffix != ".safetensors" or holds_model_config(file):
        return _load_file(file)
    config = {}
    with suppress(InputError, OSError, ValueError):  # it only makes the message better
        config = json.loads(where(str(read_address(address)._replace(file="config.json"))).read_text(encoding="utf-8"))
    architecture = config.get("architecture") if isinstance(config, dict) else None
    kind = f"weights of timm's {architecture}" if architecture else "weights"
    raise InputError(
        f"{read_address(address)} holds {kind}, but does not say how botformer would build the network: "
        "botformer.push_to_hub did not write it. To start a training from these weights, give them as --model.weights "
        f"{read_address(address)}"
    )


def _load_file(file: Path) -> Loaded:
    if not file.is_file():
        raise InputError(
            f"{file} does not exist; expected the --out folder of a training run, one of its checkpoints, a "
            f".safetensors file that botformer.save wrote, hf://owner/name, or a network that comes with botformer: "
            f"{', '.join(SHIPPED)}"
        )
    state = file.with_name("state.json")
    if state.is_file():
        checkpoint = read_state(file.parent)
        if file.stem in checkpoint.sets:
            check_file(file.parent, checkpoint, file.stem)
        model_config = checkpoint.model_config
    else:
        model_config = read_model_config(file)
    return Loaded(_build(model_config, read_state_dict(file), file).eval(), model_config)


def load_for_rgb(checkpoint: str | Path) -> Loaded:
    """As `load`, for the commands, which read images as red, green and blue. Raises `InputError` for other channels."""
    loaded = load(checkpoint)
    if loaded.model.in_chans != 3:
        raise InputError(
            f"{checkpoint} takes images of {loaded.model.in_chans} channels, and the commands read red, green and "
            "blue; use it in Python: model = botformer.load(FILE).model; model(model.preprocess(images))"
        )
    return loaded


def is_shipped(source: str | Path) -> bool:
    """Whether this is the name of a network of the package, which a folder without a checkpoint does not hide."""
    return str(source) in SHIPPED and not Path(source).is_file() and not _holds_checkpoint(Path(source))


def weights_file(source: str | Path) -> str | Path:
    """The file with the weights of a run, a checkpoint, RUN/last, RUN/best, or a network that comes with the package.

    A folder without a checkpoint does not hide a network of the package that has its name. In a folder that is no run,
    such as a copy of a repository of the hub, it is model.safetensors. Anything else, such as a file or hf://owner/name,
    is returned as it is.
    """
    if is_hub_address(source):
        return str(read_address(source))
    path = Path(source)
    if path.name in ("last", "best") and path.is_file():
        path = checkpoint_folder(path.parent, path.name) or path
    if is_shipped(source):
        shipped = SHIPPED[str(source)]
        if not shipped.is_file():
            raise InputError(
                f"the network {str(source)!r} should come with botformer, but its file {shipped} is missing; install "
                "botformer again, or name a network of yours"
            )
        return shipped
    if path.is_dir() and (path / SAFETENSORS).is_file() and not _holds_checkpoint(path):
        return path / SAFETENSORS
    return _weights_of(_checkpoint(path)) if path.is_dir() else source


def _build(model_config: dict[str, Any], state: dict[str, Tensor], file: Path) -> Classifier | Detector:
    try:
        check_model_config(model_config)
        with torch.device("meta"):  # takes no memory, whatever the file says
            planned = network_of(model_config)
        _check_fit(load_state(planned, state, assign=True), model_config, file)
        check_finite(state, file)
        model = network_of(model_config)
    except InputError as error:
        if str(file) in str(error):
            raise
        raise InputError(
            f"the model config of {file} cannot be built: {error}; was the file written by a later version of "
            "botformer?"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} does not say which network it holds ({error!r}); was it written by botformer?"
        ) from error
    load_state(model, state)
    return model


def _check_fit(match: Match, model_config: dict[str, Any], file: Path) -> None:
    if match.missing or match.unused or match.other_shape:
        kinds = len(model_config["categories" if model_config["task"] == "detection" else "class_names"])
        raise InputError(f"{file} does not fit {model_config['model']} with {kinds} classes: {match}")


def _holds_checkpoint(path: Path) -> bool:
    return (path / "state.json").is_file() or checkpoint_folder(path, "last") is not None


def _checkpoint(path: Path) -> Path:
    if (path / "state.json").is_file():
        return path
    folder = checkpoint_folder(path, "best") or checkpoint_folder(path, "last")
    if folder is not None:
        return folder
    if all((path / name).is_file() for name in _EXPORTED):
        raise InputError(
            f"{path} is an exported network, which its {_EXPORTED[1]} runs without botformer; here, give the run, the "
            "checkpoint or the .safetensors file from which it was exported"
        )
    raise InputError(
        f"{path} has no checkpoint yet; expected the --out folder of a training run, or one of its checkpoints"
    )


def _weights_of(checkpoint: Path) -> Path:
    """The averaged weights where there are any."""
    averaged = checkpoint / "ema.safetensors"
    return averaged if averaged.is_file() else checkpoint / "model.safetensors"
