"""Faults that the watching process has to find."""

import os
import pickle
import shutil
import socket
import sys
import traceback
from pathlib import Path

from botformer.errors import InputError
from tests.fuzz.valid_inputs import Malicious


def refused(rng, valid):
    raise InputError("this is no image; expected one")


def exception(rng, valid):
    return {}["key"]


def printed(rng, valid):
    try:
        exception(rng, valid)
    except KeyError:
        traceback.print_exc()


def executed(rng, valid):
    pickle.loads(pickle.dumps(Malicious()))


def command(rng, valid):
    os.system("true")


def connected(rng, valid):
    with socket.socket() as connection:
        connection.connect_ex(("127.0.0.1", 9))


def large(rng, valid):
    bytearray(b"1") * (5 * 2**29)


def pipe(rng, valid):
    os.mkfifo("pipe")
    Path("pipe").read_bytes()


def killed(rng, valid):
    os.kill(os.getpid(), 9)


def outside(rng, valid):
    for way in (
        lambda: (valid / "new").write_text("x"),
        lambda: (valid / "new").mkdir(),
        lambda: Path("here").symlink_to(valid / "there") or Path("here").write_text("x"),
        lambda: (valid / "kept").unlink(),
        lambda: Path("mine").write_text("x") and Path("mine").rename(valid / "kept"),
        lambda: shutil.rmtree(valid),
        lambda: os.close(os.open(valid / "new", os.O_CREAT | os.O_WRONLY)),
    ):
        try:
            way()
        except PermissionError:
            continue
        raise AssertionError("it was written")


KINDS = {
    "outside": outside,
    "accepted": lambda rng, valid: None,
    "refused": refused,
    "bad input": lambda rng, valid: 2,
    "exit status": lambda rng, valid: 3,
    "left": lambda rng, valid: sys.exit(1),
    "exception": exception,
    "printed": printed,
    "executed": executed,
    "command": command,
    "connected": connected,
    "large": large,
    "pipe": pipe,
    "killed": killed,
}
