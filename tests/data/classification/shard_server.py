"""A folder over HTTP on this machine, with parts of files as real servers give them, and as much trouble as is asked
for."""

import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Trouble = Callable[[str, int], str]
"""(path, number of the request from 1 on) -> what goes wrong: "", one of `TROUBLES`, or "status NNN"."""

TROUBLES = ("drop", "half", "short", "other range", "status 500", "status 503")


def at_random(seed: int, fraction: float) -> Trouble:
    """That fraction of the requests fails, never more than three in a row of one file's."""
    rng, failed = random.Random(seed), Counter()

    def trouble(path: str, number: int) -> str:
        if failed[path] < 3 and rng.random() < fraction:
            failed[path] += 1
            return rng.choice(TROUBLES)
        failed[path] = 0
        return ""

    return trouble


class ShardServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.trouble: Trouble = lambda path, number: ""
        self.requests: list[tuple[str, int, int]] = []
        """(path, first byte, bytes) of each."""
        self.failures = 0
        self.connections = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that went away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ShardServer

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        assert asked, self.headers
        first, last = int(asked[1]), int(asked[2])
        with self.server.lock:
            self.server.requests.append((path, first, last - first + 1))
            trouble = self.server.trouble(path, len(self.server.requests))
            self.server.failures += bool(trouble)
        if trouble.startswith("status"):
            return self._say(int(trouble.split()[1]))
        if trouble.startswith("to "):
            return self._say(302, ("Location", trouble[3:]))
        if trouble == "drop":
            return self._hang_up()
        file = self.server.folder / path
        if not file.is_file():
            return self._say(404)
        content, stat = file.read_bytes(), file.stat()
        if trouble == "whole":
            return self._say(200, body=content)
        marks = ("ETag", f'"{stat.st_mtime_ns:x}"'), ("Last-Modified", self.date_time_string(int(stat.st_mtime)))
        if first >= len(content):
            return self._say(416, ("Content-Range", f"bytes */{len(content)}"), *marks)
        part = content[first : last + 1]
        shift = 512 if trouble == "other range" else 0
        given = ("Content-Range", f"bytes {first + shift}-{first + shift + len(part) - 1}/{len(content)}")
        if trouble == "short":  # as a proxy does that closes politely
            return self._say(206, given, *marks, body=part[: len(part) // 2])
        if trouble == "half":
            self._say(206, given, *marks, body=part, send=len(part) // 2)
            return self._hang_up()
        return self._say(206, given, *marks, body=part)

    def _say(self, status: int, *headers: tuple[str, str], body: bytes = b"", send: int | None = None) -> None:
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[ShardServer]:
    server = ShardServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
