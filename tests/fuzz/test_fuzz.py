"""Malformed input of every kind for a minute, from another seed each time: a message, no trace, no code, no hang.

The long run is benchmarks/fuzz.py.
"""

import contextlib
import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from botformer.data.detection.layouts import open_detection_datasets
from botformer.errors import InputError
from tests.fuzz.watched_process import SHARES, WatchedProcess

SECONDS = 5.0
"""Per kind."""


@pytest.fixture(scope="session")
def valid(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("supervision", reason="needs the extra 'detection'")
    from tests.fuzz.valid_inputs import write_valid_inputs

    valid = tmp_path_factory.mktemp("fuzz") / "valid"
    write_valid_inputs(valid)
    return valid


@pytest.fixture(scope="session")
def watched(valid):
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


ODD_VALUES = (
    None, True, 0, -1, 10**400, 1e999, "", "x", "\ud800", "/", "\0", "a" * 300, [], [[1, 2]], [{}], {}, {"x": {"x": 1}},
)  # fmt: skip
ODD_WORDS = ("", "x", "-1", "nan", "1e999999999", "9" * 5000, "[")
TEXTS = (".txt", ".yaml", ".xml", ".data", ".names")


def test_no_value_of_an_annotation_file_is_trusted(valid, tmp_path, caplog):
    """Each in turn is replaced by each of the odd ones: chance needs long to find the pair that matters."""
    caplog.set_level(logging.CRITICAL, "botformer")  # xdist cannot send half a character
    finds = []
    for number, folder in enumerate(sorted((valid / "annotations").iterdir())):
        copy = Path(shutil.copytree(folder, tmp_path / f"{number}"))
        for file in sorted(copy.rglob("*")):
            if file.suffix in (".json", *TEXTS):
                text = file.read_text()
                for what, changed in (_json_changes if file.suffix == ".json" else _word_changes)(text):
                    file.write_text(changed)
                    try:
                        _open(copy)
                    except Exception as error:
                        finds.append(f"{folder.name}/{file.name} {what}: {error!r:.200}")
                file.write_text(text)
    assert not finds, f"{len(finds)} finds:\n" + "\n".join(finds[:10])


def _json_changes(text: str) -> Iterator[tuple[str, str]]:
    """What was changed, and the whole text."""
    for place in _places(json.loads(text)):
        for odd in ODD_VALUES:
            yield f"{place} = {odd!r:.40}", json.dumps(_replaced(json.loads(text), place, odd))


def _word_changes(text: str) -> Iterator[tuple[str, str]]:
    """As `_json_changes`, of the first words."""
    for word in islice(re.finditer(r"[^\s<>,:=\[\]{}\"']+", text), 60):
        for odd in ODD_WORDS:
            yield f"{word[0]} = {odd:.40}", text[: word.start()] + odd + text[word.end() :]


def _open(folder: Path) -> None:
    with contextlib.suppress(InputError):
        for dataset in open_detection_datasets(str(folder), keypoints=True, max_bad_records=1000):
            for number in range(min(len(dataset), 3)):
                dataset.image(number)


def _places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all values, and of lists the first."""
    yield at
    inside = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    for key, value in inside:
        yield from _places(value, (*at, key))


def _replaced(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    content[at[0]] = _replaced(content[at[0]], at[1:], value)
    return content
