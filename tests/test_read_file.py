"""What anybody may put where a file is expected."""

import json
import os
from pathlib import Path

import pytest

from botformer.errors import InputError
from botformer.read_file import demand_file, open_file, parse_json, read_json, read_text, understood


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.timeout(10)  # reading a pipe waits for ever
def test_a_pipe_is_refused_at_once(tmp_path):
    path = pipe(tmp_path / "pipe.json")
    for read in (open_file, demand_file, read_text, read_json):
        with pytest.raises(OSError, match=r"is a pipe, a socket or a device, not a file.*pipe\.json"):
            read(path)


def test_so_are_a_device_without_an_end_and_a_folder(tmp_path):
    with pytest.raises(OSError, match="a device, not a file"):
        open_file("/dev/zero")
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="a device, not a file"):
        open_file(tmp_path / "link")
    with pytest.raises(IsADirectoryError, match="is a folder, not a file"):
        open_file(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle"):
        open_file(tmp_path / "circle")


def test_text_has_the_line_ends_of_unix(tmp_path):
    (tmp_path / "a.txt").write_bytes("ä\r\nb\rc\n".encode())
    assert read_text(tmp_path / "a.txt") == "ä\nb\nc\n"
    with pytest.raises(ValueError, match="ascii"):
        read_text(tmp_path / "a.txt", "ascii")


@pytest.mark.parametrize("depth", [98, 99, 500, 100_000])
@pytest.mark.parametrize("level", ["[]", '{"a":}'])
def test_json_is_read_up_to_a_hundred_levels(depth, level):
    text = level[:-1] * depth + "1" + level[-1] * depth
    if depth < 100:
        assert parse_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError, match="nested"):
            parse_json(text)


@pytest.mark.parametrize("content", [{"size": "8"}, {"size": None}, {"size": []}, {}, [], None, {"size": 0}])
def test_content_of_another_shape_is_bad_input(content):
    with (
        pytest.raises(InputError, match=r"plan\.json holds something else .*; plan again"),
        understood("plan.json", "plan again"),
    ):
        100 / content["size"]


def test_our_own_bugs_and_messages_stay_what_they_are():
    with pytest.raises(AssertionError), understood("plan.json", "plan again"):
        raise AssertionError
    with pytest.raises(InputError, match=r"^as it was$"), understood("plan.json", "plan again"):
        raise InputError("as it was")
