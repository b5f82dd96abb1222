"""Networks as they are deployed: a classifier and Mask R-CNN, in PyTorch and exported, beside torchvision's.

What computes in float32 is compared as in every suite. Rounding to bfloat16 and int8 changes the logits of random
weights: such results are only held to a coarse bound here, which a lost layer would exceed; accuracy with trained
weights is measured by `benchmarks/deployed_accuracy.py`. Exported detectors are compared when they are exported.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from botformer.benchmark.comparison import SEED, Case, Implementation
from botformer.benchmark.detection_suite import TINY_WORK, TORCHVISION, Work, our_detector, torchvision_detector
from botformer.benchmark.model_steps import our_model
from botformer.benchmark.model_suite import torchvision_resnet50
from botformer.benchmark.timing import Call
from botformer.deploy import optimize
from botformer.deploy.export import export
from botformer.deploy.exported_folder import read_config
from botformer.deploy.formats import FORMATS, FormatName, Precision
from botformer.deploy.int8 import quantize
from botformer.deploy.prepared_images import inputs_of
from botformer.deploy.quantizers import PACKAGES
from botformer.deploy.read_detections import read_detections
from botformer.deploy.runtimes import Runtime, open_exported
from botformer.image_normalization import normalize
from botformer.recipes.schema import DetectionImages

BATCHES = (1, 8)
INPUTS = 3
CALIBRATED_ON = 6
"""Images: enough for a measurement of speed."""
ROUNDED = 0.5
"""Largest difference of logits in bfloat16 or int8 from those in float32, as norms."""
DETECTOR_PX = 800
NOT_ON_A_GPU = "exported networks are compared on a CPU"

InPyTorch = Literal["eager", "optimized", "compiled"]


@dataclass(frozen=True)
class Way:
    """How a network runs."""

    runtime: InPyTorch | FormatName
    precision: Precision = "float32"

    @property
    def title(self) -> str:
        return f"{FORMATS[self.runtime].title if self.runtime in FORMATS else self.runtime}, {self.precision}"

    @property
    def exported(self) -> bool:
        return self.runtime not in get_args(InPyTorch)

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        if not self.exported:
            return ""
        row = FORMATS[self.runtime]  # pyright: ignore[reportArgumentType]
        packages = [*row.to_write, *row.to_run, *(PACKAGES[self.runtime] if self.precision == "int8" else ())]
        missing = [package for package in packages if find_spec(package) is None]
        return f"{' and '.join(missing)} not installed" if missing else ""


EAGER = Way("eager")
IN_PYTORCH = (EAGER, Way("optimized"), Way("optimized", "bfloat16"))
COMPILED = (Way("compiled"), Way("compiled", "bfloat16"))
EXPORTED = (
    Way("onnx"),
    Way("onnx", "int8"),
    Way("openvino"),
    Way("openvino", "bfloat16"),
    Way("openvino", "int8"),
)


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """A classifier at each batch size, and a detector. Quick: what needs neither a compiler nor a quantiser."""
    if quick:
        ways = (*IN_PYTORCH, Way("onnx"), Way("openvino", "bfloat16"))
        yield classifier_case({"botnet_nano": ways}, 64, 1, device)
        yield detector_case("botnet_nano", ways, TINY_WORK, device)
        return
    others = (*COMPILED, *EXPORTED)
    for batch in BATCHES:
        yield classifier_case({"botnet50": (*IN_PYTORCH, *others), "resnet50": others}, 224, batch, device)
    yield detector_case("botnet50", (*IN_PYTORCH, *others), Work(DetectionImages(size=DETECTOR_PX), 1), device)


def classifier_case(ways: dict[str, Sequence[Way]], image_px: int, batch: int, device: torch.device) -> Case:
    """Images (batch, 3, px, px) -> logits. `ways`: by our network."""
    peer = Implementation(
        "torchvision resnet50, eager, float32",
        lambda: _eager(torchvision_resnet50(image_px), image_px, batch),
        unsupported_reason=_on_a_gpu(device),
        third_party=True,
    )
    ours = [
        Implementation(
            f"{name}, {way.title}",
            lambda name=name, way=way: classifier(name, way, image_px, batch),
            output=name if way.precision == "float32" else "",
            unsupported_reason=_on_a_gpu(device) or way.missing,
            allocates=not way.exported,
        )
        for name, by_name in ways.items()
        for way in by_name
    ]
    return Case({"network": "classifier", "px": image_px, "batch": batch}, [peer, *ours], tolerance=0.005)


def detector_case(backbone: str, ways: Sequence[Way], work: Work, device: torch.device) -> Case:
    """Images (3, px, px) -> boxes, scores and masks, of which each detector finds as many as it may.

    torchvision's masks are pasted into the image, ours are run lengths, wherever the network runs.
    """
    peer = Implementation(
        f"{TORCHVISION}, eager, float32",
        lambda: _eager_detector(torchvision_detector(work), work),
        unsupported_reason=_on_a_gpu(device),
        third_party=True,
    )
    ours = [
        Implementation(
            f"Mask R-CNN, {backbone}, {way.title}",
            lambda way=way: detector(backbone, way, work),
            unsupported_reason=_on_a_gpu(device) or way.missing,
            allocates=not way.exported,
        )
        for way in ways
    ]
    return Case({"network": "Mask R-CNN", "px": work.images.size, "batch": work.batch}, [peer, *ours])


def classifier(name: str, way: Way, image_px: int, batch: int) -> Call:
    """A call that returns logits (batch, classes)."""
    if way.exported:
        call = _in_runtime(_open(_exported_classifier(name, way, image_px)), image_px, batch)
    else:
        call = _eager(_in_pytorch(_classifier(name, image_px), way), image_px, batch)
    if way.precision != "float32":
        expected = _eager(_classifier(name, image_px), image_px, batch)(0)
        error = float((call(0) - expected).norm() / expected.norm())
        if not error <= ROUNDED:
            raise AssertionError(f"its logits differ from those in float32 by {error:.2g} of the norm")
    return _warmed_up(call)


def detector(backbone: str, way: Way, work: Work) -> Call:
    """A call that returns boxes and scores of every image, with masks as run lengths made."""
    if not way.exported:
        return _eager_detector(_in_pytorch(_detector(backbone, work), way), work)
    runtime = _open(_exported_detector(backbone, way, work))
    size = work.images.size, work.images.size
    inputs = [[inputs_of(runtime.config, image, size) for image in images] for images in _canvases(work)]

    def exported_call(number: int) -> list[Tensor]:
        found = [read_detections(runtime(**each), [size], [size])[0] for each in inputs[number % INPUTS]]
        return [one[name] for one in found for name in ("boxes", "scores")]

    return _warmed_up(exported_call)


def _eager_detector(model: Any, work: Work) -> Call:
    """PyTorch's call of a detector, ours or torchvision's."""
    model = model.eval().to(memory_format=torch.channels_last)
    canvases = _canvases(work)

    def call(number: int) -> list[Tensor]:
        with torch.inference_mode():
            found = model(canvases[number % INPUTS])
        return [one[name] for one in found for name in ("boxes", "scores")]

    return call


def _eager(model: Any, image_px: int, batch: int) -> Call:
    """PyTorch's call of a network that takes normalised images."""
    model = model.eval()
    model = model if hasattr(model, "_orig_mod") else model.to(memory_format=torch.channels_last)
    images = [normalize(pixels).to(memory_format=torch.channels_last) for pixels in _pixels(image_px, batch)]

    def call(number: int) -> Tensor:
        with torch.inference_mode():
            return model(images[number % INPUTS])

    return call


def _in_runtime(runtime: Runtime, image_px: int, batch: int) -> Call:
    """The same of an exported network, which normalises by itself."""
    inputs = [images.numpy() for images in _pixels(image_px, batch)]
    return lambda number: torch.from_numpy(runtime(pixels=inputs[number % INPUTS])["logits"])


def _in_pytorch(network: nn.Module, way: Way) -> Any:
    if way == EAGER:
        return network
    dtype = torch.bfloat16 if way.precision == "bfloat16" else None
    return optimize(network, compile=way.runtime == "compiled", dtype=dtype)


def _open(folder: Path) -> Runtime:
    return open_exported(folder, torch.get_num_threads())


def _warmed_up(call: Call) -> Call:
    """After calls enough for a runtime to have compiled for the size."""
    for number in range(INPUTS):
        call(number)
    return call


@cache
def _exported_classifier(name: str, way: Way, image_px: int) -> Path:
    if way.precision == "int8":
        pixels = torch.cat(_pixels(image_px, CALIBRATED_ON // INPUTS))
        folder = _exported_classifier(name, Way(way.runtime), image_px)
        return quantize(folder, [{"pixels": image[None].numpy()} for image in pixels], _new_folder())
    return export(_format(way), _classifier(name, image_px), _new_folder(), precision=way.precision)


@cache
def _exported_detector(backbone: str, way: Way, work: Work) -> Path:
    size = work.images.size, work.images.size
    if way.precision == "int8":
        folder = _exported_detector(backbone, Way(way.runtime), work)
        config = read_config(folder)
        inputs = [inputs_of(config, image, size) for images in _canvases(work) for image in images]
        return quantize(folder, inputs[:CALIBRATED_ON], _new_folder())
    return export(_format(way), _detector(backbone, work), _new_folder(), precision=way.precision, size=size)


def _classifier(name: str, image_px: int) -> Any:
    """The same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return our_model(name, image_px).eval()


def _detector(backbone: str, work: Work) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return our_detector(backbone, work).eval()


def _pixels(image_px: int, batch: int) -> list[Tensor]:
    """Noise (batch, 3, px, px) in 0..1; images of different batch sizes begin alike."""
    generator = torch.Generator().manual_seed(SEED)
    return [torch.rand(batch, 3, image_px, image_px, generator=generator) for _ in range(INPUTS)]


@cache
def _canvases(work: Work) -> list[list[Tensor]]:
    return work.canvases(torch.device("cpu"))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Exported networks; they exist as long as the process."""
    return tempfile.TemporaryDirectory()


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_scratch().name))


def _format(way: Way) -> FormatName:
    assert way.runtime in FORMATS
    return way.runtime  # pyright: ignore[reportReturnType]


def _on_a_gpu(device: torch.device) -> str:
    return "" if device.type == "cpu" else NOT_ON_A_GPU
