"""What a caller may change about a row. Every deviation from the paper has a name here."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from botformer.attention import TablePolicy
from botformer.backbone.mhsa import Position
from botformer.errors import InputError, unknown

Normalization = Literal["batch", "frozen", "sync"]


@dataclass(frozen=True)
class Options:
    """Options of `create_model` and `create_backbone`."""

    position: Position = "relative"
    """What the attention knows about positions; see `MHSA2d`."""
    heads: int = 4
    tables: TablePolicy = "interpolate"
    """How position tables are taken to another map size; see `attention.tables`."""
    backend: str = "auto"
    """Attention backend; see `relative_attention_2d`."""
    shortcut_activation: bool = False
    """Activation on the projection shortcut, as in the authors' reference code (a standard ResNet has none)."""
    zero_gamma: bool = True
    """Gamma of each block's last BatchNorm starts at 0, so that every block starts as the identity (paper)."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; grows linearly from 0 at the first."""
    dropout: float = 0.0
    """Dropout before the final linear layer; classifiers only."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass."""
    frozen_stages: int = 0
    """Parts that do not train, BatchNorm statistics included: 1 the stem, 2 also c2, ... 5 everything."""
    normalization: Normalization = "batch"
    """"batch"; "frozen": fixed statistics and affine; "sync": statistics over all processes."""
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.1

    def __post_init__(self) -> None:
        for name in ("drop_path", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is a probability of at least 0 and below 1, got {getattr(self, name)}")
        if not 0 <= self.frozen_stages <= 5:
            raise InputError(f"frozen_stages counts from 0 (none) to 5 (all), got {self.frozen_stages}")
        for name, kind in (("normalization", Normalization), ("position", Position), ("tables", TablePolicy)):
            if getattr(self, name) not in get_args(kind):
                raise unknown(name, getattr(self, name), get_args(kind))


def make_options(options: dict[str, Any]) -> Options:
    """Options from keywords; an unknown one suggests the nearest (`InputError`)."""
    known = {field.name for field in fields(Options)}
    for name in options:
        if name not in known:
            raise unknown("option", name, known)
    return Options(**options)
