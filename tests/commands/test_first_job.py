"""Train, evaluate, predict from the command line on images that anybody could learn."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import botformer
from botformer import cli

QUICK = [
    "--images.size=32", "--schedule.epochs=12", "--schedule.warmup-epochs=1", "--run.batch-size=10", "--run.workers=0",
    "--images.augmentation=none", "--run.evaluate-every=4", "--optimizer.learning-rate=0.002",
]  # fmt: skip


def train(data, out, *more):
    return cli.main(["train", "digits", "--data", str(data), "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("first_job") / "run"
    assert train(colours, out) == 0
    return out


def test_training_learns_and_leaves_everything_beside_the_checkpoint(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert len(evaluations) == 3
    assert evaluations[-1]["top1"] > 0.8
    assert evaluations[-1]["images"] == 9
    assert json.loads((run / "recipe.json").read_text())["schedule"]["epochs"] == 12
    assert "torch" in json.loads((run / "versions.json").read_text())
    assert Image.open(run / "curves.png").size[0] > 600


def test_evaluate_says_what_training_said(run, colours, tmp_path, capsys):
    assert cli.main(["evaluate", str(run), "--data", str(colours), "--out", str(tmp_path), "--workers", "0"]) == 0
    results = json.loads((tmp_path / "metrics.json").read_text())
    best = (run / "best").read_text().strip()
    saved = json.loads((run / "checkpoints" / best / "state.json").read_text())
    assert results["top1"] == saved["metrics"]["top1"]
    assert results["loss"] == pytest.approx(saved["metrics"]["loss"], rel=1e-5)
    assert sum(map(sum, results["confusion"])) == 9
    assert f"top1 {results['top1']:.4f}" in capsys.readouterr().out
    assert (tmp_path / "confusion.png").stat().st_size > 5000
    assert (results["task"], results["checkpoint"], results["data"]) == ("classification", str(run), str(colours))
    assert results["weights"] == str(run / "checkpoints" / best / "model.safetensors")
    assert (results["split"], results["images"], results["skipped"]) == ("validation", 9, {"images": {}})


def test_evaluate_and_predict_write_the_same_predictions(run, colours, tmp_path):
    """One in batches, the other image by image; a file that cannot be read is in neither list."""
    shutil.copytree(colours, tmp_path / "data")
    (tmp_path / "data" / "validation" / "green" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    folder = tmp_path / "data" / "validation"
    arguments = [str(run), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "evaluated"), "--workers=0"]
    assert cli.main(["evaluate", *arguments, "--batch-size=4"]) == 0
    assert cli.main(["predict", str(folder), "--checkpoint", str(run), "--out", str(tmp_path / "predicted")]) == 2
    evaluated, predicted = (
        json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("evaluated", "predicted")
    )
    assert len(evaluated) == len(predicted) == 8
    for one, other in zip(evaluated, predicted, strict=True):
        assert (folder / one["file_name"]).as_posix() == other["file_name"]
        assert one["label"] == one["file_name"].split("/")[0]
        assert [name for name, _ in one["top5"]] == [name for name, _ in other["top5"]]
        assert [p for _, p in one["top5"]] == pytest.approx([p for _, p in other["top5"]], abs=2e-6)
    metrics = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    assert metrics["top1"] == sum(one["top5"][0][0] == one["label"] for one in evaluated) / 8
    assert metrics["images"] == 8
    assert list(metrics["skipped"]["images"]) == ["green/1.png"]


@pytest.mark.parametrize("columns", ["80", "60"])
def test_a_long_file_name_stays_on_one_line_of_the_table(run, colours, tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    long = tmp_path / f"{'scan_of_' * 14}slide_7.png"
    assert len(long.name) > 120
    shutil.copy(colours / "validation" / "red" / "0.png", long)
    assert cli.main(["predict", str(long), "--checkpoint", str(run), "--out", str(tmp_path / "out")]) == 0
    rows = capsys.readouterr().out.splitlines()[1:-1]
    (row,) = (row for row in rows if "slide_7.png" in row)
    name = row.split()[0]
    assert len(name) >= 24
    assert "…" in name
    assert name.startswith(str(long)[:7])
    assert "red" in row
    assert max(map(len, rows)) <= int(columns)


def test_names_are_not_taken_for_markup(run, colours, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    odd = Path("[red]:smile: [link=a].png")
    shutil.copy(colours / "validation" / "red" / "0.png", odd)
    assert cli.main(["predict", str(odd), "--checkpoint", str(run), "--out", "[bold]:warning:[0]"]) == 0
    printed = capsys.readouterr().out
    assert str(odd) in printed
    assert "are in [bold]:warning:[0]" in printed


def test_predict_writes_the_top_classes_and_a_drawing_for_files_and_folders(run, colours, tmp_path):
    odd = tmp_path / "größe.jpg"  # another size, another format, a name outside ASCII
    Image.new("L", (70, 41), 200).save(odd)
    arguments = [
        str(colours / "validation" / "red"),
        str(odd),
        "--checkpoint",
        str(run),
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(["predict", *arguments]) == 0
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(predictions) == 4
    assert [p["top5"][0][0] for p in predictions[:3]] == ["red"] * 3
    assert all(sum(p for _, p in entry["top5"]) == pytest.approx(1, abs=1e-4) for entry in predictions)
    assert all(entry.keys() == {"file_name", "top5"} for entry in predictions)
    described = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [image["file_name"] for image in described["images"]] == [entry["file_name"] for entry in predictions]
    assert described["categories"] == [{"id": n, "name": name} for n, name in enumerate(("blue", "green", "red"))]
    assert described["unreadable"] == []
    odd_one = described["images"][3]
    assert (odd_one["id"], odd_one["file_name"], odd_one["width"], odd_one["height"]) == (4, odd.as_posix(), 70, 41)
    assert all((tmp_path / "out" / image["drawing"]).stat().st_size > 5000 for image in described["images"])


def test_predictions_never_overwrite_an_image_or_each_other(run, colours, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(colours / "validation" / "red" / "0.png", tmp_path / folder / "a.png")
    shutil.copy(colours / "validation" / "red" / "1.png", tmp_path / "x" / "a.prediction.png")
    files = [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", tmp_path / "x" / "a.prediction.png"]
    before = [file.read_bytes() for file in files]
    arguments = [*map(str, files), "--checkpoint", str(run), "--out", str(tmp_path / "x")]
    assert cli.main(["predict", *arguments]) == 0
    assert [file.read_bytes() for file in files] == before
    drawings = [image["drawing"] for image in json.loads((tmp_path / "x" / "images.json").read_text())["images"]]
    assert len(set(drawings)) == 3
    assert all((tmp_path / "x" / drawing).is_file() for drawing in drawings)


@pytest.mark.parametrize(
    "field",
    ["run.accumulation=0", "run.seed=-1", "optimizer.learning-rate=nan", "images.rand-augment-layers=-1",
     "images.rand-augment-magnitude=99", "images.mixup=-1", "optimizer.ema=2", "run.batch-size=0"],
)  # fmt: skip
def test_a_field_out_of_range_is_named(field, colours, tmp_path, capsys):
    with pytest.raises(SystemExit, match="^2$"):
        train(colours, tmp_path / "run", f"--{field}")
    assert field.split("=")[0].replace("-", "_") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
def test_an_interrupt_while_workers_start_stops_the_run_with_a_checkpoint(colours, tmp_path):
    """Ctrl-C reaches every process of the terminal; small data sets start workers all the time."""
    quick = [part for part in QUICK if "workers" not in part and "evaluate" not in part]
    command = ["train", "digits", "--data", str(colours), "--out", str(tmp_path / "run"), *quick, "--run.workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "botformer.cli", *command, "--schedule.epochs=400"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    printed = ""
    for line in process.stderr:
        printed += line
        if line.startswith("evaluation after"):  # the next epoch's workers are on their way
            os.killpg(process.pid, signal.SIGINT)
            break
    printed += process.communicate(timeout=120)[1]
    assert process.returncode == 130, printed
    assert "stopped by SIGINT" in printed
    assert (tmp_path / "run" / "last").is_file()


def test_the_checkpoint_loads_as_a_network_in_a_program(run, colours):
    model, model_config = botformer.load(run)
    assert model_config["class_names"] == ["blue", "green", "red"]
    assert not model.training
    assert model(torch.zeros(1, 3, 48, 40)).shape == (1, 3)
    folder = run / "checkpoints" / (run / "last").read_text().strip()
    same, _ = botformer.load(folder)
    assert torch.equal(same.fc.weight, load_file(folder / "model.safetensors")["fc.weight"])


def test_the_same_command_continues_a_run_and_another_recipe_is_refused(run, colours, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(colours, out, "--run.max-steps=4") == 0
    assert (out / "last").read_text() == "step-00000004\n"
    assert train(colours, out) == 0
    ours, whole = botformer.load(out).model.state_dict(), botformer.load(run).model.state_dict()
    assert all(torch.equal(ours[name], whole[name]) for name in whole)  # as if it had never stopped
    assert train(colours, out, "--optimizer.learning-rate=0.1") == 2
    assert "optimizer.learning_rate: 0.002 there, 0.1 now" in capsys.readouterr().err
    assert train(colours, out, "--resume=never") == 2


@pytest.mark.slow
def test_two_processes_are_one_run(colours, tmp_path):
    """Under torchrun, on CPUs, without a word about devices: one journal, every image evaluated once."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["train", "digits", "--data", str(colours), "--out", str(tmp_path / "run"), *QUICK, "--run.max-steps=3"]
    done = subprocess.run(
        [*launcher, "-m", "botformer.cli", *command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Everything is in") == 1
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3]
    assert [record["images"] for record in records if record["kind"] == "evaluation"] == [9]
    command = ["evaluate", str(tmp_path / "run"), "--data", str(colours), "--workers=0"]
    done = subprocess.run(
        [*launcher, "-m", "botformer.cli", *command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on 9 images") == 1


def test_a_run_s_folder_gives_first_weights_to_another(run, colours, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert train(colours, tmp_path / "run", "--model.weights", str(run), "--run.max-steps=1") == 0
    assert "tensors loaded" in caplog.text


def test_classes_that_are_not_the_checkpoint_s_are_named(run, colours, tmp_path, capsys):
    shutil.copytree(colours / "validation", tmp_path / "data")
    (tmp_path / "data" / "red").rename(tmp_path / "data" / "yellow")
    arguments = [str(run), "--data", str(tmp_path / "data"), "--split", "", "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", *arguments]) == 2
    printed = capsys.readouterr().err
    assert "1 of 3 classes that are not among the 3 of" in printed
    assert "(blue, green, red): yellow. Rename" in printed


def test_a_part_of_the_checkpoint_s_classes_in_another_spelling_is_evaluated(run, colours, tmp_path, capsys):
    shutil.copytree(colours / "validation", tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "blue")
    (tmp_path / "data" / "red").rename(tmp_path / "data" / "Red")
    arguments = [str(run), "--data", str(tmp_path / "data"), "--split", "", "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", *arguments, "--workers=0"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics["per_class"]) == ["green", "red"]
    assert [sum(row) for row in metrics["confusion"]] == [0, 3, 3]
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {(record["file_name"].split("/")[0], record["label"]) for record in records} == {
        ("Red", "red"),
        ("green", "green"),
    }
    wrong = [cell for cell in metrics["most_confused"] if cell["truth"] != cell["prediction"]]
    assert sum(cell["images"] for cell in wrong) == round(6 * (1 - metrics["top1"]))


def broken(run, tmp_path, damage):
    copy = tmp_path / "broken"
    shutil.copytree(run, copy)
    for folder in (copy / "checkpoints").iterdir():
        damage(folder)
    return copy


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "is damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "does not exist"),
        (lambda f: (f / "state.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "state.json").write_text('{"epoch": 3}'), "is not a checkpoint's state"),
    ],
)
def test_a_broken_checkpoint_is_named(run, colours, tmp_path, damage, words, capsys):
    copy = broken(run, tmp_path, damage)
    image = str(colours / "validation" / "red" / "0.png")
    assert cli.main(["predict", image, "--checkpoint", str(copy), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_a_checkpoint_with_another_number_of_classes_is_named(run, colours, tmp_path, capsys):
    def another_class(folder):
        state = json.loads((folder / "state.json").read_text())
        state["model_config"]["class_names"].append("yellow")
        del state["state_sha256"]  # as if it had been written so
        (folder / "state.json").write_text(json.dumps(state))

    copy = broken(run, tmp_path, another_class)
    image = str(colours / "validation" / "red" / "0.png")
    assert cli.main(["predict", image, "--checkpoint", str(copy), "--out", str(tmp_path / "out")]) == 2
    assert "does not fit botnet_nano with 4 classes" in capsys.readouterr().err


def test_an_unreadable_image_is_named_and_the_others_are_predicted(run, colours, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    good = colours / "validation" / "blue" / "0.png"
    arguments = [str(tmp_path / "broken.jpg"), str(good), "--checkpoint", str(run), "--out", str(tmp_path / "out")]
    assert cli.main(["predict", *arguments]) == 2
    assert "1 of 2 images could not be read" in capsys.readouterr().err
    (predicted,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert predicted["file_name"] == good.as_posix()
    described = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [image["file_name"] for image in described["images"]] == [good.as_posix()]
    (unreadable,) = described["unreadable"]
    assert unreadable["file_name"].endswith("broken.jpg")
    assert unreadable["reason"]


def test_bad_files_in_training_are_skipped_listed_and_limited(colours, tmp_path, caplog, capsys):
    shutil.copytree(colours, tmp_path / "data")
    for number in range(3):
        (tmp_path / "data" / "train" / "red" / f"bad{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with caplog.at_level("WARNING"):
        assert train(tmp_path / "data", tmp_path / "run", "--schedule.epochs=4") == 0
    assert sum("skipped" in record.getMessage() for record in caplog.records) == 3
    assert train(tmp_path / "data", tmp_path / "other", "--images.max-bad-files=1") == 2
    printed = capsys.readouterr().err
    assert "1 are tolerated (images.max_bad_files)" in printed
    assert "bad" in printed


@pytest.mark.parametrize("recipe", ["cifar10_mini"])
def test_cifar_trains_evaluates_and_predicts(recipe, real_data, tmp_path):
    """A few real images of every class, unpacked as the whole archive would be."""
    import zipfile

    archive = real_data / "cifar10_jpeg.zip"
    if not archive.is_file():
        pytest.skip(f"needs {archive}")
    with zipfile.ZipFile(archive) as zipped:
        wanted = [n for n in zipped.namelist() if n.endswith(".jpg") and int(Path(n).stem) % 250 == 0]
        zipped.extractall(tmp_path / "data", wanted)
    out = tmp_path / "run"
    quick = ["--schedule.epochs=2", "--run.batch-size=50", "--run.workers=0"]
    assert cli.main(["train", recipe, "--data", str(tmp_path / "data"), "--out", str(out), *quick]) == 0
    assert cli.main(["evaluate", str(out), "--data", str(tmp_path / "data"), "--workers=0"]) == 0
    assert json.loads((out / "evaluation" / "metrics.json").read_text())["images"] == 40
    image = next((tmp_path / "data" / "test" / "frog").iterdir())
    assert cli.main(["predict", str(image), "--checkpoint", str(out)]) == 0
