"""Tars on a server: listed side by side, once; then one request per image, so that any image can be the next one."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from botformer.data import http_ranges
from botformer.data.classification.shard_addresses import relative_names
from botformer.data.classification.shard_index import Index, keep_index, kept_index, read_index
from botformer.data.classification.tars import BrokenTar, Listed, broken_tars
from botformer.data.http_ranges import NotThere, Retries, Unreachable, Version, close_connections, read_part, shown
from botformer.environment import cache_folder
from botformer.errors import InputError
from botformer.terminal import screen, text_column
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_ResultT = TypeVar("_ResultT")

_AT_ONCE = 16
"""Tars that are listed side by side: what takes time is waiting for answers."""
_LONGEST_TEXT = 2**24
_SHOWN = 20


def read_text(address: str) -> str | None:
    """A small text file on the server; None where there is none."""
    try:
        content = read_part(address, 0, _LONGEST_TEXT, http_ranges.RETRIES).content
    except Unreachable:
        raise
    except InputError:
        return None
    return content.decode("utf-8-sig", "replace")


@dataclass(frozen=True)
class RemoteTar:
    address: str
    version: Version
    """When it was listed."""
    retries: Retries

    def read(self, offset: int, size: int, name: str) -> bytes:
        if size == 0:
            return b""
        part = read_part(self.address, offset, size, self.retries, name)
        if not part.version.is_same(self.version) or len(part.content) != size:
            raise InputError(
                f"{shown(self.address)} was changed on the server since it was listed (now {_described(part.version)}; "
                f"it was {_described(self.version)}), here {name}. Put the old one back, or start again with the new "
                "one: a training that goes on with other images would be neither"
            )
        return part.content


class _Known(NamedTuple):
    version: Version
    listed: Index | None
    """None: it has to be listed."""


def list_remote(addresses: Sequence[str]) -> list[Listed]:
    """What is in the tars. What was listed before, by anybody on this machine, is taken from the cache.

    Raises:
        InputError: tars that are not there, or that are broken at the second try, too: all of them; or a server that
            cannot be reached or used.
    """
    _, names = relative_names(addresses)
    retries = http_ranges.RETRIES
    with _workers() as workers:
        known = workers.of_each(addresses, lambda address: _look_up(address, retries))
        missing = [address for address in addresses if known[address].listed is None]
        indices = {address: index for address, (_, index) in known.items() if index is not None}
    if missing:
        indices |= _list(missing, {address: known[address].version.size for address in missing}, retries)
    return [
        Listed(RemoteTar(address, index.version, retries), name, index.members, index.contents)
        for address, name in zip(addresses, names, strict=True)
        for index in (indices[address],)
    ]


def _list(addresses: Sequence[str], sizes: dict[str, int], retries: Retries) -> dict[str, Index]:
    total = sum(sizes.values())
    log.info("listing %d tars (%.1f GB) on the server; once, then it is kept", len(addresses), total / 1e9)
    # Processes of one training begin at different tars, and find those that another one has done by then.
    first = os.getpid() * 7919 % len(addresses)
    columns = (text_column("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    not_kept: list[OSError] = []
    quiet = os.environ.get("RANK", "0") != "0"
    with (
        Progress(*columns, console=screen(stderr=True, quiet=quiet), transient=True) as progress,
        _workers() as workers,
    ):
        bar = progress.add_task(f"listing {len(addresses)} tars", total=total)

        def list_one(address: str) -> Index:
            known = _look_up(address, retries)
            index = known.listed or _walk(address, retries, workers.stop, lambda size: progress.advance(bar, size))
            if known.listed is None:
                try:
                    keep_index(address, index)
                except OSError as error:
                    not_kept.append(error)
            return index

        indices = workers.of_each([*addresses[first:], *addresses[:first]], list_one)
    if not_kept:
        log.warning(
            "what is in %d tars cannot be kept in %s (%s), so they are listed again next time",
            len(not_kept),
            cache_folder(),
            not_kept[0].strerror or not_kept[0],
        )
    return indices


def _look_up(address: str, retries: Retries) -> _Known:
    version = read_part(address, 0, 1, retries).version
    return _Known(version, kept_index(address, version))


def _walk(address: str, retries: Retries, stop: threading.Event, advance: Callable[[int], None]) -> Index:
    """Twice if need be: what was broken may have been broken on the way, or be replaced at this moment."""
    came = 0

    def on_progress(position: int) -> None:
        nonlocal came
        if stop.is_set():
            raise _StoppedError
        if position > came:
            advance(position - came)
            came = position

    try:
        return read_index(address, retries, on_progress)
    except BrokenTar:
        return read_index(address, retries, on_progress)


def _described(version: Version) -> str:
    marks = [f"{version.size:,} bytes", version.etag and f"ETag {version.etag}", version.modified]
    return ", ".join(filter(None, marks))


# Side by side


class _StoppedError(Exception):
    """Another one failed, or the user does not want to wait."""


class _Workers:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.stop = threading.Event()

    def of_each(self, addresses: Sequence[str], function: Callable[[str], _ResultT]) -> dict[str, _ResultT]:
        """The function's results. Raises `InputError` with everything that is missing or broken; at once, where the
        server cannot be reached."""
        futures: dict[Future[_ResultT], str] = {
            self._pool.submit(_closing, function, address): address for address in addresses
        }
        results: dict[str, _ResultT] = {}
        missing: list[str] = []
        broken: dict[str, str] = {}
        for future in as_completed(futures):
            try:
                results[futures[future]] = future.result()
            except NotThere as error:
                missing.append(str(error))
            except BrokenTar as error:
                broken[shown(futures[future])] = str(error)
        if missing:
            raise InputError(and_more(sorted(missing), _SHOWN, "\n"))
        if broken:
            raise broken_tars(broken)
        return results


def _closing(function: Callable[[str], _ResultT], address: str) -> _ResultT:
    try:
        return function(address)
    finally:
        close_connections()


@contextmanager
def _workers() -> Iterator[_Workers]:
    """Threads that end with the block, without finishing their work where an exception ends it."""
    pool = ThreadPoolExecutor(_AT_ONCE, "list-tars")
    workers = _Workers(pool)
    try:
        yield workers
    finally:
        workers.stop.set()
        pool.shutdown(cancel_futures=True)
