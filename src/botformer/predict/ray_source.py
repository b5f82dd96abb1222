"""Images as Ray Data reads them: a row per image with the name of its file, or with the bytes of a tar's member.

Files are not read here, but by the actor that predicts them: Ray's checkpoint takes out the rows that are done after
this step, so nothing of a file that is done is read again, and no image passes through Ray's memory.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from botformer.data.image_inputs import Damaged, NamedBytes
from botformer.predict.parquet_rows import path_of
from botformer.predict.tar_members import is_tar, tar_images

ROWS = pa.schema(
    {
        "path": pa.string(),  # unique: what Ray's checkpoint knows an image by
        "place": pa.int64(),  # of the file among those that were named
        "member": pa.int64(),  # of the image in its tar
        "file": pa.binary(),  # of an image that is a file: its absolute path
        "data": pa.binary(),  # of a tar's member
        "error": pa.string(),
    }
)
_BLOCK_BYTES = 2**26
"""Of members of a tar, which lie in Ray's memory."""


class _Row(NamedTuple):
    path: str
    place: int
    member: int
    file: bytes | None = None
    data: bytes | None = None
    error: str | None = None


class NamedImages(Datasource):
    """`files`, among which tars may be, in blocks of at most `block_images` images; what becomes of a block is one
    file of predictions, and is done again if the run is stopped before."""

    def __init__(self, files: Sequence[Path], block_images: int) -> None:
        super().__init__()
        self._files, self._block_images = files, block_images

    def get_name(self) -> str:
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *others: Any, **more: Any) -> list[ReadTask]:
        """As many as the files need, whatever `parallelism` says."""
        rows: list[_Row] = []
        tasks: list[ReadTask] = []
        for place, file in enumerate(self._files):
            if is_tar(file.name):
                tasks.append(
                    _task(partial(_read_tar, file.as_posix(), os.path.abspath(file), place, self._block_images))
                )
                continue
            rows.append(_Row(_text(file.as_posix()), place, 0, file=os.fsencode(os.path.abspath(file))))
            if len(rows) == self._block_images:
                tasks.append(_task(partial(list, [_table(rows)]), len(rows)))
                rows = []
        if rows:
            tasks.append(_task(partial(list, [_table(rows)]), len(rows)))
        return tasks


def count_tasks(files: Sequence[Path], block_images: int) -> int:
    tars = sum(is_tar(file.name) for file in files)
    return tars + -(-(len(files) - tars) // block_images)


def _task(read: Any, rows: int | None = None) -> ReadTask:
    metadata = BlockMetadata(num_rows=rows, size_bytes=None, input_files=None, exec_stats=None)
    return ReadTask(read, metadata, schema=ROWS)


def _read_tar(name: str, path: str, place: int, block_images: int) -> Iterator[pa.Table]:
    rows: list[_Row] = []
    names: dict[str, int] = {}
    size = 0
    for member, (image, _) in enumerate(tar_images(Path(path))):
        unique = _text(name + image.name.removeprefix(Path(path).as_posix()))
        names[unique] = names.get(unique, 0) + 1
        unique = path_of(unique, names[unique])
        data = image.data if isinstance(image, NamedBytes) else None
        rows.append(_Row(unique, place, member, data=data, error=image.reason if isinstance(image, Damaged) else None))
        size += len(data or b"")
        if len(rows) == block_images or size > _BLOCK_BYTES:
            yield _table(rows)
            rows, size = [], 0
    if rows:
        yield _table(rows)


def _table(rows: Sequence[_Row]) -> pa.Table:
    return pa.Table.from_pylist([row._asdict() for row in rows], ROWS)


def _text(name: str) -> str:
    """With \\udcf6 for a byte of a file's name that is not UTF-8, as in the JSON files."""
    return name.encode("utf-8", "backslashreplace").decode()
