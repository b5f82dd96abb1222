"""Trained networks prepared for inference."""

from botformer.deploy.fold_and_freeze import optimize

__all__ = ["optimize"]
