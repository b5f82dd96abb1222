"""What lies in uncompressed tars, and in tars inside them."""

import io
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from botformer.data.classification.listing import FindText, Listing, text_beside
from botformer.data.image_files import is_hidden
from botformer.errors import InputError
from botformer.read_file import open_file
from botformer.text import and_more

_AGAIN_AFTER_S = 1.0
_SHOWN = 20


class Tar(Protocol):
    """Gives bytes of a tar. It is pickled for worker processes, so it has no open file."""

    def read(self, offset: int, size: int, name: str) -> bytes:
        """`name` is what is read, for messages. Raises InputError where the tar is not what was listed any more: no
        other image should stand in for one that is only out of reach."""
        ...


class Member(NamedTuple):
    path: str
    """Inside its tar."""
    tars: tuple[str, ...]
    """The tars inside the outermost one that lead to it."""
    offset: int
    """In the outermost tar, in bytes."""
    size: int
    is_folder: bool


class Listed(NamedTuple):
    """A tar and what is in it."""

    tar: Tar
    name: str
    """The file's, with its ending."""
    members: Sequence[Member]
    contents: dict[int, bytes]
    """Of members, by their places, what was read already."""


class BrokenTar(Exception):  # noqa: N818 - named after the tar
    """Why a tar cannot be listed."""


@dataclass(frozen=True)
class _Spans:
    """Members of uncompressed tars are spans of bytes, which are read without keeping a tar file open."""

    tars: tuple[Tar, ...]
    spans: np.ndarray
    """int64 (members, 3): index into tars, offset in bytes, size in bytes."""
    names: list[str]
    contents: dict[int, bytes] = field(repr=False)
    """Of rows, what was read already."""

    def open(self, row: int) -> BinaryIO:
        if row in self.contents:
            return io.BytesIO(self.contents[row])
        tar, offset, size = self.spans[row].tolist()
        return io.BytesIO(self.tars[tar].read(offset, size, self.names[row]))

    def name(self, row: int) -> str:
        return self.names[row]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"contents": {}}  # labels, which no worker process reads


@dataclass(frozen=True)
class _LocalTar:
    path: str
    size: int
    """In bytes, when it was listed."""

    def read(self, offset: int, size: int, name: str) -> bytes:
        try:
            return self._read(offset, size, name)
        except OSError:  # network storage has its moments
            time.sleep(_AGAIN_AFTER_S)
        try:
            return self._read(offset, size, name)
        except OSError as error:
            raise InputError(
                f"the tar {self.path} can no longer be read ({error.strerror or error}), here {name}. Once it is back, "
                "the same command continues a training from its last checkpoint"
            ) from error

    def _read(self, offset: int, size: int, name: str) -> bytes:
        with open_file(self.path) as file:
            now = os.fstat(file.fileno()).st_size
            if now != self.size:
                raise InputError(
                    f"the tar {self.path} was changed while it was in use: it has {now:,} bytes, and had {self.size:,} "
                    f"when it was listed, here {name}. Put the old one back, or start again with the new one"
                )
            file.seek(offset)
            return file.read(size)


def list_tars(where: str, tars: Sequence[Path], at: Path) -> Listing:
    """The files in `tars`. A file is called by its path in its tar, after the tar's own name where `at` is a folder.

    Raises:
        InputError: tars that cannot be read, all of them.
    """
    listed: list[Listed] = []
    broken: dict[str, str] = {}
    for path in tars:
        try:
            with open_file(path) as file:
                members = list(members_of(file))
                tar = _LocalTar(str(path), os.fstat(file.fileno()).st_size)
            listed.append(Listed(tar, path.name, members, {}))
        except BrokenTar as error:
            broken[str(path)] = str(error)
        except OSError as error:
            broken[str(path)] = error.strerror or str(error)
    if broken:
        raise broken_tars(broken)
    return listing_of(where, listed, at != tars[0] or len(tars) > 1, partial(text_beside, at))


def broken_tars(broken: dict[str, str]) -> InputError:
    """An `InputError` for tars that cannot be listed, with the reasons."""
    listed = and_more([f"  {tar}: {reason}" for tar, reason in sorted(broken.items())], _SHOWN, "\n")
    return InputError(
        f"{len(broken)} {'tar' if len(broken) == 1 else 'tars'} cannot be listed:\n{listed}\n"
        "Copy them again if they were cut off on the way, or pack them again with tar -cf (not compressed)"
    )


def listing_of(where: str, tars: Sequence[Listed], with_tar_names: bool, find_text: FindText) -> Listing:
    """`with_tar_names`: a file is called by its tar's name and its path in there, not by its path alone."""
    spans: list[tuple[int, int, int]] = []
    names: list[str] = []
    paths: list[str] = []
    innermost: list[str] = []
    folders: set[str] = set()
    contents: dict[int, bytes] = {}
    for index, listed in enumerate(tars):
        outer = (listed.name,) if with_tar_names else ()
        for place, member in enumerate(listed.members):
            if member.is_folder:
                folders.add(member.path)
                continue
            if place in listed.contents:
                contents[len(spans)] = listed.contents[place]
            spans.append((index, member.offset, member.size))
            names.append(str(PurePosixPath(*outer, *member.tars, member.path)))
            paths.append(member.path)
            innermost.append((listed.name, *member.tars)[-1].rpartition(".")[0])
    store = _Spans(
        tuple(listed.tar for listed in tars), np.array(spans, dtype=np.int64).reshape(-1, 3), names, contents
    )
    return Listing(where, find_text, store, paths, sorted(folders), innermost)


def members_of(file: BinaryIO, tars: tuple[str, ...] = (), offset: int = 0) -> Iterator[Member]:
    """Files and folders that are not hidden, in the order of the tar. A hard link is the file that it names.

    Raises:
        BrokenTar: it is damaged, cut off or compressed. tarfile alone takes a damaged header for the end of the tar.
    """
    tar = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield from _members(tar, tars, offset)
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
    except InputError:  # of a file that is read over HTTP
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        place = f"damaged or cut off at byte {offset + tar.offset:,}" if tar else "not a whole tar, or compressed"
        raise BrokenTar(f"{place} ({error})") from error
    if not end:
        raise BrokenTar(
            f"cut off at byte {offset + tar.offset:,}: the mark at its end is missing (if nothing else is, this adds "
            "it: head -c 1024 /dev/zero >> TAR)"
        )
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise BrokenTar(f"damaged or cut off at byte {offset + tar.offset:,}, where a file should begin")


def _members(tar: tarfile.TarFile, tars: tuple[str, ...], offset: int) -> Iterator[Member]:
    files: dict[str, tuple[int, int]] = {}
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
        path = "/".join(part for part in PurePosixPath(info.name).parts if part not in ("/", ".", ".."))
        if not path or is_hidden(path):
            continue
        if info.isdir():
            yield Member(path, tars, 0, 0, True)
        elif info.islnk() and info.linkname in files:
            yield Member(path, tars, *files[info.linkname], False)
        elif info.isfile() and path.lower().endswith(".tar"):
            inner = tar.extractfile(info)
            assert inner is not None, path
            with inner:
                yield from members_of(inner, (*tars, path), offset + info.offset_data)  # type: ignore[arg-type]
        elif info.isfile() and not info.issparse():
            files[info.name] = (offset + info.offset_data, info.size)
            yield Member(path, tars, *files[info.name], False)
        else:
            # Symbolic links, devices and files with holes have no bytes of their own: counted by the ending .link.
            yield Member(f"{path}.link", tars, 0, 0, False)


def tar_files(folder: Path) -> list[Path]:
    """The tars directly in a folder, by name."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(".tar") and not is_hidden(entry.name) and os.path.isfile(entry.path)
    )
