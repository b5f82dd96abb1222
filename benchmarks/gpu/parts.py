"""Runs that another machine may continue: each with its last checkpoint, in one tar file that is cut into parts.

For machines that hand back a few files of limited size. Runs that do not fit, such as a Mask R-CNN's with its
optimiser, are left out; what they have measured is in the receipts.
"""

import io
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from botformer.errors import InputError

_PART = re.compile(r"checkpoints\.tar\.(\d+)-of-(\d+)")
_HEADERS_BYTES = 2048  # at most, of a file in a tar, with what fills its last block
_END_BYTES = 2 * tarfile.RECORDSIZE  # at most


def split(
    runs: Sequence[Path], out: Path, most_files: int, bytes_per_file: int, bytes_in_all: int
) -> tuple[list[Path], list[str]]:
    """Write the folders of runs to OUT/checkpoints.tar.01-of-03, ..., in place of older parts there.

    As many runs as fit, the smallest first, of equal ones the newest. A run without a checkpoint has nothing to
    continue.

    Returns the parts, and of each run that is left out its name and size in MiB.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in _parts(out):
        path.unlink()
    limit = min(bytes_in_all, most_files * bytes_per_file) - _END_BYTES
    whole, left_out = io.BytesIO(), []
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for run in sorted(filter(_has_checkpoint, runs), key=lambda run: (_size(run), -run.stat().st_mtime)):
            if whole.tell() + _size(run) > limit:
                left_out.append(f"{run.name} ({_size(run) / 2**20:.1f} MiB)")
                continue
            for file in _files(run):
                tar.add(file, f"{run.name}/{file.relative_to(run).as_posix()}")
        empty = not tar.getmembers()
    content = b"" if empty else whole.getvalue()
    count = -(-len(content) // bytes_per_file)
    written = [out / f"checkpoints.tar.{number:02d}-of-{count:02d}" for number in range(1, count + 1)]
    for number, path in enumerate(written):
        path.write_bytes(content[number * bytes_per_file : (number + 1) * bytes_per_file])
    return written, left_out


def join(folder: Path, work: Path) -> list[str]:
    """Restore the runs of the parts in `folder` as WORK/NAME, and return their names. A run that is there stays: on one
    machine it is never older.

    Raises:
        InputError: a part is missing, or they are damaged.
    """
    parts = _parts(folder)
    if not parts:
        return []
    counts = {_PART.fullmatch(path.name)[2] for path in parts}  # pyright: ignore[reportOptionalSubscript]
    if len(counts) > 1:
        raise InputError(f"{folder} holds parts of several files: {', '.join(path.name for path in parts)}; keep one's")
    (count,) = counts
    expected = [folder / f"checkpoints.tar.{number:02d}-of-{count}" for number in range(1, int(count) + 1)]
    for path in expected:
        if not path.is_file():
            raise InputError(f"{path} is missing; copy it here too, or remove the other parts to start again")
    work.mkdir(parents=True, exist_ok=True)
    restored = []
    with tempfile.TemporaryDirectory(dir=work) as unpacked:
        try:
            with tarfile.open(fileobj=io.BytesIO(b"".join(path.read_bytes() for path in expected))) as tar:
                tar.extractall(unpacked, filter="data")
        except tarfile.TarError as error:
            raise InputError(f"{expected[0]} and the parts after it are damaged ({error}); copy them again") from error
        for run in sorted(Path(unpacked).iterdir()):
            if not (work / run.name).exists():
                run.rename(work / run.name)
                restored.append(run.name)
    return restored


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoints.tar.*") if _PART.fullmatch(path.name))


def _has_checkpoint(run: Path) -> bool:
    return (run / "last").is_file()


def _files(run: Path) -> list[Path]:
    """What continuing needs: the last checkpoint (`botformer.training.checkpoint` has the layout), not the best."""
    last = run / "checkpoints" / (run / "last").read_text(encoding="utf-8").strip()
    others = [path for path in run.iterdir() if path.is_file() and path.name not in ("best", "curves.png")]
    return sorted([*others, *last.iterdir()])


def _size(run: Path) -> int:
    """Bytes in a tar, at most."""
    return sum(file.stat().st_size + _HEADERS_BYTES for file in _files(run))
