"""A trained network made ready for work."""

from botformer.deploy.optimize import optimize

__all__ = ["optimize"]
