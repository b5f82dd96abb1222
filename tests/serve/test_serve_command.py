"""The command as a process: it says where it is, finishes what it began, and ends with 0."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from types import SimpleNamespace

import pytest

from botformer.commands import serve as command
from botformer.errors import InputError
from botformer.serve import run_server
from botformer.serve.run_server import bound_socket
from botformer.serve.served_network import named

from .running_server import CLASSIFIER, started


@contextmanager
def process(*arguments):
    """The command, and what it said until it took requests."""
    environment = {**os.environ, "CI": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "botformer.cli", "serve", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            said = []
            while not said or "Ctrl+C" not in said[-1]:
                said.append(running.stdout.readline())
                assert said[-1], running.stderr.read()
            yield running, "".join(said)
        finally:
            running.kill()


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content


def test_what_was_begun_is_finished_at_sigterm(cells):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process("nuclei", "--port", str(port)) as (running, said):
            assert f"port {port} is taken" in said
            address = re.search(r"the page: http://127\.0\.0\.1:(\d+)/\n", said)
            assert address is not None
            own = int(address[1])
            assert port < own <= port + 100
            assert ask(own, "GET", "/health") == (200, b'{"status":"ok"}')
            with ThreadPoolExecutor(6) as clients:
                replies = [clients.submit(ask, own, "POST", "/predict", cells) for _ in range(6)]
                while b'botformer_queue_images{network="nuclei"} 6.0' not in ask(own, "GET", "/metrics")[1]:
                    assert not any(reply.done() for reply in replies), "too fast to be caught"
                running.send_signal(signal.SIGTERM)
                assert [reply.result(60)[0] for reply in replies] == [200] * 6
            assert running.wait(30) == 0
            rest, errors = running.communicate()
            assert rest.splitlines() == ["stopping: what was begun is finished", "stopped"]
            assert "Traceback" not in errors
        with pytest.raises(ConnectionRefusedError):
            ask(own, "GET", "/health")


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    handlers, ended = {}, []
    monkeypatch.setattr(run_server.signal, "signal", lambda number, handler: handlers.update({number: handler}))
    monkeypatch.setattr(run_server.os, "_exit", ended.append)
    serving, server = SimpleNamespace(stopping=False), SimpleNamespace(should_exit=False)
    waiting = Thread(target=run_server.serve_until_signal, args=(serving, server))
    waiting.start()
    while len(handlers) < 2:
        time.sleep(0.01)
    handlers[signal.SIGINT](signal.SIGINT, None)
    assert (serving.stopping, server.should_exit, ended) == (True, True, [])
    waiting.join(10)
    assert not waiting.is_alive()
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ended == [143]


def test_a_server_that_stops_takes_nothing_more(photo):
    with started({"photos": CLASSIFIER}) as server:
        server.serving.stopping = True
        assert (server.get("/health").status, server.get("/health").json) == (503, {"status": "stopping"})
        for path in ("/predict", "/corrections"):
            reply = server.post(path, photo)
            assert (reply.status, "stopping" in reply.detail) == (503, True)


def test_it_starts_in_less_than_five_seconds():
    begin = time.monotonic()
    with started({"nuclei": "nuclei"}) as server:
        assert server.get("/health").status == 200
        assert time.monotonic() - begin < 5


def test_the_next_free_port_is_taken():
    with bound_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bound_socket("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] <= port + 100
    with pytest.raises(InputError, match="--host no.such.name.invalid is no address"):
        bound_socket("no.such.name.invalid", 0)
    with pytest.raises(InputError, match="--port 8000: cannot assign"):
        bound_socket("192.0.2.1", 8000)


def test_answers_do_not_wait_for_the_network(server):
    """Without TCP_NODELAY the second packet of an answer waits 40 ms for the first one's acknowledgement."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    took = []
    for _ in range(20):
        begin = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        took.append(time.perf_counter() - begin)
    connection.close()
    assert min(took[1:]) < 0.02


def test_an_address_of_the_newer_kind():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        at = bound_socket("::1", 0)
    except InputError as error:
        pytest.skip(str(error))
    with at:
        assert at.family == socket.AF_INET6


def test_networks_of_equal_names_get_numbers():
    assert dict(named(["runs/a/cats", "nuclei", "runs/b/cats/", "dogs.safetensors", "hf://me/birds@v2"])) == {
        "cats-1": "runs/a/cats",
        "nuclei": "nuclei",
        "cats-2": "runs/b/cats/",
        "dogs": "dogs.safetensors",
        "birds": "hf://me/birds@v2",
    }
    assert list(named(["drive-me@home.org/cats", "drive-me@home.org/dogs"])) == ["cats", "dogs"]
    assert list(named(["cats-1", "a/cats", "b/cats"])) == ["cats-1", "cats-2", "cats-3"]
    assert list(named(["a/cats", "b/cats", "cats-1"])) == ["cats-1", "cats-2", "cats-1-1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--queue", "0"], "--queue is 0; expected a number of 1 or more"),
        (["--port", "70000"], "at most 65535"),
        (["--port", "-1"], "expected a number of 0 or more"),
        (["--max-megabytes", "nan"], "--max-megabytes is nan"),
        (["--max-megabytes", "inf"], "--max-megabytes is inf; expected a number of 0.001 or more"),
        (["--seconds-per-request", "inf"], "--seconds-per-request is inf"),
        (["--seconds-per-request", "0"], "expected a number of 0.001 or more"),
        (["no_such_run"], "no_such_run does not exist"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--public-name", "http://a/"], "--public-name is a name"),
    ],
)
def test_what_is_wrong_with_the_command(arguments, words):
    with pytest.raises(InputError, match=re.escape(words)):
        command.main(arguments)


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(InputError, match=re.escape("needs uvicorn: pip install 'botformer[serve]'")):
        command.main([])


def test_the_browser_is_opened_where_somebody_sits(monkeypatch):
    for name in ("CI", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not command._has_screen()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert command._has_screen()
    monkeypatch.setenv("CI", "true")
    assert not command._has_screen()
    monkeypatch.delenv("CI")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("WAYLAND_DISPLAY")
    assert command._has_screen()
