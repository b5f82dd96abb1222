"""The server as a program: its port, its threads, the signals that end it."""

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

import uvicorn

from botformer.errors import InputError
from botformer.serve.access_guard import Access
from botformer.serve.application import make_application
from botformer.serve.serving import Serving

_PORTS_TRIED = 100
_LONGER_S = 5
"""What a shutdown may take longer than a request."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket on `port`, or on the next one that is free; on any free one for port 0.

    Raises:
        InputError: there is no such address here, or no port that this user may have.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise InputError(f"--host {host} is no address of this machine ({error.strerror}); try 127.0.0.1") from None
    for number in range(port, min(port + _PORTS_TRIED, 65536)):
        # asyncio sends small answers at once (TCP_NODELAY) only where the socket says that it is TCP: 40 ms of each.
        candidate = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # elsewhere it would share the port with others
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((address[0], number, *address[2:]))
            candidate.listen()
        except OSError as error:
            candidate.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise InputError(f"--host {host} --port {number}: {os.strerror(error.errno or 0).lower()}") from None
        return candidate
    raise InputError(f"the ports from {port} on are all taken; name another --port")


@contextmanager
def running(serving: Serving, access: Access, at: socket.socket) -> Iterator[uvicorn.Server]:
    """The server in a thread of its own, which takes requests when this is entered, and has ended when it is left."""
    config = uvicorn.Config(
        make_application(serving, access),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=int(serving.limits.seconds) + _LONGER_S,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [at]}, name="botformer-http", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield server
    finally:
        serving.stopping = server.should_exit = True
        thread.join()


def serve_until_signal(serving: Serving, server: uvicorn.Server) -> None:
    """Returns at SIGINT or SIGTERM; `running` then finishes what was begun. A second one ends the process at once."""
    stopping = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = serving.stopping = server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while not stopping:
        time.sleep(0.1)
