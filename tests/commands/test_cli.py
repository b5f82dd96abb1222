import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from botformer import cli
from botformer.backbone.variants import ROWS
from botformer.commands.results_folder import results_folder
from botformer.recipes import EXPERIMENTS


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, botformer; print([m for m in ('torch', 'numpy', 'timm', 'rich', 'tyro') if m in sys.modules])"
    assert python(code) == "[]\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], ["train", "--help"], ["train", "digits", "--help"]]
)
def test_help_and_tables_come_without_waiting_for_torch(arguments):
    call = f"from botformer import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass\n"
    code = f"import sys\n{call}print('torch' in sys.modules)"
    assert python(code).endswith("False\n")


def test_every_public_name_resolves():
    named = "set(b.__all__) ^ {*b._EXPORTS, *b._SUBMODULES}"
    code = f"import botformer as b; print([n for n in b.__all__ if not hasattr(b, n)], {named})"
    assert python(code) == "[] set()\n"


def test_a_tilde_that_no_shell_has_read_is_a_home_directory(tmp_path, monkeypatch, capsys):
    """As in --out=~/runs, or where a container starts the command."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    given = {}
    monkeypatch.setattr("botformer.commands.models.main", lambda arguments: given.update(arguments=arguments))
    assert (
        cli.main(["models", "~/a", "--out=~/b c", "--model.weights=~/d", "--name", "~", "--x=a~", "~no-such-user/e"])
        == 0
    )
    home = tmp_path / "home"
    assert given["arguments"] == [
        f"{home}/a", f"--out={home}/b c", f"--model.weights={home}/d", "--name", str(home), "--x=a~", "~no-such-user/e",
    ]  # fmt: skip
    (tmp_path / "~").mkdir()  # somebody has one
    assert cli.main(["models", "--out=~/b"]) == 0
    assert given["arguments"] == [f"--out={home}/b"]


def test_results_of_one_checkpoint_are_not_in_its_folder(tmp_path, monkeypatch):
    """The run removes it when it is old."""
    step = tmp_path / "run" / "checkpoints" / "step-00000030"
    step.mkdir(parents=True)
    (step / "model.safetensors").touch()
    results = tmp_path / "run" / "evaluation" / "step-00000030"
    assert results_folder(step, "evaluation") == results
    assert results_folder(tmp_path / "run", "predictions") == tmp_path / "run" / "predictions"
    assert results_folder(step / "model.safetensors", "exported") == Path("runs/exported/step-00000030-model")
    assert results_folder(Path("nuclei"), "exported") == Path("runs/exported/nuclei")
    monkeypatch.chdir(step)
    assert results_folder(Path(), "evaluation") == results


def test_help_names_every_command(capsys):
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["train", "digit"], "unknown recipe 'digit'; did you mean digits or digit_scenes?"),
        (["train", "digits", "--data", "nowhere"], "data folder nowhere does not exist; expected one of"),
        (
            ["evaluate", "nowhere", "--data", "x"],
            "nowhere does not exist; expected the --out folder of a training run",
        ),
        (["predict", "a.jpg", "--checkpoint", "nowhere"], "a.jpg does not exist; expected an image"),
        (["models", "--image-size", "-3"], "--image-size must be positive"),
    ],
)
def test_bad_input_gets_a_message_and_status_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_field_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "digits", "--data", "x", "--optimzer.learning-rate", "3"])
    assert stop.value.code == 2
    assert "--optimizer.learning-rate" in capsys.readouterr().err


def test_train_without_a_recipe_lists_them(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPERIMENTS)


@pytest.mark.parametrize("size", [[], ["--image-size", "224"]])
def test_models_prints_every_row_with_the_paper_s_numbers_in_their_own_column(size, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["models", *size]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0].rstrip("*"): line.split() for line in printed.splitlines() if line.split()[:1]}
    assert set(ROWS) <= set(lines)
    if not size:
        assert lines["botnet50"] == ["botnet50", "1024", "20,903,208", "20.8e6", "102.989e9", "102.98e9"]
    else:
        assert lines["botnet50"] == ["botnet50", "224", "20,852,008", "4.023e9"]


def test_an_interrupt_outside_training_ends_with_a_word_and_no_trace(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("botformer.commands.models.main", interrupted)
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "botformer models: interrupted\n"


@pytest.mark.parametrize("number", [*cli._WAYS_OUT, errno.EIO])
def test_an_error_of_the_system_names_the_file_and_says_what_to_do(number, capsys, monkeypatch):
    def fails(_):
        raise OSError(number, os.strerror(number), "there/file")

    monkeypatch.setattr("botformer.commands.models.main", fails)
    assert cli.main(["models"]) == 2
    printed = capsys.readouterr().err
    assert "there/file" in printed
    assert os.strerror(number).lower() in printed.lower()
    assert cli._WAYS_OUT.get(number, "") in printed


def test_a_file_in_place_of_the_folder_to_write_to_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["export", "nuclei", "--format", "onnx", "--out", str(tmp_path / "file" / "exported")]) == 2
    assert f"{tmp_path / 'file'}" in (printed := capsys.readouterr().err)
    assert "is a file" in printed or "choose another folder" in printed


def test_help_of_a_recipe_says_what_is_ours(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "imagenet_botnet_t5_350", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Ours, because no source gives it" in printed
    assert "model.drop_path" in printed
