import json
import subprocess
import sys
import textwrap

import pytest

from botformer.data.synthetic.cached_dataset import cached_dataset
from botformer.errors import InputError


def fill(folder):
    (folder / "train").mkdir()
    for name in ("1.png", "2.png"):
        (folder / "train" / name).touch()
    return {"about": "größer"}


def write(folder, how=fill, **parameters):
    return cached_dataset(folder, "test_cards", {"size": 4} | parameters, {"train": 2}, how)


def never(folder):
    raise AssertionError(f"{folder} was to be used as it is")


def test_the_record_has_the_parameters_and_what_the_filler_adds(tmp_path):
    assert write(tmp_path / "cards")
    assert json.loads((tmp_path / "cards" / "test_cards.json").read_text(encoding="utf-8")) == {
        "parameters": {"size": 4},
        "about": "größer",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["cards"]


def test_a_finished_folder_is_used_as_it_is(tmp_path):
    write(tmp_path / "cards")
    assert not write(tmp_path / "cards", never)


def test_other_parameters_a_lost_image_and_a_strange_folder_are_refused(tmp_path):
    write(tmp_path / "cards")
    with pytest.raises(InputError, match=r"holds test cards made with .*4.*asked for were .*5"):
        write(tmp_path / "cards", never, size=5)
    (tmp_path / "cards" / "train" / "1.png").unlink()
    with pytest.raises(InputError, match="holds 1 images, 2 were written"):
        write(tmp_path / "cards", never)
    with pytest.raises(InputError, match=r"not a finished folder of test cards \(test_cards.json\)"):
        write(tmp_path, never)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a finished folder"):
        write(tmp_path / "file", never)


def test_an_error_in_the_middle_leaves_nothing(tmp_path):
    def break_off(folder):
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cards", break_off)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_not_taken_for_finished(tmp_path):
    script = """
        import os, pathlib, signal, sys
        from botformer.data.synthetic.cached_dataset import cached_dataset

        def fill(folder):
            (folder / "train").mkdir()
            os.kill(os.getpid(), signal.SIGKILL)

        cached_dataset(pathlib.Path(sys.argv[1]), "test_cards", {"size": 4}, {"train": 2}, fill)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path / "cards"], check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "cards").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".cards.")
    assert write(tmp_path / "cards")
    assert sorted(path.name for path in (tmp_path / "cards" / "train").iterdir()) == ["1.png", "2.png"]
    assert {path.name for path in tmp_path.iterdir()} == {left.name, "cards"}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "cards").mkdir()
    assert write(tmp_path / "cards")
    assert (tmp_path / "cards" / "test_cards.json").is_file()
