"""The readers of annotation formats in the package supervision, which is imported where it is needed."""

import warnings
from importlib import import_module
from typing import Any

from botformer.errors import InputError


def supervision_format(name: str, what: str) -> Any:
    """The module supervision.dataset.formats.NAME. Raises InputError where it is not installed; `what` needs it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenCV")  # that it is not there; nothing asked for here would use it
        try:
            return import_module(f"supervision.dataset.formats.{name}")
        except ImportError:
            raise InputError(
                f"reading {what} needs the package supervision: pip install 'botformer[detection]'"
            ) from None
