import threading
import time

import pytest

from botformer.serve.bounded_cache import BoundedCache
from botformer.serve.image_queue import ImageQueue
from botformer.serve.limits import Places
from botformer.serve.refusal import Refusal


def queue_of(run, batch_size=4):
    return ImageQueue("test", run, batch_size, 8, time.monotonic)


def test_what_waits_is_computed_together_up_to_a_batch():
    batches, opened = [], threading.Event()

    def run(batch):
        assert opened.wait(20)
        batches.append(list(batch))
        return [10 * image for image in batch]

    queue = queue_of(run)
    futures = [queue.put(0)]
    while not futures[0].running():
        time.sleep(0.001)
    futures += [queue.put(number) for number in range(1, 7)]
    opened.set()
    assert [future.result(20) for future in futures] == [0, 10, 20, 30, 40, 50, 60]
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]
    queue.close()


def test_close_waits_for_what_was_put():
    queue = queue_of(lambda batch: time.sleep(0.05) or list(batch), batch_size=1)
    futures = [queue.put(number) for number in range(4)]
    queue.close()
    assert [future.done() for future in futures] == [True] * 4


def test_one_that_fails_costs_no_other():
    def run(batch):
        if "bad" in batch:
            raise ValueError("bad")
        return [word.upper() for word in batch]

    started = threading.Event()
    queue = queue_of(lambda batch: (started.wait(20), run(batch))[1])
    futures = [queue.put(word) for word in ("a", "b", "bad", "c")]
    started.set()
    assert [futures[place].result(20) for place in (0, 1, 3)] == ["A", "B", "C"]
    with pytest.raises(ValueError, match="bad"):
        futures[2].result(20)
    queue.close()


def test_places():
    places = Places(2, lambda: 3.4)
    with places.one():
        with places.one(), pytest.raises(Refusal) as refusal, places.one():
            pass
        assert (refusal.value.status, refusal.value.headers) == (429, {"Retry-After": "3"})
        assert places.taken == 1
    assert places.taken == 0


def test_the_least_recently_used_make_room():
    cache = BoundedCache[str](10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.bytes) == ("A", None, "C", 8)
    cache.put("a", "larger", 6)
    assert (cache.get("a"), cache.bytes, len(cache)) == ("larger", 10, 2)
    cache.put("a", "too large", 11)
    assert (cache.get("a"), cache.get("c"), cache.bytes) == (None, "C", 4)
