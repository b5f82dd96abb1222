"""Who may use the server: requests for this host, from its own page or programs, with the token if there is one."""

import ipaddress
import json
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """What is asked of a request."""

    hosts: Collection[str] | None
    """Names that it may be for, without port; None: any, where a token is asked for."""
    token: str | None
    public_name: str | None = None
    """Of a proxy, whose pages are the server's own. It may replace the host, but not the origin."""


def access_for(host: str, public_name: str | None) -> Access:
    """Of a server on `host`.

    On the machine itself nobody needs a token, but a page from elsewhere must not reach the server under a name of its
    own (DNS rebinding). Whoever can come from elsewhere needs the token: on other addresses, and where a proxy on this
    machine makes it known as `public_name`.
    """
    if is_loopback(host) and public_name is None:
        return Access((*_LOOPBACK_NAMES, host.lower()), None)
    token, public_name = secrets.token_urlsafe(32), public_name and public_name.lower()
    hosts = (*_LOOPBACK_NAMES, host.lower(), public_name) if public_name and is_loopback(host) else None
    return Access(hosts, token, public_name)


def is_loopback(host: str) -> bool:
    """Whether an address, or each address of a name, is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


class AccessGuard:
    """Around an application: refuses what is not allowed, and adds the headers that keep a browser from more.

    Args:
        free: beginnings of paths that need no token, because they hold nothing of the networks: the page itself.
    """

    def __init__(self, app: ASGIApp, access: Access, free: Collection[str]) -> None:
        self._app, self._access, self._free = app, access, tuple(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                message["headers"] = headers.raw
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send_guarded)
            return
        status, detail = refused
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send_guarded({"type": "http.response.start", "status": status, "headers": headers})
        await send_guarded({"type": "http.response.body", "body": body})

    def _refused(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = self._access.hosts
        if hosts is not None and _name(host) not in hosts:
            return 403, f"this server is not {host[:80]!r}; use the address that botformer serve printed"
        if origin is not None and not self._is_own(origin, host):
            return 403, f"pages of {origin[:80]!r} may not use this server; open its own page, or use a program"
        if self._access.token is None or any(path == free or path.startswith(f"{free}/") for free in self._free):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        # As bytes: of texts, only ASCII can be compared.
        if kind.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self._access.token.encode()):
            return None
        return (
            401,
            "the token is missing or wrong; send the header Authorization: Bearer TOKEN, as the server printed it",
        )

    def _is_own(self, origin: str, host: str) -> bool:
        netloc = origin.partition("//")[2].lower()  # empty for "null"
        return netloc != "" and (netloc == host.lower() or _name(netloc) == self._access.public_name)


def _name(netloc: str) -> str:
    """Of a host and its port."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""
