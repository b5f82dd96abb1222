"""Trained networks prepared for inference."""

from botformer.deploy.optimize import optimize

__all__ = ["optimize"]
