"""Load weights into a model that may differ from the one they were saved from."""

import logging
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from botformer.errors import InputError, unknown
from botformer.text import and_more
from botformer.weights.read_state_dict import plain_names, read_state_dict

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
    part: str = ""
    """The submodule that the names are relative to; empty: the model itself."""

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
    resized by the layer's own policy. The first convolution of an RGB network is adapted to a model of another number
    of channels as timm does: summed over the colours for one channel, else repeated and scaled. Names may stand under
    any prefix.

    Args:
        source: see `read_state_dict`.
        part: a submodule, such as a detector's "backbone". A file without names under it is loaded into that submodule
            alone: a classifier's file into a detector's backbone, a detector's file into the whole detector.

    Raises:
        InputError: the file cannot be read, nothing in it fits the model, it holds several networks that do, or its
            weights are not finite.
    """
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"load_weights takes a file, got a {type(source).__name__}; tensors that are in memory are loaded by "
            "botformer.weights.load_state(model, tensors)"
        )
    file = os.fspath(source)
    return load_tensors(model, read_state_dict(file), file, part)


def load_tensors(model: nn.Module, state: dict[str, Tensor], source: str | Path, part: str = "") -> Match:
    """As `load_weights`, of tensors that have been read from `source`."""
    part_of_model, where = model, ""
    found = _found(state, model, source)
    if part:
        try:
            submodule = model.get_submodule(part)  # also of a compiled model, which lists none of these names
        except AttributeError:
            raise unknown("part of the model", part, [name for name, _ in model.named_children()]) from None
        inner = _found(state, submodule, source)
        if inner.names > found.names:
            found, part_of_model, where = inner, submodule, f" into the {part}"
        else:
            part = ""
    if found.prefix:
        state = {name: tensor for name, tensor in state.items() if name.startswith(found.prefix)}
        state = {name.removeprefix(found.prefix): tensor for name, tensor in state.items()}
        logger.info("%s: the names of the network stand under %r; what else is there is left", source, found.prefix)
    state = _with_channels_of(part_of_model, state)
    own = part_of_model.state_dict()
    names = _own_names(own)
    check_finite({n: t for n, t in state.items() if n in names and _fits(n, t, own[names[n]])}, source)
    match = replace(load_state(part_of_model, state), part=part)
    logger.info("weights from %s%s: %s", source, where, match)
    if not match.loaded:
        raise InputError(f"nothing in {source} fits this model ({match}); is it a ResNet or BoTNet of the same depth?")
    return match


class _Found(NamedTuple):
    """Where in a file a model's names stand."""

    prefix: str
    names: int
    """How many of them."""


def _found(state: dict[str, Tensor], model: nn.Module, source: str | Path) -> _Found:
    """The prefix under which most of the model's names stand."""
    own = plain_names(model.state_dict())
    counts: Counter[str] = Counter()
    for name in state:
        start = 0
        while start >= 0 and start < len(name):
            if name[start:] in own:
                counts[name[:start]] += 1
            start = name.find(".", start) + 1 or -1
    plain = _Found("", counts[""])
    most = max(counts.values(), default=0)
    if most <= plain.names or 4 * most < len(own):  # blocks have names in common with whole networks
        return plain
    best = [prefix for prefix, count in counts.items() if count == most]
    averaged = [prefix for prefix in best if "ema" in prefix.lower()]
    best = averaged if len(averaged) == 1 else best
    if len(best) > 1:
        raise InputError(
            f"{source} holds {len(best)} networks that fit, under {' and '.join(map(repr, sorted(best)))}; save the "
            "state dict of the one that you want as a file of its own"
        )
    return _Found(best[0], most)


def _with_channels_of(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the first convolution, which alone sees the three colours, for as many channels as the model's."""
    adapted = dict(state)
    own = model.state_dict()
    for plain, name in plain_names(own).items():
        loaded, wanted = state.get(plain), own[name].shape
        if loaded is None or loaded.ndim != 4 or len(wanted) != 4 or loaded.shape[1] != 3 or wanted[1] == 3:
            continue
        if (loaded.shape[0], *loaded.shape[2:]) != (wanted[0], *wanted[2:]):
            continue
        from timm.models import adapt_input_conv  # imports much, and most weights fit

        adapted[plain] = adapt_input_conv(wanted[1], loaded)
        how = "summed over the colours" if wanted[1] == 1 else f"repeated and scaled by 3/{wanted[1]}"
        logger.info("%s: of 3 channels in the file, %d here; %s", plain, wanted[1], how)
    return adapted


def load_state(model: nn.Module, state: dict[str, Tensor], assign: bool = False) -> Match:
    """Copy every tensor of `state` whose name and shape fit, or with `assign` put it in the place of the model's.

    The modules' own load hooks run first: they resize position tables and translate old names.
    """
    own = model.state_dict()
    names = _own_names(own)
    state = {names.get(name, name): tensor for name, tensor in state.items()}
    other_shape = {name for name, tensor in state.items() if name in own and not _fits(name, tensor, own[name])}
    result = model.load_state_dict(
        {n: t for n, t in state.items() if n not in other_shape}, strict=False, assign=assign
    )
    missing = set(result.missing_keys) - other_shape
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # files of old versions lack them
    return Match(
        loaded=sorted(own.keys() - missing - other_shape - (counters - state.keys())),
        missing=sorted(missing - counters),
        unused=sorted(name for name in result.unexpected_keys if not name.endswith("num_batches_tracked")),
        other_shape=sorted(other_shape),
    )


def _own_names(own: dict[str, Tensor]) -> dict[str, str]:
    """What a file may call a tensor of the model, with or without what wrappers put around it -> the model's name."""
    return plain_names(own) | {name: name for name in own}


def _fits(name: str, loaded: Tensor, own: Tensor) -> bool:
    is_table = name.rpartition(".")[2] in ("rel_height", "rel_width", "abs_height", "abs_width")
    return loaded.shape == own.shape or (is_table and loaded.shape[1:] == own.shape[1:])


def check_finite(state: dict[str, Tensor], file: str | Path) -> None:
    """Raises `InputError` for NaN and infinity: such a network finds nothing, or anything, without a word."""
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise InputError(
            f"{file} has weights that are not finite (NaN or infinite) in {len(bad)} of {len(state)} tensors: "
            f"{and_more(sorted(bad), 5)}. The training diverged: use an earlier checkpoint, or train again with a "
            "lower optimizer.learning_rate or run.precision float32"
        )
