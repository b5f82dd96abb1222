"""Where a command writes what it makes of a checkpoint, unless --out says otherwise."""

import os
from pathlib import Path

_IN_EVERY_RUN = ("last", "best", "model", "ema")
"""Names of files that say nothing without their folder's."""


def results_folder(checkpoint: Path, kind: str) -> Path:
    """The folder `kind`, such as "predictions", in the run; or runs/KIND/NAME for what is no folder, such as a network
    of the package (a folder of images may have its name).

    Of one checkpoint it is KIND/step-... in its run, which removes old checkpoints with whatever is in their folders.
    """
    from botformer.create.from_checkpoint import is_shipped  # heavy, and --help should not wait for it

    if checkpoint.is_dir() and not is_shipped(checkpoint):
        folder = Path(os.path.abspath(checkpoint))
        if folder.name.startswith("step-") and folder.parent.name == "checkpoints":
            return folder.parents[1] / kind / folder.name
        return checkpoint / kind
    of_its_folder = checkpoint.stem in _IN_EVERY_RUN and checkpoint.exists()
    name = f"{checkpoint.resolve().parent.name}-{checkpoint.stem}" if of_its_folder else checkpoint.stem
    return Path("runs") / kind / name
