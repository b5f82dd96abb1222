"""Load weights into a model that may differ from the one they were saved from."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from botformer.errors import InputError
from botformer.text import and_more
from botformer.weights.read_state_dict import read_state_dict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """Which tensors of a file were loaded into a model. Names of parameters and buffers, sorted."""

    loaded: list[str]
    """In both, and loaded."""
    missing: list[str]
    """Only in the model: they keep their values."""
    unused: list[str]
    """Only in the file."""
    other_shape: list[str]
    """In both, with different shapes: they keep the values of the model."""

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for names, what in (
            (self.missing, "not in the file, left as initialised"),
            (self.other_shape, "of another shape, left as initialised"),
            (self.unused, "in the file but not in the model"),
        ):
            if names:
                parts.append(f"{len(names)} {what}: {and_more(names, 12)}")
        return "; ".join(parts)


def load_weights(model: nn.Module, source: str | Path, part: str = "") -> Match:
    """Load what fits from a file into `model`, log what did and what did not, and return it.

    A ResNet's file fits any BoT row of the same depth, except for c5's `conv2`. Position tables of another map size are
    resized by the layer's own policy.

    Args:
        source: see `read_state_dict`.
        part: a submodule, such as a detector's "backbone". A file without names under it is loaded into that submodule
            alone: a classifier's file into a detector's backbone, a detector's file into the whole detector.

    Raises:
        InputError: the file cannot be read, or nothing in it fits the model.
    """
    state = read_state_dict(source)
    whole = not part or any(name.startswith(f"{part}.") for name in state)
    match = load_state(model if whole else model.get_submodule(part), state)
    logger.info("weights from %s%s: %s", source, "" if whole else f" into the {part}", match)
    if not match.loaded:
        raise InputError(f"nothing in {source} fits this model ({match}); is it a ResNet or BoTNet of the same depth?")
    return match


def load_state(model: nn.Module, state: dict[str, Tensor]) -> Match:
    """Copy every tensor of `state` whose name and shape fit.

    The modules' own load hooks run first: they resize position tables and translate old names.
    """
    own = model.state_dict()
    other_shape = {name for name, tensor in state.items() if name in own and not _fits(name, tensor, own[name])}
    result = model.load_state_dict({n: t for n, t in state.items() if n not in other_shape}, strict=False)
    missing = set(result.missing_keys) - other_shape
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # files of old versions lack them
    return Match(
        loaded=sorted(own.keys() - missing - other_shape - (counters - state.keys())),
        missing=sorted(missing - counters),
        unused=sorted(name for name in result.unexpected_keys if not name.endswith("num_batches_tracked")),
        other_shape=sorted(other_shape),
    )


def _fits(name: str, loaded: Tensor, own: Tensor) -> bool:
    is_table = name.rpartition(".")[2] in ("rel_height", "rel_width", "abs_height", "abs_width")
    return loaded.shape == own.shape or (is_table and loaded.shape[1:] == own.shape[1:])
