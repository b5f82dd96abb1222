"""What a trained network looks at: attention of heads, rollout, Grad-CAM, positions. Arrays; `plots` draws them."""

from botformer.explain.attention_heads import LayerHeads, attention_heads
from botformer.explain.forward_pass import CellMap
from botformer.explain.grad_cam import DetectionCam, grad_cam, grad_cam_of_detection
from botformer.explain.position_maps import LayerPositions, position_maps
from botformer.explain.rollout import rollout
from botformer.explain.seen_image import SeenImage, see
from botformer.explain.without_positions import PositionEffect, without_positions

__all__ = [
    "CellMap",
    "DetectionCam",
    "LayerHeads",
    "LayerPositions",
    "PositionEffect",
    "SeenImage",
    "attention_heads",
    "grad_cam",
    "grad_cam_of_detection",
    "position_maps",
    "rollout",
    "see",
    "without_positions",
]
