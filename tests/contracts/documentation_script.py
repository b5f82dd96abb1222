"""Scripts of docs/, which are no package."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def script_of(folder: Path, name: str) -> ModuleType:
    """FOLDER/NAME.py, which finds the files beside it."""
    sys.path.insert(0, str(folder))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(folder))
