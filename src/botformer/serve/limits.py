"""What a request may cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botformer.serve.refusal import too_busy


@dataclass(frozen=True)
class Limits:
    """Of one server."""

    queue: int = 128
    """Images per network that may be waiting or in work; one more is refused (429)."""
    megabytes: float = 20.0
    """Of an image file."""
    megapixels: float = 100.0
    """Of an image, by its header, before it is decoded."""
    seconds: float = 60.0
    """From the first byte of a request to its answer."""

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)


class Places:
    """For so many requests at a time. To be used by one thread alone.

    Args:
        retry_after: seconds after which one may be free.
    """

    def __init__(self, most: int, retry_after: Callable[[], float]) -> None:
        self._most, self._retry_after = most, retry_after
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises `Refusal`: 429, all are taken."""
        if self.taken >= self._most:
            raise too_busy(self._retry_after())
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
