"""What lies in uncompressed tars, and in tars inside them."""

import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from botformer.data.classification.listing import Listing
from botformer.data.image_files import is_hidden
from botformer.errors import InputError
from botformer.read_file import open_file


@dataclass(frozen=True)
class _Spans:
    """Members of uncompressed tars are spans of bytes, which are read without keeping a tar file open."""

    tars: tuple[str, ...]
    spans: np.ndarray
    """int64 (members, 3): index into tars, offset in bytes, size in bytes."""
    names: list[str]

    def open(self, row: int) -> BinaryIO:
        tar, offset, size = self.spans[row].tolist()
        with open_file(self.tars[tar]) as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))

    def name(self, row: int) -> str:
        return self.names[row]


class _Member(NamedTuple):
    path: str
    """Inside its tar."""
    tars: tuple[str, ...]
    """The tars inside the outermost one that lead to it."""
    offset: int
    """In the outermost tar, in bytes."""
    size: int
    is_folder: bool


def list_tars(where: str, tars: Sequence[Path], at: Path) -> Listing:
    """The files in `tars`. A file is called by its path in its tar, after the tar's own name where `at` is a folder.

    Raises:
        InputError: a tar that cannot be read.
    """
    spans: list[tuple[int, int, int]] = []
    names: list[str] = []
    paths: list[str] = []
    innermost: list[str] = []
    folders: set[str] = set()
    for index, tar in enumerate(tars):
        outer = () if at == tar else (tar.name,)
        try:
            with open_file(tar) as file, tarfile.open(fileobj=file, mode="r:") as opened:
                members = list(_members(opened))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(
                f"the tar {tar} cannot be listed ({error}); it may be truncated or compressed: pack it again with "
                "tar -cf"
            ) from error
        for member in members:
            if member.is_folder:
                folders.add(member.path)
                continue
            spans.append((index, member.offset, member.size))
            names.append(str(PurePosixPath(*outer, *member.tars, member.path)))
            paths.append(member.path)
            innermost.append(PurePosixPath((tar.name, *member.tars)[-1]).stem)
    store = _Spans(tuple(map(str, tars)), np.array(spans, dtype=np.int64).reshape(-1, 3), names)
    return Listing(where, at, store, paths, sorted(folders), innermost)


def _members(tar: tarfile.TarFile, tars: tuple[str, ...] = (), offset: int = 0) -> Iterator[_Member]:
    """Files and folders that are not hidden, in the order of the tar. A hard link is the file that it names."""
    files: dict[str, tuple[int, int]] = {}
    for info in tar:
        path = "/".join(part for part in PurePosixPath(info.name).parts if part not in ("/", ".", ".."))
        if not path or is_hidden(path):
            continue
        if info.isdir():
            yield _Member(path, tars, 0, 0, True)
        elif info.islnk() and info.linkname in files:
            yield _Member(path, tars, *files[info.linkname], False)
        elif info.isfile() and path.lower().endswith(".tar"):
            inner = tar.extractfile(info)
            assert inner is not None, path
            with inner, tarfile.open(fileobj=inner, mode="r:") as opened:
                yield from _members(opened, (*tars, path), offset + info.offset_data)
        elif info.isfile() and not info.issparse():
            files[info.name] = (offset + info.offset_data, info.size)
            yield _Member(path, tars, *files[info.name], False)
        else:
            # Symbolic links, devices and files with holes have no bytes of their own: counted by the ending .link.
            yield _Member(f"{path}.link", tars, 0, 0, False)


def tar_files(folder: Path) -> list[Path]:
    """The tars directly in a folder, by name."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(".tar") and not is_hidden(entry.name) and os.path.isfile(entry.path)
    )
