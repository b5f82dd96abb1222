"""What a request may cost: bytes, pixels, places, seconds."""

import io
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from botformer.serve.limits import Limits

from .conftest import png
from .running_server import CLASSIFIER, Gate, started

LIMITS = Limits(queue=4, megabytes=0.05, megapixels=0.01, seconds=20)


@pytest.fixture
def small():
    with started({"photos": CLASSIFIER}, LIMITS, batch_size=2) as server:
        yield server


def samples(server):
    """(name, labels) -> value, as Prometheus reads them."""
    text = server.get("/metrics").body.decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_too_many_bytes_by_what_the_request_says(small):
    reply = small.post("/predict", b"x" * 50_001)
    assert (reply.status, "0.05 MB" in reply.detail) == (413, True)
    assert small.serving.bodies.bytes == 0


def test_too_many_bytes_of_a_request_that_does_not_say(small):
    """In chunks, without Content-Length; far more than the server reads on to be polite."""
    sent = 0

    def pieces(most):
        nonlocal sent
        for sent in range(most):  # noqa: B007
            yield b"x" * 10_000

    try:
        assert small.post("/predict", pieces(10_000)).status == 413
    except ConnectionError:  # it is cut while more is being sent
        assert sent < 5000
    reply = small.post("/predict", pieces(8))
    assert (reply.status, "--max-megabytes" in reply.detail) == (413, True)
    assert small.serving.bodies.bytes == 0


def test_too_many_bytes_in_a_form(small):
    assert small.post_form("/predict", [("image", "a.png", b"x" * 50_001)]).status == 413
    assert small.post_form("/predict", [("image", "a.png", b"x" * 500_001)]).status == 413


def bomb(side):
    """A PNG of some kilobytes that says it has side * side pixels; to decode it would take its square of bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side + 1) * min(side, 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_too_many_pixels_are_not_decoded(small):
    begin = time.monotonic()
    reply = small.post("/predict", bomb(20_000))
    assert reply.status == 413
    assert "20000x20000 pixels are more than 0.01 megapixels" in reply.detail
    assert time.monotonic() - begin < 5
    assert small.post("/predict", bomb(100)).status == 200


def test_requests_that_come_together_share_batches(small, photo):
    gate = Gate(small.serving.networks["photos"])
    with ThreadPoolExecutor(4) as clients:
        replies = [clients.submit(small.post, "/predict", photo) for _ in range(1)]
        gate.came.acquire()
        replies += [clients.submit(small.post, "/predict", photo) for _ in range(3)]
        wait_until(lambda: small.serving.networks["photos"].queue.places.taken == 4)
        time.sleep(0.2)  # they are decoded
        gate.open()
        assert {reply.result().status for reply in replies} == {200}
    assert gate.batches == [1, 2, 1]
    found = samples(small)
    network = ("network", "photos")
    assert found["botformer_batch_images_count", network] == 3
    assert found["botformer_batch_images_sum", network] == 4
    assert found["botformer_batch_images_bucket", ("le", "1.0"), network] == 2
    assert found["botformer_queue_images", network] == 0
    assert found["botformer_requests_total", ("route", "/predict"), ("status", "200")] == 4
    assert found["botformer_request_seconds_count", ("route", "/predict")] == 4


def test_a_full_queue_says_when_to_come_again(small, photo):
    gate = Gate(small.serving.networks["photos"])
    with ThreadPoolExecutor(4) as clients:
        replies = [clients.submit(small.post, "/predict", photo) for _ in range(4)]
        wait_until(lambda: small.serving.networks["photos"].queue.places.taken == 4)
        assert samples(small)["botformer_queue_images", ("network", "photos")] == 4
        refused = small.post("/predict", photo)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "--queue" in refused.detail
        # Also who is still sending hears it.
        refused = small.post("/predict", io.BytesIO(b"x" * 49_000), {"Content-Length": "49000"})
        assert refused.status == 429
        gate.open()
        assert {reply.result().status for reply in replies} == {200}
    assert small.post("/predict", photo).status == 200


def test_what_waited_too_long_is_not_computed(photo):
    with started({"photos": CLASSIFIER}, Limits(seconds=0.5), batch_size=8) as server:
        gate = Gate(server.serving.networks["photos"])
        with ThreadPoolExecutor(4) as clients:
            first = clients.submit(server.post, "/predict", photo)
            gate.came.acquire()
            replies = [first, *(clients.submit(server.post, "/predict", photo) for _ in range(3))]
            for reply in replies:
                assert reply.result().status == 504
                assert "--seconds-per-request" in reply.result().detail
        assert server.serving.networks["photos"].queue.places.taken == 0
        gate.open()
        assert server.post("/predict", photo).status == 200
        assert gate.batches == [1, 1]  # the first, which had begun, and the last


def test_a_body_that_does_not_come_is_not_waited_for():
    with started({"photos": CLASSIFIER}, Limits(seconds=0.3)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            assert slow.recv(100).startswith(b"HTTP/1.1 504")
        wait_until(lambda: not server.serving.networks["photos"].queue.places.taken)


def test_an_image_that_fails_costs_no_other(small, photo):
    """A network that cannot compute a batch is asked for its images one by one."""
    network = small.serving.networks["photos"].predictor.network
    run, broken = network.run, threading.Event()

    def fails_at_two(batch, *more):
        if len(batch) > 1 or not broken.is_set():
            broken.set()
            raise RuntimeError("/home/somebody/secret.py is broken")
        return run(batch, *more)

    network.run = fails_at_two
    reply = small.post("/predict", photo)
    assert reply.status == 500
    assert "secret" not in reply.detail
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert small.post("/predict", photo).status == 200


def test_hundreds_of_images_leave_nothing_but_what_is_kept(small):
    """The caches stay below their limits, whatever comes."""
    images = small.serving.images
    images._most = 5000
    small.serving.seen._most = 5000
    for number in range(30):
        assert small.post("/predict", png(np.full((20, 20, 3), number, np.uint8))).status == 200
    assert 0 < images.bytes <= 5000
    assert 0 < small.serving.seen.bytes <= 5000
    assert samples(small)["botformer_kept_bytes", ("what", "layers")] == small.serving.seen.bytes
