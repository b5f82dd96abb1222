"""A trained network made ready for work."""

from botformer.deploy.fold_and_freeze import optimize

__all__ = ["optimize"]
