"""The page of a run, whatever is there of it; flipped labels at the top of what a trained network contradicts."""

import hashlib
import json
import shlex
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import botformer
from botformer import cli
from botformer.commands import train as train_command
from botformer.create.from_checkpoint import Loaded
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.predict import detector
from botformer.recipes import find_experiment
from botformer.report.inspection import inspect_data
from botformer.report.opened_data import open_data
from botformer.report.run_images import attend
from botformer.report.run_report import write_run_report
from botformer.report.training_command import training_command
from botformer.training.checkpoint import read_state, write_state
from botformer.training.resume import as_json

from .pages import Page
from .test_data_command import bar

QUICK = [
    "--images.size=32", "--schedule.epochs=12", "--schedule.warmup-epochs=1", "--run.batch-size=10", "--run.workers=0",
    "--images.augmentation=none", "--run.evaluate-every=4", "--optimizer.learning-rate=0.002",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "colours"
    assert cli.main(["train", "digits", "--data", str(colours), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="module")
def nuclei_run(tmp_path_factory):
    pytest.importorskip("faster_coco_eval")
    root = tmp_path_factory.mktemp("nuclei")
    write_nuclei(root / "data")
    arguments = ["--images.size=64", "--images.test-size=128", "--run.batch-size=4", "--run.evaluate-every=100"]
    command = ["train", "nuclei_mini", "--data", str(root / "data"), "--out", str(root / "run"), *arguments]
    assert cli.main([*command, "--run.max-steps=2", "--run.workers=0"]) == 0
    return root


def with_logits(run, out, factor):
    """A copy of the run whose logits are multiplied."""
    copy = shutil.copytree(run, out, ignore=shutil.ignore_patterns("evaluation"))
    for file in (copy / "checkpoints").glob("*/model.safetensors"):
        tensors = load_file(file)
        save_file({name: each * (factor if name.startswith("fc.") else 1) for name, each in tensors.items()}, file)
        sums = {"model": hashlib.sha256(file.read_bytes()).hexdigest()}  # as if it had been trained so
        state = read_state(file.parent)
        write_state(file.parent, replace(state, sha256=state.sha256 | sums))
    return copy


def test_a_classifiers_page_shows_what_it_reached(run, colours):
    page = Page(write_run_report(run, str(colours)))
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert f"{metrics['top1']:.1%} validation images" in page.text
    assert "12 epochs" in page.text
    for words in ("Sure and right", "heads averaged", "Where it looks", "Next", "images per second", "Truth in rows"):
        assert words in page.text, words
    assert f"botformer predict IMAGES --checkpoint {run}" in page.text
    assert f"botformer data {colours} --checkpoint {run}" in page.text
    assert "--schedule.epochs 36" in page.text  # three times as long
    assert page.images > 20
    assert page.bytes < 10e6


def test_predictions_that_are_there_are_not_made_again(run, colours, monkeypatch):
    write_run_report(run, str(colours))
    monkeypatch.setattr("botformer.report.run_report.evaluate_checkpoint", None)
    write_run_report(run, str(colours))


@pytest.mark.parametrize(
    ("other", "words"),
    [({"split": "train"}, "% train images"), ({"tta": "flip"}, "validation images and their mirror images")],
)
def test_an_evaluation_with_other_options_is_not_the_runs_result(run, colours, tmp_path, other, words):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    write_run_report(copy, str(colours))
    file = copy / "evaluation/metrics.json"
    metrics = json.loads(file.read_text())
    file.write_text(json.dumps(metrics | other))
    assert words in Page(write_run_report(copy, str(colours / "gone"))).text  # it is all there is
    write_run_report(copy, str(colours))
    assert json.loads(file.read_text()) == metrics


def test_an_evaluation_of_fewer_images_is_made_again(run, colours, tmp_path):
    data = shutil.copytree(colours, tmp_path / "data")
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    write_run_report(copy, str(data))
    (data / "validation/red/0.png").rename(data / "train/red/more.png")
    write_run_report(copy, str(data))
    assert json.loads((copy / "evaluation/metrics.json").read_text())["images"] == 8


def test_the_command_makes_it_again_and_finds_the_data_by_itself(run, colours, capsys):
    write_run_report(run, str(colours))
    (run / "report.html").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert "Sure and right" in Page(run / "report.html").text


def test_without_data_there_are_no_images_and_it_says_so(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "report.html"))
    page = Page(write_run_report(copy))
    assert "Nobody said where the data are" in page.text
    assert "Loss, learning rate" in page.text
    gone = Page(write_run_report(copy, str(tmp_path / "gone")))
    assert "gone does not exist" in gone.text
    assert "Sure and" not in gone.text


def test_a_run_without_a_checkpoint_or_an_end_says_so(run, colours, tmp_path):
    copy = shutil.copytree(
        run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "checkpoints", "curves.png")
    )
    (copy / "best").unlink()
    (copy / "last").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    page = Page(write_run_report(copy, str(colours)))
    assert "The run has not ended" in page.text
    assert "There is no checkpoint" in page.text
    assert "Go on where it stopped" in page.text
    assert "Loss, learning rate" in page.text  # drawn from the journal


def test_a_folder_that_is_no_run_is_bad_input(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_diverged_run_still_has_a_page(run, colours, tmp_path):
    copy = with_logits(run, tmp_path / "run", float("nan"))
    page = Page(write_run_report(copy, str(colours)))
    assert "could not be evaluated" in page.text
    assert "not finite" in page.text


def test_the_plan_is_shown_with_what_it_chose_from(run, colours, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    rows = [{"model": "botnet50", "images_per_s": 3.25, "remark": "too slow"}, {"model": "resnet50", "epochs": None}]
    plan = {"command": "botformer train classify --data X --minutes 3", "data": str(colours), "minutes": 3.0}
    (copy / "plan.json").write_text(json.dumps(plan | {"candidates": rows, "notes": ["a note"]}))
    page = Page(write_run_report(copy))
    for words in ("botformer train classify --data X --minutes 3", "for 3 minutes", "too slow", "3.25", "a note"):
        assert words in page.text, words


def test_a_detectors_page_shows_curves_images_and_attention(nuclei_run):
    page = Page(write_run_report(nuclei_run / "run", str(nuclei_run / "data")))
    assert "Mask R-CNN: run" in page.text
    for words in (
        "mask AP",
        "The run has not ended",
        "Precision and recall",
        "The best and the worst images",
        "nucleus",
    ):
        assert words in page.text, words
    assert page.bytes < 10e6


def test_a_network_of_tiles_is_shown_and_timed_with_its_tiles(nuclei_run, tmp_path, monkeypatch):
    model, config = botformer.load(nuclei_run / "run")
    seen = []
    detect = detector.detect

    def record(model, batch, flip):
        seen.append(tuple(batch["images"].shape))
        return detect(model, batch, flip)

    monkeypatch.setattr(detector, "detect", record)
    tiled = Loaded(model, config | {"images": config["images"] | {"tile": 64}})
    attention = attend(tiled, open_data(str(nuclei_run / "data")).split("validation"), [], tmp_path, "cpu")
    assert attention.seconds_per_image
    assert {shape[1:] for shape in seen} == {(3, 128, 128)}
    assert max(images for images, *_ in seen) == 4


@pytest.mark.parametrize("name", ["digits", "nuclei_mini", "coco_botnet50_36", "cifar10_mini"])
def test_the_command_of_a_recipe_is_read_as_that_recipe(name, tmp_path):
    recipe = find_experiment(name).recipe
    changes = {
        "run": replace(recipe.run, seed=7, workers=0),
        "schedule": replace(recipe.schedule, epochs=3, milestones=(0.5, 0.75)),
        "images": replace(recipe.images, hflip=not recipe.images.hflip),
        "model": replace(recipe.model, weights="a folder/with spaces"),
    }
    changed = replace(recipe, **changes)
    words = shlex.split(training_command(as_json(changed), "my data", str(tmp_path / "out")))
    assert words[:2] == ["botformer", "train"]
    given = train_command.parse(find_experiment(words[2]), words[3:])
    assert given.recipe == changed
    assert (given.data, given.out) == ("my data", tmp_path / "out")


def test_flipped_labels_stand_at_the_top_of_what_the_network_contradicts(run, colours, tmp_path):
    pytest.importorskip("imagehash")
    data = shutil.copytree(colours, tmp_path / "data")
    (data / "validation/green/1.png").rename(data / "validation/blue/flipped.png")
    (data / "train/green/4.png").rename(data / "train/red/flipped.png")
    sure = with_logits(run, tmp_path / "run", 10)
    found = inspect_data(str(data), sure, False, bar).findings
    wrong = {finding.where: finding for finding in found if "may be in the wrong class" in finding.what}
    assert wrong["validation"].listed[0].startswith("blue/flipped.png: blue? green")
    assert wrong["train"].listed[0].startswith("red/flipped.png: red? green")
    assert cli.main(["data", str(data), "--checkpoint", str(sure), "--out", str(tmp_path / "page.html")]) == 0
    assert "blue/flipped.png: blue? green" in Page(tmp_path / "page.html").text


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is such a device here")
def test_the_network_is_asked_about_the_data_on_the_device_that_is_named(run, colours, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert cli.main(["data", str(colours), "--checkpoint", str(run), "--out", str(page), "--device", "mps"]) == 2
    assert "device mps is not there" in capsys.readouterr().err
