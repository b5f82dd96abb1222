"""The images in tars (webdataset's shards), read in the order in which they lie there, without unpacking."""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from posixpath import dirname, join, normpath
from tarfile import InvalidHeaderError, ReadError, TruncatedHeaderError  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from botformer.data.image_files import is_hidden, is_image
from botformer.data.image_inputs import Damaged, NamedBytes
from botformer.read_file import open_file

_ENDINGS = (".tar", ".tar.gz", ".tgz")
TAR_IMAGE_BYTES = 1e5
"""About, to know how much of the work a tar is."""


class TarImage(NamedTuple):
    image: NamedBytes | Damaged
    fraction: float
    """Of the tar that is read once this image is."""


def is_tar(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def tar_images(path: Path) -> Iterator[TarImage]:
    """The images of a tar, named TAR/MEMBER, and at the end those that are links to its files. One that is damaged ends
    with a `Damaged` of its name."""
    size = max(path.stat().st_size, 1) if path.is_file() else 1
    found, links = 0, dict[str, str]()
    try:
        with _opened(path) as (file, tar):
            for member in _members(tar):
                name = _plain(member.name)
                if not is_image(name) or is_hidden(name):
                    continue
                if member.islnk() or member.issym():
                    links[member.name] = _target(member)
                elif member.isfile() and not member.issparse():
                    yield TarImage(NamedBytes(f"{path.as_posix()}/{name}", _data(tar, member)), _part(file, size))
                    found += 1
        for image in _linked(path, links) if links else ():
            yield TarImage(image, 1.0)
            found += 1
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = f"the tar is damaged after {found} images ({getattr(error, 'strerror', None) or error})"
        yield TarImage(Damaged(path.as_posix(), reason), 1.0)
        return
    if not found:
        yield TarImage(Damaged(path.as_posix(), "the tar holds no images"), 1.0)


def _linked(path: Path, links: Mapping[str, str]) -> Iterator[NamedBytes | Damaged]:
    """What links (name -> that of the file, or of another link) stand for, in the order of the files; then those to
    nothing in the tar. It is read once more: what is streamed cannot be gone back in."""
    of_file: dict[str, list[str]] = {}
    for name in links:
        target, seen = links[name], {name}
        while target in links and target not in seen:
            seen.add(target)
            target = links[target]
        of_file.setdefault(target, []).append(name)
    with _opened(path) as (_, tar):
        for member in _members(tar):
            if member.isfile() and not member.issparse() and member.name in of_file:
                data = _data(tar, member)
                for name in of_file.pop(member.name):
                    yield NamedBytes(f"{path.as_posix()}/{_plain(name)}", data)
    for target, names in of_file.items():
        for name in names:
            yield Damaged(f"{path.as_posix()}/{_plain(name)}", f"is a link to {target}, which the tar does not hold")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, tarfile.TarFile]]:
    with open_file(path) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
        yield file, tar


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
        yield member


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None, member.name
    data = content.read()
    if len(data) < member.size:
        raise ReadError("unexpected end of data")
    return data


def _part(file: BufferedReader, size: int) -> float:
    return min(file.tell() / size, 1.0)


def _plain(name: str) -> str:
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".", ".."))


def _target(link: tarfile.TarInfo) -> str:
    """The name of the member that a link names: a symbolic one from its own folder."""
    return normpath(join(dirname(link.name), link.linkname)) if link.issym() else link.linkname


class _Member(tarfile.TarInfo):
    """tarfile takes a damaged header after the first for the end of the tar, and says nothing."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except (InvalidHeaderError, TruncatedHeaderError) as error:
            raise ReadError(str(error)) from error
