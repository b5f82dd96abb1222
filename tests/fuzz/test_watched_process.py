"""The fuzzer finds what is planted."""

import pytest

from tests.fuzz.watched_process import WatchedProcess


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    (folder / "kept").write_text("kept")
    with WatchedProcess(folder, "tests.fuzz.planted") as process:
        process.run("accepted", 0)  # imports take their time
        yield process
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("kept", "kept")]


@pytest.mark.parametrize(
    ("kind", "ended"),
    [("accepted", "accepted"), ("refused", "refused"), ("bad input", "exit 2"), ("outside", "accepted")],
)
def test_good_ends_are_no_finds(watched, kind, ended):
    outcome = watched.run(kind, 1)
    assert (outcome.ended, outcome.find) == (ended, "")


@pytest.mark.parametrize(
    ("kind", "ended", "words"),
    [
        ("exit status", "exit 3", "exit status 3"),
        ("left", "trace", "SystemExit"),
        ("exception", "trace", "KeyError: 'key'"),
        ("printed", "trace", "KeyError: 'key'"),
        ("executed", "code", "pickle.find_class ('io', 'open')"),
        ("command", "code", "os.system"),
        ("connected", "code", "socket.connect"),
        ("large", "memory", "MiB"),
        ("killed", "crash", "-9"),
    ],
)
def test_a_fault_is_found(watched, kind, ended, words):
    outcome = watched.run(kind, 1)
    assert outcome.ended == ended
    assert words in outcome.find


def test_a_wait_without_an_end_is_found(watched):
    watched.longest_s = 1.0
    outcome = watched.run("pipe", 1)
    watched.longest_s = 20.0
    assert outcome.ended == "hang"
    assert "read_bytes" in outcome.find  # where


def test_a_case_is_the_same_again(tmp_path):
    from tests.fuzz.mutations import Random, damage_folder

    def damaged(name: str, seed: int) -> dict[str, bytes]:
        root = tmp_path / name
        root.mkdir()
        for number in range(5):
            (root / f"{number}.json").write_text('{"a": [1, 2, {"b": "c"}]}')
        damage_folder(Random(seed), root, faults=3)
        return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}

    assert damaged("one", 7) == damaged("again", 7) != damaged("other", 8)
