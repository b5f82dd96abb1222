"""The old content or the new, whatever happens in between."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from botformer.atomic_write import atomic_file, atomic_folder, remove_leftovers, write_json, write_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.txt"
    path.write_text("old")
    return path


def test_content_is_replaced_and_nothing_else_is_left(file: Path) -> None:
    write_text(file, "größer")
    assert file.read_text(encoding="utf-8") == "größer"
    write_json(file, {"名": [1, None]})
    assert json.loads(file.read_text(encoding="utf-8")) == {"名": [1, None]}
    assert "名" in file.read_text(encoding="utf-8")
    write_json(file, [1, 2], indent=None)
    assert file.read_text() == "[1, 2]\n"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_any_error_while_writing_keeps_the_old_content(file: Path, error: type[BaseException]) -> None:
    def write_half() -> None:
        with atomic_file(file) as unfinished:
            unfinished.write_text("half")
            assert file.read_text() == "old"
            raise error

    with pytest.raises(error):
        write_half()
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_any_error_after_writing_keeps_the_old_content(file: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(*((os, step) if step == "fsync" else (Path, step)), fail)
    with pytest.raises(OSError, match="No space"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_content_is_on_the_disk_before_it_takes_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events, fsync, replace = [], os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        events.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_text(file, "new")
    assert events == ["file", "replace", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "file") as unfinished:
            unfinished.unlink()  # some writers put a private file of their own in its place
            unfinished.touch(mode=0o600)
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_link_stays_a_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_text(tmp_path / ("名" * 85), "new")
    assert (tmp_path / ("名" * 85)).read_text() == "new"


def test_writers_of_one_file_do_not_disturb_each_other(file: Path) -> None:
    texts = [str(number) * 100_000 for number in range(4)]
    threads = [threading.Thread(target=lambda t=text: [write_text(file, t) for _ in range(5)]) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert file.read_text() in ["old", *texts]
    assert file.read_text() in texts
    assert list(file.parent.iterdir()) == [file]


def test_folder_appears_with_everything_in_it(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "folder") as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "file").write_text("text")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_of_many_files_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(os, "sync", lambda: calls.append(1))
    with atomic_folder(tmp_path / "folder") as unfinished:
        for number in range(101):
            (unfinished / f"{number}").touch()
    assert calls == [1]


def test_folder_that_is_taken_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "folder") as unfinished:
        (unfinished / "new").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_leftovers_of_a_killed_process_block_nobody_and_can_be_removed(file: Path) -> None:
    script = """if True:
        import os, pathlib, signal, sys
        from botformer.atomic_write import atomic_file, atomic_folder
        with atomic_file(pathlib.Path(sys.argv[1])), atomic_folder(pathlib.Path(sys.argv[1] + "s")) as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.read_text() == "old"
    assert len(list(file.parent.iterdir())) == 3
    write_text(file, "new")
    (file.parent / ".mine.partial").touch()
    remove_leftovers(file.parent)
    assert sorted(path.name for path in file.parent.iterdir()) == [".mine.partial", "file.txt"]


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_or_a_device_is_not_replaced(tmp_path, link):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if link else pipe
    if link:
        path.symlink_to(pipe)
    with pytest.raises(OSError, match=r"is a pipe, a socket or a device, which no file may replace.*pipe"):
        write_text(path, "text")
    assert pipe.is_fifo()
    assert {each.name for each in tmp_path.iterdir()} <= {"pipe", "link"}
