"""Bodies of requests, held to their limits while they are read."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO, NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from botformer.serve.refusal import Refusal, too_busy

_FORM_BYTES = 64_000
"""Beside the file, in a form: boundaries, headers, fields."""
_MOST_FIELDS = 20
_CORRECTED_IMAGES, _MOST_FILES = 50, 2000
"""Corrections may have so many times the bytes of an image, and so many files."""
_ANNOTATION_BYTES = 64_000_000


class BodyMemory:
    """How many bytes of bodies are in memory; of all requests together. To be used by one thread alone."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self.bytes = most_bytes, 0

    @contextmanager
    def part(self) -> Iterator[Callable[[int], None]]:
        """What takes some more bytes, for one request; all of it is free again at the end.

        Raises:
            Refusal: 429, there is no more.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.bytes + size > self._most:
                raise too_busy(1)
            self.bytes += size
            taken += size

        try:
            yield take
        finally:
            self.bytes -= taken


class UploadedImage(NamedTuple):
    name: str
    """Empty where the request does not say."""
    data: bytes


class FormFile(NamedTuple):
    names: tuple[str, str]
    """That of its part of the form, and its own."""
    file: BinaryIO


async def limited(
    request: Request, most_bytes: int, what: str, take: Callable[[int], None] = lambda size: None
) -> AsyncGenerator[bytes, None]:
    """The body, piece by piece; `take` is called with the size of each.

    Raises:
        Refusal: 413 more than `most_bytes`, by what the request says of itself or by what comes.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most_bytes:
        raise _too_long(most_bytes, what)
    read = 0
    try:
        async for piece in request.stream():
            take(len(piece))
            read += len(piece)
            if read > most_bytes:
                raise _too_long(most_bytes, what)
            yield piece
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before the request was whole") from None


async def read_image(request: Request, most_bytes: int, take: Callable[[int], None]) -> UploadedImage:
    """The image of a request: its body, or the one file of a form.

    Raises:
        Refusal: 413 too many bytes, 400 no body, or a form that is none or has no file or several, 422 other parts.
    """
    what = f"an image file may have {most_bytes / 1e6:g} MB"
    if not is_form(request):
        data = b"".join([piece async for piece in limited(request, most_bytes, what, take)])
        if not data:
            raise Refusal(400, "the request has no body; send the bytes of an image file, or a form with a file")
        return UploadedImage("", data)
    pieces = limited(request, most_bytes + _FORM_BYTES, what, take)
    form = await parse_form(request, pieces, most_files=2, in_memory=most_bytes + _FORM_BYTES)
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if len(files) != 1:
            raise Refusal(400, f"the form has {len(files)} files; expected one, the image")
        if words := [name for name, part in form.multi_items() if isinstance(part, str)]:
            raise Refusal(
                422,
                f"the form has {words[0][:80]!r} beside the file; parameters stand in the address: ?{words[0][:80]}=",
            )
        data = await files[0].read()
        if len(data) > most_bytes:
            raise _too_long(most_bytes, what)
        if not data:
            raise Refusal(400, "the file of the form is empty; expected an image file")
        return UploadedImage(files[0].filename or "", data)
    finally:
        await form.close()


@asynccontextmanager
async def corrections_form(request: Request, image_bytes: int) -> AsyncIterator[tuple[bytes, list[FormFile]]]:
    """The part "annotations" of a form, and its other files. They lie on the disk until this is left.

    Raises:
        Refusal: 413 too many bytes, 400 not a form, or one without annotations.
    """
    if not is_form(request):
        raise Refusal(400, "expected multipart/form-data: a part annotations (JSON) and a file per image")
    most = _CORRECTED_IMAGES * image_bytes
    pieces = limited(request, most, f"corrections may have {most / 1e6:g} MB at a time")
    form = await parse_form(request, pieces, _MOST_FILES, in_memory=2**20, part_bytes=_ANNOTATION_BYTES)
    try:
        content = form.get("annotations")
        if content is None:
            raise Refusal(400, "the form has no part annotations; expected JSON, and a file per image")
        text = content.encode() if isinstance(content, str) else await content.read(_ANNOTATION_BYTES)
        yield (
            text,
            [
                FormFile((name, part.filename or ""), part.file)
                for name, part in form.multi_items()
                if name != "annotations" and isinstance(part, UploadFile)
            ],
        )
    finally:
        await form.close()


def demand_known(request: Request) -> None:
    """Raises Refusal, 422, for a parameter of the address that its route does not have: it would be ignored."""
    names = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in names:
            raise Refusal(422, f"there is no parameter {name[:80]!r}; there are {', '.join(names)}")


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
        raise Refusal(
            400, f"the form cannot be read: {error.message} Send multipart/form-data, as curl -F does"
        ) from None


def _too_long(most_bytes: int, what: str) -> Refusal:
    return Refusal(413, f"the request is too large: {what}; send a smaller one, or start with a larger --max-megabytes")
