"""What a request may cost."""

from dataclasses import dataclass


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
