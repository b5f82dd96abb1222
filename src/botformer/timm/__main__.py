"""Run a script of timm's (train.py, validate.py, ...) that knows botformer's networks.

python -m botformer.timm train.py --model botnet50.botformer ...
"""

import runpy
import sys
from pathlib import Path

from botformer.errors import InputError


def main() -> None:
    """Runs the script named first with the arguments that follow, as `python SCRIPT ...` would."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        named = f"{sys.argv[1]} is not a file; " if len(sys.argv) > 1 else ""
        raise InputError(f"{named}expected the path of a script: python -m botformer.timm train.py --model NAME ...")
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"botformer.timm: {error}", file=sys.stderr)
        sys.exit(2)
