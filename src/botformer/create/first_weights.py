"""What a network starts from (`model.weights`): found, then loaded, and remembered by the run."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from botformer.backbone.resnet import Stages
from botformer.create.from_checkpoint import weights_file
from botformer.detection import Detector
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD
from botformer.recipes.schema import Model
from botformer.training.checkpoint import read_state
from botformer.training.loaded_weights import LoadedWeights
from botformer.weights.hub_file import local_file
from botformer.weights.imagenet import (
    IMAGENET,
    ImagenetWeights,
    find_imagenet_weights,
    read_imagenet_weights,
    why_no_imagenet_weights,
)
from botformer.weights.load import load_tensors
from botformer.weights.model_file import read_model_config
from botformer.weights.read_state_dict import read_state_dict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FirstWeights:
    """Weights that were found, and not yet read."""

    source: str | Path | ImagenetWeights
    normalization: dict[str, list[float]] = field(default_factory=dict)
    """`mean` and `std` of a model config, where images are not normalised for these weights as usual."""

    @property
    def variances_lost(self) -> bool:
        """Whether the BatchNorms have to be calibrated before they are trained."""
        return isinstance(self.source, ImagenetWeights) and self.source.variances_lost


def find_first_weights(model: Model) -> FirstWeights | None:
    """What `model.weights` names, in the log too; None: the network starts from random weights.

    Raises:
        InputError: the run or checkpoint that it names has no weights.
    """
    if not model.weights:
        return None
    if model.weights == IMAGENET and not Path(IMAGENET).exists():
        found = find_imagenet_weights(model.name)
        if found is None:
            log.warning(
                "model.weights imagenet: %s. The network starts from random weights: it needs many more images and "
                "epochs to become as good, and with some hundred images it does not",
                why_no_imagenet_weights(model.name),
            )
            return None
        log.info("model.weights imagenet: %s. %s", found.source, found.about)
        return FirstWeights(found, unusual_normalization({"mean": found.mean, "std": found.std}))
    source = weights_file(model.weights)
    return FirstWeights(source, unusual_normalization(_model_config_beside(source)))


def load_first_weights(task: nn.Module, first: FirstWeights, name: str) -> LoadedWeights:
    """Load them into the network of a task, and say what was loaded. `name`: the network's row.

    Raises:
        InputError: they cannot be read, or nothing in them fits.
    """
    network = task.get_submodule("model")
    part = "backbone" if isinstance(network, Detector) else ""
    source = first.source.source if isinstance(first.source, ImagenetWeights) else first.source
    tensors, file = _read(first.source, network)
    match = load_tensors(network, tensors, source, part)
    random = len(match.missing) + len(match.other_shape)
    if random > len(match.loaded):
        log.warning(
            "only %d of %d tensors come from %s (model.weights), the rest stays random: they seem to belong to "
            "another network than %s (model.name)",
            len(match.loaded),
            len(match.loaded) + random,
            source,
            name,
        )
    prefix = f"model.{match.part}." if match.part else "model."
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    log.info("sha256 of %s: %s", file.name, sha256)
    return LoadedWeights(
        source=str(source),
        sha256=sha256,
        names=tuple(prefix + name for name in match.loaded),
    )


def _read(source: str | Path | ImagenetWeights, network: nn.Module) -> tuple[dict[str, Tensor], Path]:
    if isinstance(source, ImagenetWeights):
        stages = network.backbone if isinstance(network, Detector) else network
        assert isinstance(stages, Stages)
        assert isinstance(stages.bn1.eps, float)
        return read_imagenet_weights(source, stages.bn1.eps)
    file = local_file(source)
    return read_state_dict(file), file


def _model_config_beside(source: str | Path) -> dict[str, Any]:
    """What a run or a file of botformer says of its network; empty where nothing is said."""
    try:
        file = local_file(source)
        if file.with_name("state.json").is_file():
            return read_state(file.parent).model_config
        return read_model_config(file) if file.suffix == ".safetensors" and file.is_file() else {}
    except InputError:  # weights of others; whether they can be read is seen when they are
        return {}


def unusual_normalization(model_config: dict[str, Any]) -> dict[str, list[float]]:
    """`mean` and `std` of a model config, where they are others than ImageNet's."""
    mean, std = (tuple(model_config.get(name) or ()) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        return {}
    return {"mean": list(mean), "std": list(std)}
