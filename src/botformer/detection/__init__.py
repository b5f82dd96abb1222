"""Feature maps to objects: pyramid, proposals, boxes, masks and key points. Blind to where the maps come from."""

from botformer.detection.rcnn import Detector, build_detector
from botformer.recipes.detector_settings import Settings, make_settings

__all__ = ["Detector", "Settings", "build_detector", "make_settings"]
