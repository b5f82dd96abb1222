"""A folder in the layout of the hub's cache: what is there can be read without a connection."""

import shutil
from pathlib import Path

COMMIT = "0123456789" * 4


def add_to_cache(cache: Path, repository: str, folder: Path, revision: str = "main", commit: str = COMMIT) -> Path:
    """The files of `folder` as a snapshot; blobs, and links to them, as the hub's library leaves them."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for path in (root / "refs" / revision, snapshot / "file", root / "blobs" / "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    for file in folder.iterdir():
        blob = root / "blobs" / f"{commit[:8]}-{file.name}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot
