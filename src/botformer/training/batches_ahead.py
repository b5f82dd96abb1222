"""The batches of the next steps, fetched before they are needed: a loader that fails is known of while the state of the
run is whole, and all processes can still save it together."""

import time
from collections import deque

from botformer.training.signals import StopRequest, StopRequested
from botformer.training.task import Batch, TrainBatches


class BatchesAhead:
    """At any time the batches of `late` + 1 steps, so many as begin before what a process says of one step is read by
    the others; `failure` is why there are no more."""

    def __init__(self, train: TrainBatches, step: int, last: int, late: int, request: StopRequest) -> None:
        """Fetches the batches of the first steps, from `step` on; none of `last` or later ones."""
        self.failure: Exception | None = None
        self._left = last - step
        self._request = request
        self._source = train.starting_at(step)
        self._waiting: deque[tuple[Batch, float]] = deque()
        for _ in range(late + 1):
            self.fetch()

    def fetch(self) -> None:
        """One more, unless there are none left, or a signal has asked to stop."""
        if self._left == 0 or self.failure is not None:
            return
        asked = time.monotonic()
        try:
            with self._request.interrupts():
                self._waiting.append((next(self._source), time.monotonic() - asked))
        except StopRequested:
            return
        except Exception as error:  # of the data, of a worker process, of the system
            self.failure = error
            return
        self._left -= 1

    def take(self) -> tuple[Batch, float]:
        """The next batch, and how many seconds it was waited for. Raises what kept it from being fetched."""
        if not self._waiting:
            raise self.failure or StopRequested
        return self._waiting.popleft()
