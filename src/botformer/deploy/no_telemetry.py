"""OpenVINO without its telemetry: nothing about a user is sent anywhere.

`import openvino` alone reports to Google Analytics where the package openvino_telemetry is there, which comes with it,
and so do `openvino.convert_model` and nncf. Where openvino_telemetry cannot be imported they do without it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_REPORTER = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported inside finds no openvino_telemetry. Where it was imported before, it stays as it is."""
    if _REPORTER in sys.modules:
        yield
        return
    sys.modules[_REPORTER] = None  # pyright: ignore[reportArgumentType]  # Python's own way to say: not there
    try:
        yield
    finally:
        del sys.modules[_REPORTER]


def import_openvino() -> Any:
    """The module `openvino`."""
    with no_telemetry():
        return import_module("openvino")
