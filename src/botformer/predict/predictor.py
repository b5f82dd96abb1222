"""The predictor: files, arrays, tensors -> typed results. Commands, the report and programs use this one class."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from botformer.create.from_checkpoint import Loaded, load
from botformer.data.image_inputs import Damaged, InputImage, NamedBytes, input_image
from botformer.data.image_io import BadImage
from botformer.detection import Detector
from botformer.environment import cores
from botformer.errors import InputError, no_device, unknown
from botformer.predict.classifier import ClassifierNetwork
from botformer.predict.detector import DetectorNetwork
from botformer.predict.own_copy import own_copy
from botformer.predict.results import Result, Unreadable

Precision = Literal["float32", "bf16"]

_PIXELS_AT_ONCE, _PIXELS_AT_ONCE_ON_CPU = 2**22, 2**19
"""Of a batch, on the network's canvas: four images of 1024 px, as in an evaluation. On a CPU ten of 224 px,
whose maps stay in the cache."""
_MOST_AT_ONCE = 64
_MOST_DECODERS = 8


class Predictor:
    """A trained network that takes images as programs have them.

    Threads may share one: nothing of a call is kept, and there is no lock. An image of many that cannot be read becomes
    `Unreadable` in its place.

    Args:
        source: what `botformer.load` takes: the folder of a run, a .safetensors file, "nuclei", or
            "hf://owner/name"; or what it returned, whose network keeps its mode and device and shares its weights.
        device: "auto" (CUDA, MPS, or else the CPU), or as PyTorch names one.
        batch_size: images that the network sees at once; by default as many as have four million pixels on its canvas
            (on a CPU half a million), at most 64, and one where images come in tiles. It changes results by rounding
            alone.
        threshold: detectors: least score of what is returned; 0: all that the network gives.
        tile: detectors: side in px of the tiles into which larger images are cut; 0: none; None: as the network was
            trained for.
        flip: predict on each image and on its mirror image, and average.
        precision: "float32" gives what an evaluation gives; "bf16" computes in bfloat16 where it can.
        max_megapixels: larger files count as unreadable (they may be decompression bombs); by default the network's own
            limit.
        decoders: threads that decode images; by default one per core, at most 8.

    Raises:
        InputError: no such network, device or precision, or a value out of range.
    """

    def __init__(
        self,
        source: str | Path | Loaded,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
        threshold: float = 0.0,
        *,
        tile: int | None = None,
        flip: bool = False,
        precision: Precision = "float32",
        max_megapixels: float | None = None,
        decoders: int | None = None,
    ) -> None:
        loaded = _loaded(source)
        for name, value, least in (("batch_size", batch_size, 1), ("decoders", decoders, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InputError(f"{name} is {value!r}; expected a whole number, at least {least}")
        if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise InputError(f"threshold is a score between 0 and 1, got {threshold!r}")
        if precision not in get_args(Precision):
            raise unknown("precision", precision, get_args(Precision))
        if loaded.model.in_chans != 3:
            raise InputError(
                f"this network takes images of {loaded.model.in_chans} channels, and a predictor reads red, green and "
                "blue; call it yourself: model(model.preprocess(images))"
            )
        self.device = _device(device)
        self.model, self.model_config = own_copy(loaded.model, self.device).eval(), loaded.model_config
        """The network, on its device, and what `botformer.load` says of it."""
        compute = partial(_computing, self.device, precision)
        self.network: ClassifierNetwork | DetectorNetwork
        if isinstance(self.model, Detector):
            self.network = DetectorNetwork(
                self.model, self.model_config, threshold=threshold, tile=tile, flip=flip, compute=compute
            )
        else:
            for name, given in (("threshold", threshold), ("tile", tile)):
                if given:
                    raise InputError(f"{name} is for detectors, and this network is a classifier; leave it out")
            self.network = ClassifierNetwork(self.model, self.model_config, flip=flip, compute=compute)
        self.names: Sequence[str] = self.network.names
        """The classes, or the categories, in the order of their labels."""
        if max_megapixels is not None and not max_megapixels > 0:
            raise InputError(f"max_megapixels is {max_megapixels!r}; expected more than 0")
        self.max_megapixels = self.network.max_megapixels if max_megapixels is None else max_megapixels
        self.batch_size = batch_size or _batch_size(self.network, self.device)
        self.decoders = decoders or min(_MOST_DECODERS, cores())

    def __call__(self, images: Any) -> Any:
        """What the network predicts.

        Args:
            images: one image, or several in a list, a tuple, or an array or tensor of four dimensions, or any other
                iterable, whose results then come one by one as `stream` gives them. An image is a path, the bytes of an
                image file (or an open file), an image of Pillow's, an array (height, width, 3) or (height, width), a
                tensor (3, height, width). Numbers are bytes, floats from 0 to 1, or 16-bit greys. Colours are red,
                green, blue (OpenCV's are the other way round: `image[..., ::-1]`), with opacity as a fourth channel.

        Returns:
            A `ClassificationResult` or `DetectionResult`, a list of them, or an iterator over them.

        Raises:
            InputError: the one image cannot be read. Of several, it becomes `Unreadable` in the list.
        """
        if isinstance(images, (list, tuple)):
            return list(self.stream(images))
        if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
            return list(self.stream(images))
        if isinstance(images, Iterable) and not isinstance(images, _ONE) and not hasattr(images, "read"):
            return self.stream(images)
        prepared = self.network.prepare(input_image(images, 1, self.max_megapixels))
        (result,) = self.network.run([prepared])  # type: ignore[arg-type]
        if isinstance(result, Unreadable):
            raise BadImage(result.name, result.error)
        return result

    def stream(
        self, images: Iterable[Any], on_progress: Callable[[float], object] = lambda images: None
    ) -> Iterator[Result | Unreadable]:
        """Results one by one, in the order of the images, while threads decode those that follow.

        At most two batches of images are taken ahead; nothing is kept of those that are done.

        Args:
            images: as many as there are; see `__call__` for what an image is.
            on_progress: called with the number of images that are done, within an image in tiles with fractions.

        Raises:
            InputError: a single image where several are expected.
        """
        if isinstance(images, _ONE) and not (isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4):
            raise InputError(f"stream takes several images, got one {type(images).__name__}; call predictor(image)")
        if not isinstance(images, Iterable):
            raise InputError(f"stream takes several images, got a {type(images).__name__}")
        return self._stream(iter(images), on_progress)

    def _stream(self, images: Iterator[Any], on_progress: Callable[[float], object]) -> Iterator[Result | Unreadable]:
        waiting: deque[Future[Any]] = deque()
        numbers, done, failure = count(1), 0, None
        decoding = ThreadPoolExecutor(self.decoders, "botformer-decoding")
        try:
            while True:
                while failure is None and len(waiting) < 2 * self.batch_size:
                    try:
                        image = next(images)
                    except Exception as error:  # the images that came before are predicted first
                        failure = error
                        break
                    opened = input_image(image, next(numbers), self.max_megapixels)
                    waiting.append(decoding.submit(self._prepare, opened))
                if not waiting:
                    break
                batch = [waiting.popleft().result() for _ in range(min(self.batch_size, len(waiting)))]
                for result in self._results(batch, lambda more, done=done: on_progress(done + more)):
                    done += 1
                    yield result
                on_progress(done)
        finally:
            decoding.shutdown(wait=False, cancel_futures=True)
        if not isinstance(failure, StopIteration):
            assert failure is not None
            raise failure

    def _prepare(self, image: InputImage) -> Any:
        try:
            return self.network.prepare(image)
        except BadImage as error:
            return Unreadable(image.name, error.reason)

    def _results(self, batch: Sequence[Any], on_progress: Callable[[float], object]) -> list[Result | Unreadable]:
        readable = [each for each in batch if not isinstance(each, Unreadable)]
        results = iter(self.network.run(readable, on_progress) if readable else [])
        return [each if isinstance(each, Unreadable) else next(results) for each in batch]


predictor = Predictor
"""As `botformer.predictor` it is called like the function that it is to a program."""


def _loaded(source: Any) -> Loaded:
    if isinstance(source, nn.Module):
        raise InputError(
            "predictor takes a trained network with what belongs to it: the folder of a run, a .safetensors file, or "
            f"what botformer.load returned. Write this {type(source).__name__} into a file first: "
            "botformer.save(model, botformer.model_config(model, names), FILE)"
        )
    if not isinstance(source, (str, Path, Loaded)):
        raise InputError(f"predictor takes the folder of a run, a file or a name, got a {type(source).__name__}")
    return source if isinstance(source, Loaded) else load(source)


def _batch_size(network: ClassifierNetwork | DetectorNetwork, device: torch.device) -> int:
    """An image in tiles is a batch of its own."""
    if isinstance(network, DetectorNetwork) and network.tile:
        return 1
    pixels = _PIXELS_AT_ONCE_ON_CPU if device.type == "cpu" else _PIXELS_AT_ONCE
    return max(1, min(_MOST_AT_ONCE, pixels // network.side**2))


_ONE = (
    str,
    bytes,
    bytearray,
    memoryview,
    Path,
    Image.Image,
    np.ndarray,
    np.generic,
    Tensor,
    Mapping,
    NamedBytes,
    Damaged,
)
"""What is one image, or none, though some of it can be iterated over."""


def _computing(device: torch.device, precision: Precision) -> ExitStack:
    """The context in which a network computes; entered by one thread."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    if precision == "bf16":
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
    return stack


def _device(device: str | torch.device) -> torch.device:
    """Raises `InputError` where there is none such."""
    here = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        return here or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1, mps or the like") from None
    if wanted.type not in ("cpu", here.type if here else "cpu"):
        raise no_device(device, here.type if here else "cpu", torch.__version__)
    return wanted
