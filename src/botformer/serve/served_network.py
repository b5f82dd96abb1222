"""A trained network of the server: what it is, its queue, and how many images it computes at once."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

from botformer.backbone.attention_maps import AttentionLayer, attention_layers, attention_modules
from botformer.create.from_checkpoint import is_shipped
from botformer.data.image_inputs import NamedBytes, input_image
from botformer.explain.forward_pass import layers_of
from botformer.explain.seen_image import SeenImage, see, seen_as
from botformer.predict.classifier import Prepared as PreparedForClasses
from botformer.predict.detector import DetectorNetwork
from botformer.predict.detector import Prepared as PreparedForObjects
from botformer.predict.predictor import Predictor
from botformer.predict.results import Result, Unreadable
from botformer.read_file import at_home
from botformer.serve.image_queue import ImageQueue
from botformer.serve.limits import Limits
from botformer.weights.hub_file import HUB

Prepared = PreparedForClasses | PreparedForObjects


@dataclass(frozen=True)
class SeenLayers:
    """An image as a network saw it: all that a query of its attention needs."""

    seen: SeenImage
    layers: Sequence[AttentionLayer]

    @property
    def bytes(self) -> int:
        tensors = (self.seen.pixels, *(layer.x for layer in self.layers))
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)  # pixels are a part of a canvas


@dataclass(frozen=True)
class Answer:
    """Of one image."""

    result: Result | Unreadable
    layers: SeenLayers | None
    """None: of a network without attention, or of an image in tiles, which was not seen as a whole."""


class ServedNetwork:
    """A predictor under a name, with a thread that computes what waits.

    Args:
        source: as on the command line.
        on_batch: called with the name and the number of images of each batch.
    """

    def __init__(
        self, name: str, source: str, predictor: Predictor, limits: Limits, on_batch: Callable[[str, int], object]
    ) -> None:
        self.name, self.source, self.predictor = name, source, predictor
        self.attention = attention_modules(predictor.model)
        self._on_batch, self._megapixels = on_batch, limits.megapixels
        self.queue = ImageQueue[Prepared, Answer](name, self._run, predictor.batch_size, limits.queue, time.monotonic)

    @property
    def task(self) -> str:
        return self.predictor.model_config["task"]

    @property
    def category_ids(self) -> Sequence[int]:
        """Of a detector's classes, in their order; none of a classifier's."""
        network = self.predictor.network
        return network.category_ids if isinstance(network, DetectorNetwork) else ()

    def prepare(self, image: NamedBytes) -> Prepared:
        """For the queue; any thread may call it. Raises `BadImage`."""
        return self.predictor.network.prepare(input_image(image, 1, self._megapixels))

    def layers_of(self, image: bytes) -> SeenLayers:
        """By a forward pass of its own. Raises `InputError` for a network without attention."""
        config = self.predictor.model_config
        seen = see({**config, "images": {**config["images"], "max_megapixels": self._megapixels}}, image)
        return SeenLayers(seen, layers_of(self.predictor.model, seen.pixels))

    def describe(self) -> dict[str, Any]:
        """As /networks has it."""
        network, config = self.predictor.network, self.predictor.model_config
        about: dict[str, Any] = {
            "name": self.name,
            "source": _public_source(self.source),
            "task": self.task,
            "kind": config.get("detector", "classifier"),
            "row": config["model"],
            "classes": list(network.names),
            "side_px": network.side,
            "attention": [
                {"name": each.name, "heads": each.heads, "stride_px": each.stride_px} for each in self.attention
            ],
            "parameters": sum(parameter.numel() for parameter in self.predictor.model.parameters()),
        }
        if isinstance(network, DetectorNetwork):
            about["category_ids"] = list(network.category_ids)
            about["keypoints"] = list(network.layout.names)
            about["skeleton"] = [list(pair) for pair in network.layout.skeleton]
        return about

    def _run(self, batch: Sequence[Prepared]) -> list[Answer]:
        self._on_batch(self.name, len(batch))
        results: list[Result | Unreadable] = []

        def run() -> None:
            results.extend(self.predictor.network.run(cast(Any, batch)))

        if not self.attention or any(_pixels(each) is None for each in batch):
            run()
            return [Answer(result, None) for result in results]
        # The layers' maps are there anyway: who clicks on the image then waits for no forward pass.
        layers = attention_layers(self.predictor.model, run)
        assert all(len(layer.x) == len(batch) for layer in layers)
        return [
            Answer(result, SeenLayers(self._seen(prepared), [_only(layer, place) for layer in layers]))
            for place, (result, prepared) in enumerate(zip(results, batch, strict=True))
        ]

    def _seen(self, prepared: Prepared) -> SeenImage:
        return seen_as(self.predictor.model_config, prepared.size_px, _pixels(prepared))


def named(sources: Sequence[str]) -> Mapping[str, str]:
    """Names -> sources: the last part of each, numbered where several have the same."""
    last = [source.rstrip("/") for source in sources]
    last = [source.rpartition("@")[0] or source if source.startswith(HUB) else source for source in last]
    last = [at_home(source).name or Path(source).resolve().name or source for source in last]
    last = [name.removesuffix(".safetensors") for name in last]
    several = {name for name, count in Counter(last).items() if count > 1}
    names: dict[str, str] = {}
    for name, source in zip(last, sources, strict=True):
        numbered = (f"{name}-{number}" for number in count(1))
        candidates = numbered if name in several else chain([name], numbered)
        names[next(each for each in candidates if each not in names)] = source
    return names


def _pixels(prepared: Prepared) -> Any:
    return prepared.canvas if isinstance(prepared, PreparedForObjects) else prepared.pixels


def _only(layer: AttentionLayer, place: int) -> AttentionLayer:
    """A copy, so that the batch's map is freed."""
    return replace(layer, x=layer.x[place : place + 1].clone())


def _public_source(source: str) -> str:
    """Without the folders of this machine."""
    if is_shipped(source):
        return "comes with botformer"
    return source if source.startswith(HUB) else Path(source).name
