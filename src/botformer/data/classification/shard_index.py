"""What is in a tar on a server: read from its headers alone, and kept in the user's cache folder."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from botformer.atomic_write import write_json
from botformer.data.classification.listing import LABEL_FILES, label_of_json
from botformer.data.classification.tars import BrokenTar, Member, members_of
from botformer.data.http_ranges import Retries, Version, read_part, shown
from botformer.data.image_files import ending
from botformer.environment import cache_folder
from botformer.read_file import read_json

log = logging.getLogger("botformer.data")

_FORMAT = 1
_SHORTEST, _LONGEST = 2**14, 2**20
"""Bytes per request: few where headers lie far apart, many where small files follow each other."""
_LARGEST_LABEL = 2**20


class Index(NamedTuple):
    version: Version
    """Of the tar that was listed."""
    members: list[Member]
    contents: dict[int, bytes]
    """Of label files, by their places among the members: a request each is too many. Of .json files the label alone."""


def read_index(address: str, retries: Retries, on_progress: Callable[[int], None]) -> Index:
    """Walk from header to header; what large files hold is not asked for. `on_progress` is told how far it came, in
    bytes, and may raise to end it.

    Raises:
        BrokenTar: it is no uncompressed tar, is damaged or cut off, or was changed meanwhile.
        InputError: what `read_part` raises.
    """
    file = _RangedFile(address, retries)
    members: list[Member] = []
    contents: dict[int, bytes] = {}
    for member in members_of(cast(BinaryIO, file)):
        suffix = ending(member.path)
        if suffix in LABEL_FILES and 0 < member.size <= _LARGEST_LABEL and not member.is_folder:
            content = file.peek(member.offset, member.size)
            contents[len(members)] = _label_alone(content) if suffix == ".json" else content
        members.append(member)
        on_progress(file.tell())
    return Index(file.version, members, contents)


def _label_alone(content: bytes) -> bytes:
    label = label_of_json(content)
    return b"{}" if label is None else json.dumps({"label": label}).encode()


class _RangedFile:
    """As much of a file as tarfile asks of one."""

    def __init__(self, address: str, retries: Retries) -> None:
        self._address, self._retries = address, retries
        self._position = self._start = 0
        self._block = _SHORTEST
        first = read_part(address, 0, self._block, retries)
        self._held, self.version = first

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        size = self.version.size - self._position if size < 0 else size
        content = self.peek(self._position, size)
        self._position += len(content)
        return content

    def peek(self, offset: int, size: int) -> bytes:
        """Fewer bytes at the end of the file."""
        if not self._start <= offset <= offset + size <= self._start + len(self._held):
            size = max(0, min(size, self.version.size - offset))
            self._hold(offset, size)
        return self._held[offset - self._start : offset - self._start + size]

    def _hold(self, offset: int, size: int) -> None:
        if size == 0:
            self._start, self._held = offset, b""
            return
        gap = offset - (self._start + len(self._held))
        # Reading on: the blocks grow. A jump over more than a block: they start small again.
        self._block = min(4 * self._block, _LONGEST) if abs(gap) < self._block else _SHORTEST
        part = read_part(self._address, offset, max(size, self._block), self._retries)
        if not part.version.is_same(self.version):
            raise BrokenTar("it was changed while it was being listed")
        self._start, self._held = offset, part.content


# Kept


def kept_index(address: str, version: Version) -> Index | None:
    """None where nothing is kept of this version of the tar, or what is kept is damaged."""
    file = _file(address)
    try:
        kept = read_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s: %s cannot be used (%s), so it is listed again", shown(address), file, error)
        return None
    try:
        return _checked(kept, address, version)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        log.warning("%s: %s cannot be used (%r), so it is listed again", shown(address), file, error)
        return None


def keep_index(address: str, index: Index) -> None:
    """Raises OSError where the folder cannot be written."""
    content = {
        "format": _FORMAT,
        "address": shown(address),
        "version": [index.version.size, index.version.etag, index.version.modified],
        "members": [list(member) for member in index.members],
        "contents": {str(place): content.decode("latin-1") for place, content in index.contents.items()},
    }
    file = _file(address)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content, indent=None)


def _checked(kept: Any, address: str, version: Version) -> Index | None:
    if kept["format"] != _FORMAT or kept["address"] != shown(address):
        return None
    size, etag, modified = kept["version"]
    if not Version(int(size), str(etag), str(modified)).is_same(version):
        return None
    members = [
        Member(str(path), tuple(map(str, tars)), int(offset), int(length), bool(is_folder))
        for path, tars, offset, length, is_folder in kept["members"]
    ]
    if any(not 0 <= member.offset <= member.offset + max(0, member.size) <= version.size for member in members):
        raise ValueError("files that lie outside the tar")
    contents = {int(place): content.encode("latin-1") for place, content in kept["contents"].items()}
    if any(not 0 <= place < len(members) for place in contents):
        raise ValueError("labels of no file")
    return Index(version, members, contents)


def _file(address: str) -> Path:
    return cache_folder() / "shards" / f"{hashlib.sha256(shown(address).encode()).hexdigest()[:32]}.json"
