"""The receipts of a call in one file, `results.zip`, and the way back. Checkpoints: `parts`."""

import zipfile
from pathlib import Path

from botformer.atomic_write import atomic_file

ZIP = "results.zip"
MOST_FILES, BYTES_PER_FILE, BYTES_IN_ALL = 8, 16 * 2**20, 64 * 2**20
"""What a folder that comes home may hold."""
LOG_BYTES = 2**18
"""The end of each log."""


def pack(results: Path, out: Path) -> None:
    """All files of the folder `results` into out/results.zip; of text files the end."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / ZIP) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(results.rglob("*")):
            if path.is_file() and not path.name.endswith(".partial"):
                content = path.read_bytes()
                kept = content[-LOG_BYTES:] if path.suffix == ".txt" else content
                archive.writestr(path.relative_to(results).as_posix(), kept)


def unpack(out: Path, results: Path) -> list[str]:
    """The files of an earlier call that `results` does not have yet; returns their names."""
    if not (out / ZIP).is_file():
        return []
    with zipfile.ZipFile(out / ZIP) as archive:
        missing = [name for name in archive.namelist() if not (results / name).exists()]
        archive.extractall(results, missing)
    return missing
