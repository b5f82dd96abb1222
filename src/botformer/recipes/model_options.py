"""Options of a network, as `create_model` and `create_backbone` take them: every deviation from the paper by name."""

from dataclasses import dataclass
from typing import Any, Literal

from botformer.errors import InputError
from botformer.recipes.check import check_fields, from_keywords

Position = Literal["relative", "absolute", "none", "position_only", "blog"]
TablePolicy = Literal["interpolate", "offset"]
Normalization = Literal["batch", "frozen", "sync"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a caller may change about a row of the table of networks."""

    position: Position = "relative"
    """What the attention knows about positions (the paper: relative); see `MHSA2d`."""
    heads: int = 4
    """Heads of the attention (the paper: 4)."""
    tables: TablePolicy = "interpolate"
    """How position tables are resized to another map: interpolate (an entry stands for a fraction of the map) or offset
    (an entry stands for a distance in cells)."""
    backend: str = "auto"
    """Implementation of the attention: auto, or one by name; see `relative_attention_2d`."""
    shortcut_activation: bool = False
    """Activation on the projection shortcut, as in the authors' reference code (a standard ResNet has none)."""
    zero_gamma: bool = True
    """Start every block as the identity: gamma 0 in its last BatchNorm (the authors' code: yes); where that is frozen,
    its last convolution 0."""
    drop_path: float = 0.0
    """Stochastic depth at the last block, growing linearly from 0 at the first."""
    dropout: float = 0.0
    """Dropout before the final linear layer; classifiers only."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, one more forward pass."""
    output_stride: int | None = None
    """Stride of c5 in pixels: 8 or 16, where the row's own (None) is larger. Stages beyond it keep the size of the map:
    their 3x3 convolutions are dilated instead, and attention, which sees the whole map, has more positions."""
    frozen_stages: int = 0
    """Stages that do not train, BatchNorm statistics included: 1 the stem, 2 also c2, ... 5 everything."""
    normalization: Normalization = "batch"
    """BatchNorm: batch (trained), frozen (fixed statistics and affine) or sync (statistics over all processes). In a
    detector this is the backbone's; pyramid and heads follow the detector's own settings."""
    norm_epsilon: float | None = None
    """None: 1e-5; in a detector that of its settings."""
    norm_momentum: float | None = None
    """Weight of the newest batch in the running statistics. None: 0.1; in a detector that of its settings."""

    def __post_init__(self) -> None:
        check_fields(self, "model")
        if self.output_stride not in (None, 8, 16):
            raise InputError(f"model.output_stride is {self.output_stride}; expected 8, 16, or none for the row's own")


def make_options(options: dict[str, Any]) -> ModelOptions:
    """Options from keywords; an unknown one suggests the nearest (`InputError`)."""
    return from_keywords(ModelOptions, options, "option")
