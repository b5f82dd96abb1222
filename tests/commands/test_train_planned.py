"""A folder of images and some minutes -> a trained network, by one command."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from botformer import cli
from botformer.commands import train_planned
from botformer.commands.train_planned import given_fields, parse
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.errors import InputError
from botformer.planning import plan
from botformer.planning.look_at_data import Found
from botformer.recipes.schema import Run
from botformer.training.checkpoint import checkpoint_folder

RANDOM = ["--model.weights", ""]
SMALL = [*RANDOM, "--model.name=botnet_nano", "--images.size=32", "--run.workers=0"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(verb, data, *more):
    return cli.main(["train", verb, "--data", str(data), *more])


def read(out, name="plan.json"):
    return json.loads((out / name).read_text(encoding="utf-8"))


def evaluations(out):
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "evaluation"]


def test_a_few_seconds_give_a_network_and_say_how(colours, tmp_path, capsys):
    out, begin = tmp_path / "run", time.monotonic()
    assert train("classify", colours, "--minutes", "0.3", "--out", str(out), *RANDOM) == 0
    taken = time.monotonic() - begin
    said = " ".join(capsys.readouterr().err.split())
    assert "30 images of 3 classes to train on, 9 to validate on" in said
    assert "botnet_nano" in said
    assert "--images.no-hflip" in said
    saved = read(out)
    recipe = read(out, "recipe.json")
    assert saved["minutes"] == 0.3
    assert recipe == saved["recipe"]
    assert recipe["run"]["precision"] in ("float32", "bf16")
    assert recipe["run"]["threads"] >= 1
    (chosen,) = [row for row in saved["candidates"] if row["chosen"]]
    assert chosen["images_per_s"] > 0
    last = evaluations(out)[-1]
    assert last["step"] == recipe["schedule"]["steps"]
    # Of 18 s half goes into imports, timing and workers; and the machine may be busy with other tests.
    assert taken < 120


def test_a_planned_run_that_was_stopped_ends_with_the_same_bits_and_is_not_planned_again(
    colours, tmp_path, monkeypatch
):
    fixed = [*SMALL, "--schedule.steps=6", "--run.evaluate-every=1"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train("classify", colours, "--minutes=0.3", "--out", str(whole), *fixed) == 0
    assert train("classify", colours, "--minutes=0.3", "--out", str(halves), *fixed, "--run.max-steps=3") == 0
    # From here on the plan of the run counts, whatever is fast today.
    monkeypatch.setattr(plan, "search", None)
    if read(whole)["recipe"]["run"] | {"max_steps": 3} != read(halves)["recipe"]["run"]:
        pytest.skip("the two runs were timed differently")
    assert train("classify", colours, "--minutes=0.3", "--out", str(halves), "--run.max-steps=0") == 0
    assert checkpoint_folder(halves).name == "step-00000006"
    for name in ("model", "optimizer"):
        expected = load_file(checkpoint_folder(whole) / f"{name}.safetensors")
        got = load_file(checkpoint_folder(halves) / f"{name}.safetensors")
        assert expected.keys() == got.keys()
        assert all(torch.equal(tensor, got[key]) for key, tensor in expected.items())


def test_a_run_that_is_there_keeps_its_plan(colours, tmp_path, capsys):
    out = str(tmp_path / "run")
    fixed = [*SMALL, "--schedule.steps=2"]
    assert train("classify", colours, "--minutes=0.3", "--out", out, *fixed) == 0
    assert train("classify", colours, "--out", out) == 0
    assert "as it was planned" in capsys.readouterr().err
    assert train("classify", colours, "--minutes=7", "--out", out) == 2
    assert "planned for 0.3 minutes" in capsys.readouterr().err
    assert train("classify", colours, "--out", out, "--images.size=64") == 2
    assert "images.size: 32 there, 64 now" in capsys.readouterr().err
    assert train("classify", colours, "--out", out, "--resume=never") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_planned_run_can_be_extended_in_epochs_and_goes_on_as_long_as_it_is(colours, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("classify", colours, "--minutes=0.3", "--out", str(out), *SMALL, "--schedule.steps=2") == 0
    per_epoch = 30 // read(out)["recipe"]["run"]["batch_size"]
    extended = [str(out), "--extend", "--schedule.epochs=3"]
    assert train("classify", colours, "--out", *extended, "--run.max-steps=3") == 0
    assert train("classify", colours, "--out", str(out), "--run.max-steps=0") == 0  # goes on, of its new length
    assert evaluations(out)[-1]["step"] == 3 * per_epoch > 3
    assert read(out, "recipe.json")["schedule"] | {"epochs": 3, "steps": 0} == read(out, "recipe.json")["schedule"]


def test_several_processes_are_refused_also_where_a_plan_is(colours, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "run").mkdir()
    for name in ("recipe.json", "plan.json"):
        (tmp_path / "run" / name).write_text("{}")
    assert train("classify", colours, "--out", str(tmp_path / "run")) == 2
    assert "in one process, and torchrun started several" in capsys.readouterr().err


def test_what_is_set_on_the_command_line_is_known_with_its_value():
    arguments = [
        "--data",
        "x",
        "--images.no-hflip",
        "--optimizer.learning-rate=1e-4",
        "--model.weights",
        "",
        "--minutes",
        "3",
    ]
    given = parse("classify", arguments)
    assert given_fields(arguments, given.recipe) == {
        "images.hflip": False,
        "optimizer.learning_rate": 1e-4,
        "model.weights": "",
    }
    arguments = [
        "--data",
        "x",
        "--settings.anchor-sizes",
        "8",
        "16",
        "32",
        "64",
        "128",
        "--images.scale_jitter",
        "1",
        "2",
    ]
    assert given_fields(arguments, parse("segment", arguments).recipe) == {
        "settings.anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
        "images.scale_jitter": (1.0, 2.0),
    }


def test_the_wrong_verb_names_the_right_one(colours, tmp_path, capsys):
    nuclei = tmp_path / "nuclei"
    write_nuclei(nuclei)
    assert train("classify", nuclei) == 2
    assert f"botformer train segment --data {nuclei}" in capsys.readouterr().err
    assert train("keypoints", nuclei) == 2
    assert "botformer train segment" in capsys.readouterr().err
    assert train("segment", colours) == 2
    assert f"botformer train classify --data {colours}" in capsys.readouterr().err
    assert train("auto", tmp_path / "nothing") == 2
    assert train("classify", colours, "--minutes", "-1") == 2


def test_a_tracker_that_does_not_exist_is_said_before_anything_is_timed(colours, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("classify", colours, "--out", str(out), "--minutes", "1", "--run.trackers", "tensorbord") == 2
    printed = capsys.readouterr().err
    assert "did you mean tensorboard" in printed
    assert "timing" not in printed
    assert not out.exists()


def test_one_class_is_refused_with_what_to_do(tmp_path, capsys):
    folder = tmp_path / "data" / "cats"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(folder / "1.png")
    Image.new("RGB", (20, 20)).save(folder / "2.png")
    assert train("auto", tmp_path / "data") == 2
    assert "second folder" in capsys.readouterr().err


def test_a_tiny_unbalanced_set_of_long_images_with_a_test_split(tmp_path, capsys):
    noise = np.random.default_rng(0)
    data = tmp_path / "data"
    for split, counts in (("train", (16, 3)), ("validation", (3, 1)), ("test", (2, 2))):
        for number, count in enumerate(counts):
            (data / split / f"class{number}").mkdir(parents=True)
            for image in range(count):
                pixels = np.clip(40 + 150 * number + noise.normal(0, 30, (16, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(data / split / f"class{number}" / f"{image}.png")
    out = tmp_path / "run"
    assert train("auto", data, "--minutes=0.3", "--out", str(out), *SMALL, "--schedule.epochs=3") == 0
    recipe = read(out, "recipe.json")
    assert recipe["images"]["fit"] == "letterbox"
    assert recipe["images"]["balance"] == 0.5
    assert recipe["run"]["batch_size"] == 8
    assert recipe["schedule"] | {"epochs": 3, "steps": 0} == recipe["schedule"]
    assert "balanced_accuracy" in evaluations(out)[-1]
    measured = json.loads((out / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert (measured["split"], measured["images"]) == ("test", 4)
    said = " ".join(capsys.readouterr().err.split())
    assert "--images.fit letterbox" in said
    assert "--images.balance 0.5" in said


def test_a_test_split_that_cannot_be_measured_costs_neither_the_network_nor_the_report(monkeypatch, tmp_path, capsys):
    def refuse(given):
        raise InputError("cow is no class of the checkpoint")

    monkeypatch.setattr("botformer.commands.evaluate.evaluate", refuse)
    monkeypatch.setattr("botformer.report.run_report.write_run_report", lambda out, *rest: out / "report.html")
    found = Found("classify", None, None, 4, "", 0.0)
    train_planned._finish(tmp_path, "data", found, Run(), time.monotonic())
    printed = capsys.readouterr()
    assert "report.html" in printed.out
