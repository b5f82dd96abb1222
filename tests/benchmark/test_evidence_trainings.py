"""Evidence in small: its table fits together, and trainings stop, go on and are measured once."""

import json
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from botformer import cli
from botformer.create import create_backbone, train_recipe
from botformer.recipes import find_recipe
from botformer.recipes.from_json import with_fields
from tests.launch.colours import write_colours

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import evidence  # noqa: E402
import evidence_page  # noqa: E402
import evidence_rows  # noqa: E402
import evidence_trainings  # noqa: E402
from evidence_rows import ARMS, ROWS, Arm, Dataset, Effect, Row  # noqa: E402
from evidence_trainings import End, Job, jobs  # noqa: E402


@pytest.mark.parametrize("name", ARMS)
def test_the_command_of_an_arm_trains_its_recipe(name, monkeypatch):
    called = []
    monkeypatch.setattr(train_recipe, "train_recipe", lambda *given: called.append(given))
    arm, job = ARMS[name], Job(name, 2, Path("out"))
    assert cli.main(["train", arm.recipe, "--data", "DIR", *job.options]) == 0
    assert called[0][0] == with_fields(find_recipe(arm.recipe), {**arm.changes, "run.seed": 2})


def test_no_two_trainings_share_a_folder():
    everything = jobs(ROWS.values(), (0, 1, 2, 10), Path("out"))
    assert len({job.run for job in everything}) == len(everything) == 4 * len(ARMS)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_what_is_compared_differs_in_nothing_else(row):
    """Of two arms all is equal but the network, or, where the schedule or the images are what is asked for, these."""
    for effect in row.effects:
        trained = [find_recipe(ARMS[arm].recipe) for arm in effect.arms]
        trained = [with_fields(recipe, ARMS[arm].changes) for recipe, arm in zip(trained, effect.arms, strict=True)]
        assert len(effect.plus) == len(effect.minus)
        assert effect.dataset in {arm.dataset for arm in ARMS.values()}
        budgets = {(recipe.optimizer, recipe.run.batch_size, recipe.run.precision) for recipe in trained}
        assert len(budgets) == 1
        for plus, minus in zip(trained[: len(effect.plus)], reversed(trained[len(effect.plus) :]), strict=True):
            assert plus.schedule == minus.schedule
            assert plus.images == minus.images


def test_every_training_has_a_folder_and_a_log_of_its_own():
    trainings = [Job(name, seed, Path("out")) for name in ARMS for seed in range(12)]
    assert len({path for job in trainings for path in (job.run, job.log)}) == 2 * len(trainings)
    assert {job.log.suffix for job in trainings} == {".log"}


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_the_strides_of_what_is_compared_are_equal_unless_it_says_otherwise(row):
    for effect in row.effects:
        strides = set()
        for arm in effect.arms:
            changes = ARMS[arm].changes
            with torch.device("meta"):
                backbone = create_backbone(changes["model.name"], output_stride=changes.get("model.output_stride"))
            strides.add(backbone.strides["c5"])
        assert (len(strides) == 1) == ("unequal strides" not in effect.claim and "stride alone" not in effect.claim)


COLOURS = Dataset("colours", "validation", "top1", "0123456789ab", "12 images of noise")
TINY = {
    f"{name}": Arm(COLOURS, "photos_half", {"model.name": f"{name}_nano", "images.size": 32, "run.batch_size": 20})
    for name in ("resnet", "botnet")
}
ROW = Row("tiny", "noise has colours", "Tiny.", (Effect("BoT - R", ("botnet",), ("resnet",), paper={"top1": "0.1"}),))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A table of two networks for noise, with results of its own."""
    for module in (evidence_rows, evidence_trainings, evidence_page):
        monkeypatch.setattr(module, "ARMS", TINY)
    for module in (evidence, evidence_page, evidence_rows):
        monkeypatch.setattr(module, "ROWS", {"tiny": ROW})
    monkeypatch.setattr(evidence, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()


def call(monkeypatch, capsys, folder, *arguments):
    argv = ["evidence.py", "--data", str(folder), "--out", str(folder / "out"), "--row", "tiny", *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    evidence.main()
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("tiny")
def test_a_training_stops_at_the_deadline_goes_on_and_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = write_colours(tmp_path / "colours")
    with zipfile.ZipFile(tmp_path / "colours.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    job = Job("botnet", 0, tmp_path / "out")

    class AfterAStep(End):
        """As if the deadline had come, or the signal, then."""

        @property
        def is_here(self):
            return job.log.is_file() and "step 1/" in job.log.read_text()

    evidence_trainings.train_all([job], tmp_path, AfterAStep(0.0), 1, others_too=True)
    assert capsys.readouterr().out == "botnet, seed 0: stopped, to be continued\n"
    assert not job.is_done
    assert call(monkeypatch, capsys, tmp_path, "--seeds", "0", "--minutes", "0")[-1] == (
        "0 of 2 trainings are done; the next call goes on"
    )
    evidence_trainings.train_all([job], tmp_path, End(time.monotonic() + 500), 1, others_too=True)
    assert "continuing after step" in job.log.read_text()
    metrics = json.loads((job.run / "evaluation" / "metrics.json").read_text())
    assert metrics["images"] == 12
    assert json.loads((job.run / "recipe.json").read_text())["run"]["seed"] == 0
    assert set(json.loads(job.measured.read_text())) - {"uncommitted_changes"} == {"commit", "processor", "command"}
    assert 0 < job.seconds < 60


def pretend(folder, right):
    """The trainings of the row, as if done, with so many of 40 images right."""
    for (arm, seed), count in right.items():
        job = Job(arm, seed, folder / "out")
        (job.run / "evaluation").mkdir(parents=True)
        records = [
            {"file_name": f"{i}.png", "label": "a", "top5": [["a" if i < count else "b", 1.0]]} for i in range(40)
        ]
        (job.run / "evaluation" / "predictions.json").write_text(json.dumps(records))
        steps = [{"kind": "train", "step": step, "images_per_s": 10.0 + seed} for step in (1, 2, 6)]
        (job.run / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*steps, {"kind": "evaluation"}])) + "\n")
        (job.run / "recipe.json").write_text('{"run": {"batch_size": 20}}')
        job.measured.write_text(json.dumps({"commit": "0123456789", "processor": "Abacus", "command": job.command}))


@pytest.mark.usefixtures("tiny")
def test_the_receipt_and_the_page_say_what_was_measured(tmp_path, monkeypatch, capsys):
    right = {("botnet", 0): 36, ("botnet", 1): 37, ("botnet", 2): 38}
    right |= {("resnet", 0): 20, ("resnet", 1): 21, ("resnet", 2): 19}
    pretend(tmp_path, right)
    assert call(monkeypatch, capsys, tmp_path)[-1] == "6 of 6 trainings are done"  # none of them anew
    receipt = json.loads((tmp_path / "results" / "evidence_tiny.json").read_text())
    *trainings, best, worst, effect = receipt["figures"]
    assert (best, worst) == (
        {"arm": "botnet", "seed": "mean", "top1": 92.5},
        {"arm": "resnet", "seed": "mean", "top1": 50.0},
    )
    assert {(each["arm"], each["seed"]): each["top1"] for each in trainings} == {
        name: 2.5 * count for name, count in right.items()
    }
    assert trainings[0]["command"] == (
        "botformer train photos_half --data DIR --model.name botnet_nano --images.size 32 --run.batch-size 20 "
        "--run.seed 0"
    )
    assert (effect["difference"], effect["verdict"]) == (42.5, "holds in small")
    page = (tmp_path / "results" / "EVIDENCE.md").read_text()
    assert (
        f"| BoT - R | top-1 | +42.5 ({effect['low']:+.1f} to {effect['high']:+.1f}) | 3 | 40 | holds in small | 0.1 |"
        in page
    )
    assert "| botnet | 0, 1, 2 | 92.5 ± 2.5 | 10 to 12 |" in page
    assert str(tmp_path) not in page
    with Image.open(tmp_path / "results" / "evidence.png") as chart:
        green = (np.asarray(chart.convert("RGB")) == (0, 158, 115)).all(-1)
    assert green.sum() > 100  # a claim that holds


@pytest.mark.usefixtures("tiny")
def test_trainings_that_are_gone_are_compared_with_later_ones(tmp_path, monkeypatch, capsys):
    """Two seeds on one machine and the third on another give the receipt of three on one; a run that is measured is
    not measured again."""
    right = {("botnet", 0): 36, ("botnet", 1): 37, ("botnet", 2): 38}
    right |= {("resnet", 0): 20, ("resnet", 1): 21, ("resnet", 2): 19}
    receipt, kept = tmp_path / "results" / "evidence_tiny.json", tmp_path / "results" / "evidence"
    pretend(tmp_path, right)
    call(monkeypatch, capsys, tmp_path)
    at_once = json.loads(receipt.read_text())["figures"]
    receipt.unlink()
    shutil.rmtree(kept)
    shutil.rmtree(tmp_path / "out")
    for seeds in ((0, 1), (2,)):
        assert not receipt.exists()
        pretend(tmp_path, {name: count for name, count in right.items() if name[1] in seeds})
        call(monkeypatch, capsys, tmp_path, "--minutes", "0")
        shutil.rmtree(tmp_path / "out")
    assert json.loads(receipt.read_text())["figures"] == at_once
    pretend(tmp_path, {("resnet", 0): 20})
    written = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(written) == 6
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    pretend(tmp_path, {("resnet", 1): 30})  # trained again, with another result
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    (again,) = [line for line in json.loads(receipt.read_text())["figures"] if line.get("seed") == 1][1:]
    assert (again["arm"], again["top1"], again["processor"]) == ("resnet", 75.0, "Abacus")


@pytest.mark.usefixtures("tiny")
def test_a_receipt_of_trainings_that_are_not_kept_stays_until_all_are_repeated(tmp_path, monkeypatch, capsys):
    pretend(tmp_path, {(arm, seed): 30 for arm in TINY for seed in range(4)})
    call(monkeypatch, capsys, tmp_path)
    receipt = tmp_path / "results" / "evidence_tiny.json"
    before = receipt.read_text()
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "results" / "evidence")
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    assert receipt.read_text() == before  # nothing new
    repeated = {("resnet", seed): 20 for seed in range(4)} | {("botnet", seed): 30 for seed in range(3)}
    pretend(tmp_path, repeated)
    said = call(monkeypatch, capsys, tmp_path, "--minutes", "0")[0]
    assert said == "evidence_tiny.json stays until 1 more are repeated, such as botnet, seed 3"
    assert receipt.read_text() == before
    shutil.rmtree(tmp_path / "out")
    pretend(tmp_path, {("botnet", 3): 30})
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    figures = json.loads(receipt.read_text())["figures"]
    assert {line["arm"]: line["top1"] for line in figures if line.get("seed") == "mean"} == {
        "botnet": 75.0,
        "resnet": 50.0,
    }
    assert (figures[-1]["seeds"], figures[-1]["difference"]) == (4, 25.0)
    receipt.write_text(receipt.read_text().replace('"commit": ', '"commit": "earlier", "was": ', 1))
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    assert json.loads(receipt.read_text())["commit"] == "earlier"  # the same figures are the same receipt


@pytest.mark.usefixtures("tiny")
def test_what_is_kept_is_not_trained_again_and_all_rows_hear_of_a_repetition(tmp_path, monkeypatch, capsys):
    shared = replace(ROW, name="shared")
    for module in (evidence, evidence_page, evidence_rows):
        monkeypatch.setattr(module, "ROWS", {"tiny": ROW, "shared": shared})
    pretend(tmp_path, {(arm, seed): 30 for arm in TINY for seed in range(3)})
    call(monkeypatch, capsys, tmp_path)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(evidence, "train_all", lambda jobs, *_: [f"{job.run.name} is to be trained" for job in jobs])
    kept = tmp_path / "results" / "evidence"
    assert call(monkeypatch, capsys, tmp_path)[-1] == (
        f"6 of 6 trainings are done, 6 of them kept in {kept} (--results FOLDER trains them anew)"
    )
    with pytest.raises(SystemExit) as anew:
        call(monkeypatch, capsys, tmp_path, "--results", str(tmp_path / "other"))
    assert len(str(anew.value).splitlines()) == 6
    (tmp_path / "results" / "evidence" / "botnet_1.npz").unlink()
    with pytest.raises(SystemExit, match="^botnet_1 is to be trained$"):
        call(monkeypatch, capsys, tmp_path)
    pretend(tmp_path, {("botnet", 1): 33})
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")  # asks for the row tiny
    figures = json.loads((tmp_path / "results" / "evidence_shared.json").read_text())["figures"]
    assert figures[-1]["difference"] == 2.5


@pytest.mark.usefixtures("tiny")
def test_two_seeds_are_no_evidence(tmp_path, monkeypatch, capsys):
    pretend(tmp_path, {("botnet", 0): 36, ("botnet", 1): 37, ("resnet", 0): 20, ("resnet", 1): 21})
    assert (
        call(monkeypatch, capsys, tmp_path, "--minutes", "0")[-1] == "4 of 6 trainings are done; the next call goes on"
    )
    assert not list((tmp_path / "results").glob("*.json"))
    assert "Not measured." in (tmp_path / "results" / "EVIDENCE.md").read_text()


@pytest.mark.usefixtures("tiny")
def test_a_training_with_other_options_is_not_taken_for_the_arms(tmp_path, monkeypatch, capsys):
    pretend(tmp_path, {(arm, seed): 30 for arm in TINY for seed in range(3)})
    call(monkeypatch, capsys, tmp_path, "--minutes", "0")
    longer = {name: replace(arm, changes={**arm.changes, "schedule.epochs": 9}) for name, arm in TINY.items()}
    for module in (evidence_rows, evidence_trainings, evidence_page):
        monkeypatch.setattr(module, "ARMS", longer)
    job = Job("botnet", 0, tmp_path / "out")
    assert not job.is_done
    assert evidence.of_kept_trainings(ROW, tmp_path / "results") == ([], [])
    shutil.copy(job.measured, job.began)
    why_not = evidence_trainings.train(job, End(time.monotonic() + 60))
    assert why_not.startswith(f"{job.run} was begun with other options (botformer train photos_half --data DIR ")


def archive(folder, *names):
    """photos.zip with empty files."""
    with zipfile.ZipFile(folder / "photos.zip", "w") as content:
        for name in names:
            content.writestr(name, "")


@pytest.fixture
def trained(monkeypatch):
    """The names of what would be trained."""
    names = []
    monkeypatch.setattr(evidence_trainings, "train", lambda job, end: names.append(job.name))
    return names


def test_a_data_set_that_is_missing_is_said_and_left_out(tmp_path, trained):
    both = [Job(name, 0, tmp_path / "out") for name in ("nuclei R50", "photos R50")]
    archive(tmp_path, "train/a/1.jpg", "validation/a/1.jpg")
    failures = evidence_trainings.train_all(both, tmp_path, End(time.monotonic() + 60), 1, others_too=True)
    assert failures == [f"{tmp_path / 'dsb2018.zip'} is missing. Its trainings are left out"]
    assert trained == ["photos R50"]


def test_the_receipts_here_are_of_their_archives_alone(tmp_path, trained):
    job, end = Job("photos R50", 0, tmp_path / "out"), End(time.monotonic() + 60)
    archive(tmp_path, "train/a/1.jpg", "validation/a/1.jpg")
    (failure,) = evidence_trainings.train_all([job], tmp_path, end, 1)
    assert "photos.zip is another archive than that of the receipts here (sha256 " in failure
    assert "not ba792af38868...); --results FOLDER takes it, for receipts of your own" in failure
    archive(tmp_path, "photos/train/a/1.jpg", "photos/validation/a/1.jpg")
    (failure,) = evidence_trainings.train_all([job], tmp_path, end, 1, others_too=True)
    assert failure.endswith("photos.zip has no train and no validation. Its trainings are left out")
    assert trained == []
    archive(tmp_path, "train/a/1.jpg", "validation/a/1.jpg")  # packed anew
    assert evidence_trainings.train_all([job], tmp_path, end, 1, others_too=True) == []
    assert trained == ["photos R50"]


def test_weights_that_are_not_there_are_no_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_trainings, "find_imagenet_weights", lambda name: None)
    job = Job("photos R50", 0, tmp_path / "out")
    assert evidence_trainings.train(job, End(time.monotonic() + 60)).startswith("those of resnet50_half come in a ")
    assert not job.began.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_what_is_trained_and_nothing_else_begins(tmp_path, monkeypatch, number):
    """As a person does: to the process that was started."""
    monkeypatch.setattr(evidence_trainings, "_unpack", lambda *_: "")
    monkeypatch.setattr(evidence_trainings, "_origin", lambda job: {"command": job.command})
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    script = tmp_path / "sleeps.py"
    script.write_text("import time\ntime.sleep(60)\n")
    begun = []

    def sleeping(command, **options):
        begun.append(real([sys.executable, str(script)], **options))
        return begun[-1]

    real = evidence_trainings.subprocess.Popen
    monkeypatch.setattr(evidence_trainings.subprocess, "Popen", sleeping)
    end = End(time.monotonic() + 60)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    with evidence.signals_end(end):
        jobs = [Job("CIFAR R", seed, tmp_path / "out") for seed in (0, 1)]
        assert evidence_trainings.train_all(jobs, tmp_path, end, 1) == []
    assert [process.returncode for process in begun] == [-signal.SIGTERM]


def test_a_training_that_fails_says_where_its_log_is_and_the_next_one_is_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    archive(tmp_path, "train/a/1.jpg", "validation/a/1.jpg")
    both = [Job("photos R50", seed, tmp_path / "out") for seed in (0, 1)]
    failures = evidence_trainings.train_all(both, tmp_path, End(time.monotonic() + 600), 1, others_too=True)
    assert failures == [f"photos R50, seed {job.seed}: exit status 2; see {job.log}" for job in both]
    assert not any(job.is_done for job in both)
