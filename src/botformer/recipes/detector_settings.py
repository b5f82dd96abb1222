"""The numbers of a detector as data. Defaults: the paper's, else its code base's (docs/detection.md)."""

from dataclasses import dataclass
from typing import Any, Literal

from botformer.errors import InputError
from botformer.recipes.check import check_fields, from_keywords
from botformer.recipes.model_options import Normalization

Kind = Literal["mask_rcnn", "faster_rcnn", "keypoint_rcnn"]
LEVELS = ("p2", "p3", "p4", "p5", "p6")


@dataclass(frozen=True)
class Settings:
    """Pyramid, proposals and heads of a detector. Lengths are pixels of the canvas."""

    padding_mask: bool = True
    """Give the backbone the padding mask, so that its attention does not look at padding. Only for backbones whose
    `forward` takes a `padding_mask`."""

    levels: tuple[str, ...] = LEVELS
    """Levels of the pyramid: neighbours, from p2 to p6."""
    fpn_channels: int = 256
    """Channels of every level."""
    normalization: Normalization = "batch"
    """BatchNorm of pyramid and heads: batch (trained), frozen (fixed statistics and affine) or sync (statistics over
    all processes)."""
    norm_epsilon: float = 1e-4
    """Epsilon of BatchNorm."""
    norm_momentum: float = 0.003
    """Weight of the newest batch in the running statistics (PyTorch's momentum). Short runs need more, such as 0.1."""

    anchor_scale: float = 8.0
    """Side of the square anchor, in strides of its level."""
    anchor_sizes: tuple[float, ...] = ()
    """Side of the square anchor in pixels, one per level, where `anchor_scale` does not fit."""
    anchor_ratios: tuple[float, ...] = (1.0, 2.0, 0.5)
    """Height to width; the area stays that of the square anchor."""

    rpn_positive_iou: float = 0.7
    """An anchor that overlaps an object by this much or more is positive; so is the best anchor of every object."""
    rpn_negative_iou: float = 0.3
    """An anchor that overlaps every object by less is negative; between the two it does not count."""
    rpn_samples: int = 256
    """Anchors per image in the loss."""
    rpn_positive_fraction: float = 0.5
    """Largest fraction of positive anchors among the samples."""
    rpn_huber_delta: float = 1 / 9
    """Delta of the Huber loss on the proposals' boxes."""
    rpn_nms_iou: float = 0.7
    """Proposals that overlap a better one by more are suppressed."""
    rpn_pre_nms_top_n: int = 2000
    """Anchors per image and level that are kept before non-maximum suppression, in training."""
    rpn_pre_nms_top_n_test: int = 1000
    """The same in inference."""
    rpn_post_nms_top_n: int = 1000
    """Proposals per image that are kept after non-maximum suppression, of all levels together."""

    roi_samples: int = 512
    """Proposals per image in the losses of the heads."""
    roi_positive_fraction: float = 0.25
    """Largest fraction of positive proposals among the samples."""
    roi_positive_iou: float = 0.5
    """A proposal that overlaps an object by this much or more is positive."""
    roi_canonical_cells: float = 14.0
    """A region is pooled from the coarsest level on which its side still spans this many cells (14: 224 px on p4)."""
    roi_sampling_points: int = 2
    """Points per output cell and direction at which RoIAlign reads the map."""

    box_output_size: int = 7
    """Side of RoIAlign's output for the box head, in cells."""
    box_channels: int = 1024
    """Width of the two fully connected layers."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """Scale of the regression targets x, y, width, height."""
    box_huber_delta: float = 1.0
    """Delta of the Huber loss on the boxes."""

    mask_output_size: int = 14
    """Side of RoIAlign's output for the mask head, in cells; a mask has twice as many pixels per side."""
    mask_convolutions: int = 4
    """3x3 convolutions of the mask head."""
    mask_channels: int = 256
    """Channels of the mask head."""

    keypoints: int = 17
    """Key points per object. Training takes the number from the data; any other than this default must be the same."""
    keypoint_output_size: int = 14
    """Side of RoIAlign's output for the key point head, in cells; a heat map has four times as many per side."""
    keypoint_convolutions: int = 8
    """3x3 convolutions of the key point head."""
    keypoint_channels: int = 512
    """Channels of the key point head."""

    score_threshold: float = 0.05
    """Detections with a lower score are left out."""
    nms_iou: float = 0.5
    """Detections that overlap a better one of their class by more are suppressed."""
    max_detections: int = 100
    """Detections per image, at most."""

    def __post_init__(self) -> None:
        check_fields(self, "settings")
        start = LEVELS.index(self.levels[0]) if self.levels and self.levels[0] in LEVELS else len(LEVELS)
        if not self.levels or self.levels != LEVELS[start : start + len(self.levels)]:
            raise InputError(f"levels must be neighbours from {', '.join(LEVELS)}, got {', '.join(self.levels)!r}")
        if self.levels == ("p6",):
            raise InputError("p6 is made from p5: levels cannot be p6 alone")
        if not self.anchor_ratios:
            raise InputError("settings.anchor_ratios is empty; expected one ratio or more")
        if self.anchor_sizes and len(self.anchor_sizes) != len(self.levels):
            raise InputError(f"{len(self.anchor_sizes)} anchor_sizes for {len(self.levels)} levels; give one per level")
        if self.rpn_negative_iou > self.rpn_positive_iou:
            raise InputError(
                f"rpn_negative_iou {self.rpn_negative_iou} must not exceed rpn_positive_iou {self.rpn_positive_iou}"
            )


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
    return from_keywords(Settings, options, "detector option")
