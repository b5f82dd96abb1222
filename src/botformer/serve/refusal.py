"""An answer that is an error: its status, and a message that says what was wrong, expected, what to do."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 - most are no fault of ours
    """A request that gets no result. The application turns it into {"detail": ...}."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def too_busy(seconds: float) -> Refusal:
    """429, to be tried again after so many seconds."""
    wait = max(1, round(seconds))
    return Refusal(
        429, f"the queue is full; try again in {wait} s, or start the server with a longer --queue",
        {"Retry-After": str(wait)},
    )  # fmt: skip
