"""The numbers of a detector as data. Defaults: the paper's, else its code base's (docs/detection.md)."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from botformer.errors import InputError, unknown

Normalization = Literal["batch", "frozen", "sync"]
Kind = Literal["mask_rcnn", "faster_rcnn", "keypoint_rcnn"]
LEVELS = ("p2", "p3", "p4", "p5", "p6")


@dataclass(frozen=True)
class Settings:
    """Options of `build_detector`. Lengths are pixels of the canvas."""

    padding_mask: bool = True
    """Tell the backbone which pixels only fill the canvas, so that its attention does not look at them. Backbones whose
    `forward` has no `padding` cannot be told."""

    levels: tuple[str, ...] = LEVELS
    """Maps of the pyramid, neighbours, from p2 to p6."""
    fpn_channels: int = 256
    normalization: Normalization = "batch"
    """BatchNorm of pyramid and heads. "batch"; "frozen": fixed statistics and affine; "sync": over all processes."""
    norm_epsilon: float = 1e-4
    norm_momentum: float = 0.003
    """PyTorch's momentum: the share of the newest batch. Short runs need more, such as 0.1."""

    anchor_scale: float = 8.0
    """Side of the square anchor, in strides of its level."""
    anchor_sizes: tuple[float, ...] = ()
    """Side of the square anchor in pixels, one a level, where `anchor_scale` does not fit."""
    anchor_ratios: tuple[float, ...] = (1.0, 2.0, 0.5)
    """Height to width; the area stays that of the square anchor."""

    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 256
    """Anchors an image that the loss looks at."""
    rpn_positive_fraction: float = 0.5
    """Of the samples, at most."""
    rpn_huber_delta: float = 1 / 9
    rpn_nms_iou: float = 0.7
    rpn_pre_nms_top_n: int = 2000
    """Best anchors a level that non-maximum suppression sees, in training."""
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n: int = 1000
    """Proposals an image, of all levels together."""

    roi_samples: int = 512
    """Proposals an image that the losses look at."""
    roi_positive_fraction: float = 0.25
    """Of the samples, at most."""
    roi_positive_iou: float = 0.5
    roi_canonical_cells: float = 14.0
    """A region is pooled from the coarsest level on which its side still spans so many cells (224 px on p4)."""
    roi_sampling_points: int = 2
    """Points a cell and direction at which RoIAlign reads the map."""

    box_output_size: int = 7
    box_channels: int = 1024
    """Width of the two fully connected layers."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """Scale of the regression targets x, y, width, height."""
    box_huber_delta: float = 1.0

    mask_output_size: int = 14
    """Cells a mask is predicted from; it has twice as many."""
    mask_convolutions: int = 4
    mask_channels: int = 256

    keypoints: int = 17
    """Key points per object. Training takes the number from the data; any other than this default must be the same."""
    keypoint_output_size: int = 14
    """Cells key points are predicted from; their heat maps have four times as many."""
    keypoint_convolutions: int = 8
    keypoint_channels: int = 512

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    """An image."""

    def __post_init__(self) -> None:
        start = LEVELS.index(self.levels[0]) if self.levels and self.levels[0] in LEVELS else len(LEVELS)
        if not self.levels or self.levels != LEVELS[start : start + len(self.levels)]:
            raise InputError(f"levels must be neighbours from {', '.join(LEVELS)}, got {', '.join(self.levels)!r}")
        if self.levels == ("p6",):
            raise InputError("p6 is made from p5: levels cannot be p6 alone")
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise InputError(f"anchor_ratios must be one or more above 0, got {self.anchor_ratios}")
        if self.anchor_sizes and len(self.anchor_sizes) != len(self.levels):
            raise InputError(f"{len(self.anchor_sizes)} anchor_sizes for {len(self.levels)} levels; give one a level")
        if self.normalization not in get_args(Normalization):
            raise unknown("normalization", self.normalization, get_args(Normalization))
        if self.rpn_negative_iou > self.rpn_positive_iou:
            raise InputError(
                f"rpn_negative_iou {self.rpn_negative_iou} must not exceed rpn_positive_iou {self.rpn_positive_iou}"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} lies between 0 and 1, got {getattr(self, name)}")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


_SHARES = tuple(f.name for f in fields(Settings) if f.name.endswith(("_iou", "_share", "_threshold", "_momentum")))
_COUNTS = tuple(f.name for f in fields(Settings) if f.type is int)


SMALL = Settings(
    levels=("p2", "p3", "p4", "p5"),
    fpn_channels=64,
    norm_momentum=0.1,
    anchor_sizes=(12.0, 18.0, 26.0, 36.0),
    rpn_pre_nms_top_n=500,
    rpn_pre_nms_top_n_test=1000,
    rpn_post_nms_top_n=500,
    roi_samples=64,
    box_channels=256,
    mask_convolutions=2,
    mask_channels=64,
)
"""Small objects on a canvas of a few hundred pixels: a narrow pyramid without its top, small anchors, slim heads."""


def make_settings(options: dict[str, Any]) -> Settings:
    """Settings from keywords, as JSON keeps them too; an unknown one suggests the nearest (`InputError`)."""
    known = {field.name for field in fields(Settings)}
    for name in options:
        if name not in known:
            raise unknown("detector option", name, known)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    return Settings(**values)
