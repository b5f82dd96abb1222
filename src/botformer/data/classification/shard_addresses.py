"""Addresses of tars as people write them: http://host/train-{0000..0127}.tar, several of them joined by ::"""

import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Sequence

from botformer.data.http_ranges import shown
from botformer.errors import InputError

_SCHEMES = ("http://", "https://")
_MOST = 100_000
_NUMBERS = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_EXAMPLE = "http://HOST/PATH/{train-{0000..0127},validation-{0000..0006}}.tar"


def are_addresses(data: str) -> bool:
    return data.lower().startswith(_SCHEMES)


def expand(data: str) -> list[str]:
    """Every address: braces hold numbers (0..9, with leading zeros if the first has them) or alternatives, and may be
    nested, as in a shell and in WebDataset.

    Raises:
        InputError: something that is no address of a tar, or one that occurs twice.
    """
    addresses: list[str] = []
    for pattern in data.split("::"):
        for address in _expanded(pattern.strip(), data):
            addresses.append(address)
            if len(addresses) > _MOST:
                raise InputError(f"{data}: more than {_MOST:,} addresses; are the numbers in braces what you mean?")
    for address in addresses:
        _check(address)
    if len(set(addresses)) < len(addresses):
        twice = next(address for place, address in enumerate(addresses) if address in addresses[:place])
        raise InputError(f"{data}: {shown(twice)} occurs twice")
    return addresses


def relative_names(addresses: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that holds all of them, as an address with a slash at its end, and their paths in it."""
    urls = [urllib.parse.urlsplit(address) for address in addresses]
    paths = [f"/{url.netloc}{urllib.parse.unquote(url.path, errors='surrogateescape')}" for url in urls]
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    folder = f"{urls[0].scheme}:/{urllib.parse.quote(common.rstrip('/'), safe='/:[]')}/"
    return folder, [posixpath.relpath(path, common) for path in paths]


def _expanded(pattern: str, data: str) -> Iterator[str]:
    """The first braces are replaced by each of what they stand for, and so on with what comes of it."""
    begin = pattern.find("{")
    if begin < 0:
        if "}" in pattern:
            raise InputError(f"{data}: a closing brace without an opening one; expected is {_EXAMPLE}")
        yield pattern
        return
    depth, commas, end = 0, [begin], -1
    for place in range(begin, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if depth == 1 and pattern[place] == ",":
            commas.append(place)
        if depth == 0:
            end = place
            break
    if end < 0:
        raise InputError(f"{data}: an opening brace without a closing one; expected is {_EXAMPLE}")
    before, after = pattern[:begin], pattern[end + 1 :]
    if len(commas) > 1:
        choices = (pattern[one + 1 : other] for one, other in zip(commas, [*commas[1:], end], strict=True))
    else:
        choices = _numbers(pattern[begin + 1 : end], data)
    for choice in choices:
        yield from _expanded(f"{before}{choice}{after}", data)


def _numbers(inside: str, data: str) -> Iterator[str]:
    match = _NUMBERS.fullmatch(inside)
    if not match:
        raise InputError(
            f"{data}: {{{inside}}} is neither numbers, {{0000..0127}}, nor alternatives, {{train,validation}}"
        )
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise InputError(f"{data}: {{{inside}}} counts backwards; expected is {{{match[2]}..{match[1]}}}")
    return (f"{number:0{len(match[1])}}" for number in range(first, last + 1))


def _check(address: str) -> None:
    try:
        url = urllib.parse.urlsplit(address)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise InputError(f"{address}: not an address ({error}); expected is {_EXAMPLE}") from error
    if not address.lower().startswith(_SCHEMES) or not host or re.search(r"[\s\x00-\x1f]", address):
        raise InputError(f"{address!r}: not an address; expected is {_EXAMPLE}")
    if url.username or url.password:
        raise InputError(
            f"{host}: an address with a name or a password in it is not read, because it would be written into the "
            "run's files; give the tars without one to this machine, or copy them into a folder"
        )
    if not url.path.lower().endswith(".tar"):
        raise InputError(
            f"{shown(address)}: not a tar. Over HTTP, uncompressed tars are read (a server says nothing about what is "
            f"in a folder, so each is named): {_EXAMPLE}"
        )
