"""Detections against ground truth: average precision, F1."""
