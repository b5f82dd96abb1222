"""Malformed input of every kind for a minute, from another seed each time: a message, no trace, no code, no hang.

The long run is benchmarks/fuzz.py.
"""

import secrets
import time

import pytest

from tests.fuzz.watched_process import SHARES, WatchedProcess

SECONDS = 5.0
"""Per kind."""


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("supervision", reason="needs the extra 'detection'")
    from tests.fuzz.valid_inputs import write_valid_inputs

    valid = tmp_path_factory.mktemp("fuzz") / "valid"
    write_valid_inputs(valid)
    with WatchedProcess(valid) as process:
        for kind in SHARES:  # what is imported on first use takes its time
            process.run(kind, 0)
        yield process


@pytest.mark.parametrize("kind", SHARES)
def test_malformed_input_gets_a_message(watched, kind):
    first = secrets.randbelow(2**31)
    finds, cases, end = [], 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        outcome = watched.run(kind, first + cases)
        cases += 1
        if outcome.find:
            finds.append(
                f"python benchmarks/fuzz.py --kind {kind} --seed {outcome.seed}: {outcome.ended}\n{outcome.find}"
            )
    assert not finds, f"{len(finds)} finds in {cases} cases:\n" + "\n".join(finds[:5])
