"""Images that wait for a network: one thread takes what is there, up to a batch, which concurrent requests share."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

from botformer.serve.limits import Places

log = logging.getLogger("botformer.serve")

PreparedT = TypeVar("PreparedT")
ResultT = TypeVar("ResultT")
_NEWEST = 0.2
"""Weight of the last batch in the mean time per image."""


class _Job(NamedTuple, Generic[PreparedT, ResultT]):
    prepared: PreparedT
    result: "Future[ResultT]"


class ImageQueue(Generic[PreparedT, ResultT]):
    """The thread of one network.

    Args:
        name: of the thread.
        run: computes a batch: one result per image, in their order. Called by this thread alone.
        batch_size: images that `run` is given at most.
        most: `places`.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[PreparedT]], Sequence[ResultT]],
        batch_size: int,
        most: int,
        clock: Callable[[], float],
    ) -> None:
        self._run, self._batch_size, self._clock = run, batch_size, clock
        self._jobs: SimpleQueue[_Job[PreparedT, ResultT] | None] = SimpleQueue()
        self._seconds_per_image = 0.0
        self.places = Places(most, lambda: most * self._seconds_per_image / 2)
        """Taken by images from before they are read until they are answered."""
        self._thread = Thread(target=self._work, name=f"botformer-{name}", daemon=True)
        self._thread.start()

    def put(self, prepared: PreparedT) -> "Future[ResultT]":
        """Its result. What is cancelled before its turn is not computed."""
        job = _Job[PreparedT, ResultT](prepared, Future())
        self._jobs.put(job)
        return job.result

    def close(self) -> None:
        """Waits until all that was put is done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        more = True
        while more:
            batch, more = self._next_batch()
            wanted = [job for job in batch if job.result.set_running_or_notify_cancel()]
            if wanted:
                self._compute(wanted)

    def _next_batch(self) -> tuple[list[_Job[PreparedT, ResultT]], bool]:
        """And whether there may be another one."""
        job = self._jobs.get()
        batch = []
        while job is not None:
            batch.append(job)
            if len(batch) == self._batch_size:
                return batch, True
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return batch, True
        return batch, False

    def _compute(self, batch: Sequence[_Job[PreparedT, ResultT]]) -> None:
        begin = self._clock()
        try:
            results = self._run([job.prepared for job in batch])
        except Exception as error:
            if len(batch) > 1:  # which one it was is found out, and the others are not to blame
                log.warning("a batch of %d images failed (%r); they are computed one by one", len(batch), error)
                for job in batch:
                    self._compute([job])
            else:
                batch[0].result.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            job.result.set_result(result)
        last = (self._clock() - begin) / len(batch)
        before = self._seconds_per_image or last
        self._seconds_per_image = (1 - _NEWEST) * before + _NEWEST * last
