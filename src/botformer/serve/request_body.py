"""Bodies of requests, held to their limits while they are read."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from botformer.serve.refusal import Refusal, too_busy

_FORM_BYTES = 64_000
"""Beside the file, in a form: boundaries, headers, fields."""
_MOST_FIELDS = 20


class BodyMemory:
    """How many bytes of bodies are in memory; of all requests together."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self.bytes = most_bytes, 0

    def take(self, size: int) -> None:
        """Raises `Refusal`: 429, there is no more."""
        if self.bytes + size > self._most:
            raise too_busy(1)
        self.bytes += size

    def free(self, size: int) -> None:
        self.bytes -= size


class UploadedImage(NamedTuple):
    name: str
    """Empty where the request does not say."""
    data: bytes


async def limited(request: Request, most_bytes: int, what: str, memory: BodyMemory) -> AsyncGenerator[bytes, None]:
    """The body, piece by piece. It counts in `memory` as long as it is being read, and is then the caller's.

    Raises:
        Refusal: 413 more than `most_bytes`, by what the request says of itself or by what comes.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most_bytes:
        raise _too_long(most_bytes, what)
    read = 0
    try:
        async for piece in request.stream():
            memory.take(len(piece))
            read += len(piece)
            if read > most_bytes:
                raise _too_long(most_bytes, what)
            yield piece
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before the request was whole") from None
    finally:
        memory.free(read)


async def read_image(request: Request, most_bytes: int, memory: BodyMemory) -> UploadedImage:
    """The image of a request: its body, or the one file of a form.

    Raises:
        Refusal: 413 too many bytes, 400 no body, or a form that is none or has no file or several.
    """
    what = f"an image file may have {most_bytes / 1e6:g} MB"
    if not is_form(request):
        data = b"".join([piece async for piece in limited(request, most_bytes, what, memory)])
        if not data:
            raise Refusal(400, "the request has no body; send the bytes of an image file, or a form with a file")
        return UploadedImage("", data)
    pieces = limited(request, most_bytes + _FORM_BYTES, what, memory)
    form = await parse_form(request, pieces, most_files=1, in_memory=most_bytes + _FORM_BYTES)
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if len(files) != 1:
            raise Refusal(400, f"the form has {len(files)} files; expected one, the image")
        data = await files[0].read()
        if len(data) > most_bytes:
            raise _too_long(most_bytes, what)
        if not data:
            raise Refusal(400, "the file of the form is empty; expected an image file")
        return UploadedImage(files[0].filename or "", data)
    finally:
        await form.close()


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


async def parse_form(
    request: Request, pieces: AsyncGenerator[bytes, None], most_files: int, in_memory: int, part_bytes: int = 1_000_000
) -> FormData:
    """A form; files of more than `in_memory` bytes lie in temporary ones until it is closed.

    Raises:
        Refusal: 400 not a form, or too many files.
    """
    parser = MultiPartParser(
        request.headers, pieces, max_files=most_files, max_fields=_MOST_FIELDS, max_part_size=part_bytes
    )
    parser.spool_max_size = in_memory
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"the form cannot be read: {error.message} Send multipart/form-data, as curl -F does") from None


def _too_long(most_bytes: int, what: str) -> Refusal:
    return Refusal(413, f"the request is too large: {what}; send a smaller one, or start with a larger --max-megabytes")
