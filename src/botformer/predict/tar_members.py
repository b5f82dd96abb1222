"""The images in tars (webdataset's shards), read in the order in which they lie there, without unpacking."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
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
    """The images of a tar, named TAR/MEMBER. One that is damaged ends with a `Damaged` of its name."""
    size = max(path.stat().st_size, 1) if path.is_file() else 1
    found = 0
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                name = "/".join(part for part in PurePosixPath(member.name).parts if part not in ("/", ".", ".."))
                if not member.isfile() or member.issparse() or not is_image(name) or is_hidden(name):
                    continue
                content = tar.extractfile(member)
                assert content is not None, name
                data = content.read()
                if len(data) < member.size:
                    raise ReadError("unexpected end of data")
                yield TarImage(NamedBytes(f"{path.as_posix()}/{name}", data), min(file.tell() / size, 1.0))
                found += 1
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = f"the tar is damaged after {found} images ({getattr(error, 'strerror', None) or error})"
        yield TarImage(Damaged(path.as_posix(), reason), 1.0)
        return
    if not found:
        yield TarImage(Damaged(path.as_posix(), "the tar holds no images"), 1.0)


class _Member(tarfile.TarInfo):
    """tarfile takes a damaged header after the first for the end of the tar, and says nothing."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            return super().fromtarfile(tarfile)
        except (InvalidHeaderError, TruncatedHeaderError) as error:
            raise ReadError(str(error)) from error
