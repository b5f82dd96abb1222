"""Parts of files over HTTP: one range request each, over a connection that is kept, tried again when it fails.

A connection belongs to one thread of one process. Nothing is asked of the network before a part is read.
"""

import http.client
import logging
import os
import random
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import NamedTuple

from botformer import __version__
from botformer.errors import InputError

log = logging.getLogger("botformer.data")

_REDIRECTS = 5
_LONGEST_WAIT_S = 30.0
_EXPLANATION = 4096
"""Bytes that are read of an answer that is no part of a file."""
_SAID_AFTER = 3
"""Failures in a row after which a warning tells what is being waited for."""
_GONE = (401, 403, 404, 410)
_WORTH_ANOTHER_TRY = (408, 425, 429)
"""And everything from 500 on."""
_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")

_chance = random.SystemRandom()  # the global generators belong to the augmentation


@dataclass(frozen=True)
class Retries:
    """How often a request is tried, and how long is waited: 1, 2, 4, 8 and 16 s, a little more or less each time."""

    tries: int = 6
    first_wait_s: float = 1.0
    timeout_s: float = 15.0
    """Without a byte from the server."""


RETRIES = Retries()


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from another."""

    size: int
    """Of the file, in bytes."""
    etag: str = ""
    modified: str = ""

    def is_same(self, other: "Version") -> bool:
        """Servers that share an address may disagree on one of the two marks, but not on both."""
        marks = [(self.etag, other.etag), (self.modified, other.modified)]
        known = [one == two for one, two in marks if one and two]
        return self.size == other.size and (any(known) or not known)


class Part(NamedTuple):
    content: bytes
    version: Version


class NotThere(InputError):  # noqa: N818 - said by a server that could be reached
    """The server has no such file, or gives it to nobody."""


class Unreachable(InputError):  # noqa: N818 - named after the server
    """Every try failed."""


class _Failed(Exception):  # noqa: N818
    """One try, for a reason that may have gone by the next one."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        """Asked for by the server."""


def read_part(address: str, start: int, size: int, retries: Retries, what: str = "") -> Part:
    """`size` bytes from `start` on, fewer at the end of the file. `what` is said in messages: the member of a tar.

    Raises:
        NotThere: 401, 403, 404 or 410.
        Unreachable: no try was answered as it should be; with the last reason.
        InputError: a server that does not know ranges, or an answer that no further try would change.
    """
    wait_s, failure = retries.first_wait_s, _Failed("")
    for number in range(1, retries.tries + 1):
        try:
            return _try(address, start, size, what, retries.timeout_s)
        except _Failed as error:
            failure = error
        if number == retries.tries:
            break
        if number == _SAID_AFTER:
            log.warning("%s: %s; tried %d times, and again soon", shown(address), failure, number)
        time.sleep(min(max(wait_s * _chance.uniform(0.75, 1.25), failure.wait_s), _LONGEST_WAIT_S))
        wait_s *= 2
    raise Unreachable(
        f"{shown(address)}{what and f', {what}'}: no answer that could be used in {retries.tries} tries; the last one: "
        f"{failure}. Once the server answers again, the same command continues a training from its last checkpoint"
    )


def shown(address: str) -> str:
    """An address for messages and names of files: without what follows the path, which may be a signature."""
    return urllib.parse.urlunsplit(urllib.parse.urlsplit(address)._replace(query="", fragment=""))


def public_name(data: str) -> str:
    """Of data that somebody named, for pages that others read: of an address as `shown`, a path as it is."""
    return shown(data) if "://" in data else data


def close_connections() -> None:
    """Those of this thread."""
    for connection in _mine.connections.values():
        connection.close()
    _mine.connections.clear()


# One try


class _Connections(threading.local):
    def __init__(self) -> None:
        self.process = os.getpid()
        self.connections: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self.targets: dict[str, str] = {}
        """Where addresses were redirected to the last time. Such targets expire."""


_mine = _Connections()


class _Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def _try(address: str, start: int, size: int, what: str, timeout_s: float) -> Part:
    target = _mine.targets.get(address, address)
    for _ in range(_REDIRECTS + 1):
        answer = _ask(target, start, size, timeout_s)
        location = answer.headers.get("Location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            break
        target = urllib.parse.urljoin(target, location)
        if urllib.parse.urlsplit(target).scheme not in ("http", "https") or (
            address.startswith("https:") and not target.startswith("https:")
        ):
            raise InputError(f"{shown(address)} leads to {shown(target)}, which is not read: expected is https://")
    else:
        raise _Failed(f"redirected more than {_REDIRECTS} times")
    if target != address:
        if answer.status in _GONE and address in _mine.targets:  # expired
            del _mine.targets[address]
            raise _Failed(f"the server that it was redirected to says {answer.status}")
        _mine.targets[address] = target
    return _checked(answer, address, start, size, what)


def _checked(answer: _Answer, address: str, start: int, size: int, what: str) -> Part:
    status, where = answer.status, f"{shown(address)}{what and f', {what}'}"
    if status in _GONE:
        reason = http.client.responses[status]
        raise NotThere(
            f"{where}: the server says {status} ({reason}); expected is an address that opens without a password, "
            "spelt as on the server"
        )
    if status in _WORTH_ANOTHER_TRY or status >= 500:
        after = answer.headers.get("Retry-After", "")
        raise _Failed(
            f"the server says {status} ({http.client.responses.get(status, 'unknown')})",
            float(after) if after.isdecimal() else 0.0,
        )
    if status == 200:
        raise InputError(
            f"{where}: the server gives whole files alone, not parts of them (it ignores Range; python -m http.server "
            "does). Take one that gives parts (nginx, Apache, Caddy, S3), or copy the tars into a folder and give that"
        )
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if status not in (206, 416) or (status == 416 and not match):
        raise InputError(f"{where}: the server says {status} to a request of {size} bytes; expected 206")
    if not match:
        raise _Failed(f"the server says 206 with Content-Range {answer.headers.get('Content-Range')!r}")
    total = int(match[3])
    version = Version(total, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""))
    if status == 416:
        return Part(b"", version)
    if match[1] is None or (int(match[1]), int(match[2]) + 1) != (start, min(start + size, total)):
        raise _Failed(f"the server sent {match[0]} instead of bytes {start}-{start + size - 1}")
    expected = int(match[2]) + 1 - start
    if len(answer.body) != expected:
        raise _Failed(f"the connection ended after {len(answer.body)} of {expected} bytes")
    return Part(answer.body, version)


def _ask(target: str, start: int, size: int, timeout_s: float) -> _Answer:
    """Over the connection that is open, or else a new one: a server may have closed it meanwhile."""
    headers = {
        "Range": f"bytes={start}-{start + size - 1}",
        "Accept-Encoding": "identity",
        "User-Agent": f"botformer/{__version__}",
    }
    while True:
        key, connection, path = _connection(target, timeout_s)
        was_open = connection.sock is not None
        is_usable = False
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(size if response.status == 206 else _EXPLANATION)
            is_usable = response.isclosed()  # else there is more, such as a whole file, or there should have been
            return _Answer(response.status, response.headers, body)
        except ssl.SSLCertVerificationError as error:
            raise InputError(
                f"{shown(target)}: the server's certificate is not trusted ({error.verify_message}); where a company's "
                "own authority signed it, SSL_CERT_FILE names its file"
            ) from error
        except (http.client.HTTPException, OSError) as error:
            if not (was_open and isinstance(error, ConnectionError)):
                reason = getattr(error, "strerror", None) or str(error) or "no reason given"
                raise _Failed(f"{reason} ({type(error).__name__})") from error
        finally:
            if not is_usable:
                connection.close()
                _mine.connections.pop(key, None)


def _connection(target: str, timeout_s: float) -> tuple[tuple[str, str], http.client.HTTPConnection, str]:
    """The connection, its key among those of this thread, and what to ask it for."""
    if _mine.process != os.getpid():  # a fork must not speak on its parent's connections
        _mine.__init__()
    url = urllib.parse.urlsplit(target)
    path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    path = urllib.parse.quote(path, safe="/%?&=+:;,@!$'()*~-._[]")
    proxy = urllib.parse.urlsplit(_proxy(url.scheme, url.hostname or ""))
    if proxy.hostname and url.scheme == "http":
        path = f"http://{url.netloc}{path}"
    key = url.scheme, url.netloc
    if key not in _mine.connections:
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        if proxy.hostname:
            connection = kind(proxy.hostname, proxy.port or 80, timeout=timeout_s)
            if url.scheme == "https":
                connection.set_tunnel(url.hostname or "", url.port)
        else:
            connection = kind(url.hostname or "", url.port, timeout=timeout_s)
        _mine.connections[key] = connection
    return key, _mine.connections[key], path


def _proxy(scheme: str, host: str) -> str:
    """Of the environment: http_proxy, https_proxy, no_proxy; "" for none."""
    if urllib.request.proxy_bypass_environment(host):  # pyright: ignore[reportAttributeAccessIssue]
        return ""
    found = urllib.request.getproxies_environment().get(scheme, "")
    return found if "//" in found or not found else f"http://{found}"
