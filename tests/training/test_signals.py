import os
import signal
import threading
import time

import pytest

from botformer.stop_signals import STOP_SIGNALS
from botformer.training import signals
from botformer.training.signals import Interrupted, StopRequested, stop_request


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_first_signal_asks_and_leaving_restores_the_handlers(number: signal.Signals) -> None:
    earlier = signal.signal(number, signal.SIG_DFL)  # under nohup and in the background some are ignored
    try:
        with stop_request() as request:
            assert request.signal == 0
            os.kill(os.getpid(), number)
            assert request.signal == number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, earlier)


def test_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST_S", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would have it ignored
    try:
        with stop_request():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_the_same_request_that_comes_twice_is_one(second: signal.Signals) -> None:
    """To a group of processes, and from torchrun, which is one of them."""
    with stop_request() as request:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)
        assert request.signal == signal.SIGTERM


def test_waiting_ends_at_once_and_does_not_begin_after_the_signal() -> None:
    with stop_request() as request:
        with request.interrupts():
            pass
        with pytest.raises(StopRequested), request.interrupts():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested), request.interrupts():
            pytest.fail("began although it was asked to stop")


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_forked_data_worker_outlives_ctrl_c_but_can_be_ended() -> None:
    with stop_request() as request:
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.write(ready[1], b"r")
            time.sleep(0.5)
            os.write(done[1], b"d")
            time.sleep(60)
            os._exit(1)
        os.read(ready[0], 1)
        os.kill(child, signal.SIGINT)
        assert os.read(done[0], 1) == b"d"
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert request.signal == 0


def test_other_threads_train_without_handlers() -> None:
    seen = []

    def inside() -> None:
        with stop_request() as request:
            seen.append(request.signal)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [0]


def test_interrupted_is_an_exit_with_the_shells_status() -> None:
    assert Interrupted(128 + signal.SIGINT).code == 130
