import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.seeding import seed_all
from botformer.training import loop
from botformer.training.checkpoint import BEST, checkpoint_folder, read_state, read_tensors
from botformer.training.loop import fit
from botformer.training.run_log import read_metrics
from botformer.training.signals import Interrupted
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here; one test looks at the image."""
    if "complete_record" not in request.node.name:
        monkeypatch.setattr("botformer.training.run_log.FileRunLog.draw", lambda self: None)


STOPWATCH = ("images_per_s", "waited_s", "memory_mb")


def run(out: Path, recipe: Recipe, model: str = "linear", batches: Any = None, **options: Any) -> dict[str, Any]:
    return fit(toy_task(model), batches or ToyBatches(), toy_evaluation(), recipe, out, **options)


def assert_same_end(one: Path, other: Path) -> None:
    """The same weights, averages, optimiser state, records and best, to the bit."""
    folders = [checkpoint_folder(out) for out in (one, other)]
    states = [read_state(folder) for folder in folders if folder]
    sets = [read_tensors(folder, state) for folder, state in zip(folders, states, strict=True) if folder]
    assert states[0].step == states[1].step
    assert states[0].metrics == states[1].metrics
    assert (states[0].best_step, states[0].best_value) == (states[1].best_step, states[1].best_value)
    assert sets[0].keys() == sets[1].keys()
    for name in sets[0]:
        assert sets[0][name].keys() == sets[1][name].keys()
        for key, tensor in sets[0][name].items():
            assert torch.equal(tensor, sets[1][name][key]), f"{name} {key}"
    records = [
        [{k: v for k, v in record.items() if k not in STOPWATCH} for record in read_metrics(out / "metrics.jsonl")]
        for out in (one, other)
    ]
    assert records[0] == records[1]


def test_run_learns_and_leaves_a_complete_record(tmp_path: Path) -> None:
    metrics = run(tmp_path, toy_recipe(schedule={"epochs": 5}))
    assert metrics["accuracy"] is not None
    assert metrics["accuracy"] > 0.8  # chance is a third
    records = read_metrics(tmp_path / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in train] == list(range(1, 21))
    assert train[-1]["loss"] < 0.5 * train[0]["loss"]
    assert train[0]["loss"] == pytest.approx(train[0]["cross_entropy"] + train[0]["size"])
    assert [r["epoch"] for r in records if r["kind"] == "evaluation"] == [1, 2, 3, 4, 5]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "recipe.json").read_text())["optimizer"]["learning_rate"] == 0.05
    assert json.loads((tmp_path / "versions.json").read_text())["torch"] == torch.__version__
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert read_state(folder).model_config == {"name": "toy", "classes": ["red", "green", "blue"]}


def test_model_file_holds_the_state_dict_of_the_model(tmp_path: Path) -> None:
    task = toy_task("convolutional")
    fit(task, ToyBatches(), toy_evaluation(), toy_recipe(), tmp_path)
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    tensors = read_tensors(folder, read_state(folder))["model"]
    fresh = toy_task("convolutional", seed=5)
    fresh.model.load_state_dict(tensors)
    batch = toy_evaluation()[0]
    assert torch.equal(fresh.eval().predict(batch), task.eval().predict(batch))


@pytest.mark.parametrize("steps", [1, 4, 6])
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "ema": 0.9}, {"name": "adamw", "clip_norm": 0.5}])
def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path: Path, optimizer: dict, steps: int) -> None:
    recipe = toy_recipe(optimizer=optimizer | {"learning_rate": 0.01}, run={"evaluate_every": 3})
    run(tmp_path / "whole", recipe, "convolutional")
    stopping = StopsItself(steps)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", recipe, "convolutional", stopping)
    assert stopping.fetched == steps
    run(tmp_path / "parts", recipe, "convolutional")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


class StopsItself(ToyBatches):
    """Sends this process a signal while batch `after` is being fetched."""

    def __init__(self, after: int, number: int = signal.SIGINT):
        super().__init__()
        self.after, self.number, self.fetched = after, number, 0

    def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
        for batch in super().starting_at(step):
            self.fetched += 1
            if self.fetched == self.after:
                os.kill(os.getpid(), self.number)
            yield batch


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_step_saves_and_exits_with_a_status(
    tmp_path: Path, number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, toy_recipe(), batches=StopsItself(3, number))
    assert stopped.value.code == status
    assert f"stopped by {signal.Signals(number).name} after step 2 of 12" in capsys.readouterr().err
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert folder.name == "step-00000002"


@pytest.mark.parametrize("step", [4, 12])
def test_evaluation_that_a_signal_prevented_is_made_up_for(tmp_path: Path, step: int) -> None:
    run(tmp_path / "whole", toy_recipe())
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", toy_recipe(), batches=StopsItself(step))
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl")[-1]["kind"] == "train"
    run(tmp_path / "parts", toy_recipe())
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert checkpoint_folder(tmp_path / "parts", BEST) is not None


def test_random_state_of_a_step_depends_on_seed_and_step_only(tmp_path: Path) -> None:
    task = toy_task()
    drawn = []
    task.model.register_forward_pre_hook(lambda module, _: drawn.append(torch.rand(2)) if module.training else None)
    fit(task, ToyBatches(), toy_evaluation(), toy_recipe(run={"seed": 7}), tmp_path)
    for step, numbers in enumerate(drawn):
        seed_all(7, step, 0)
        assert torch.equal(numbers, torch.rand(2))
    assert len(drawn) == 12


def test_max_steps_stops_without_shortening_the_schedule(tmp_path: Path) -> None:
    run(tmp_path / "whole", toy_recipe())
    run(tmp_path / "short", toy_recipe(run={"max_steps": 8}))
    whole, short = (
        [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["kind"] == "train"]
        for name in ("whole", "short")
    )
    assert len(short) == 8
    assert [r["lr"] for r in short] == [r["lr"] for r in whole[:8]]
    run(tmp_path / "short", toy_recipe())
    assert_same_end(tmp_path / "whole", tmp_path / "short")


def test_finished_run_answers_without_training(tmp_path: Path) -> None:
    metrics = run(tmp_path, toy_recipe())
    before = (tmp_path / "metrics.jsonl").read_bytes()

    class NoBatches(ToyBatches):
        def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
            while True:
                raise AssertionError("trained again")
                yield {}

    assert run(tmp_path, toy_recipe(), batches=NoBatches()) == metrics
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_best_checkpoint_is_saved_also_between_regular_ones(tmp_path: Path) -> None:
    run(tmp_path, toy_recipe(schedule={"epochs": 4}, run={"checkpoint_every": 4, "keep": 1}))
    values = {r["step"]: r["accuracy"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "evaluation"}
    first_best = max(values, key=lambda step: (values[step], -step))
    best = checkpoint_folder(tmp_path, BEST)
    assert best is not None
    assert best.name == f"step-{first_best:08d}"
    assert read_state(best).best_value == max(values.values())


def test_average_of_the_weights_is_evaluated_saved_and_decides_what_is_best(tmp_path: Path) -> None:
    metrics = run(tmp_path, toy_recipe(optimizer={"ema": 0.9}))
    assert metrics.keys() == {"accuracy", "ema_accuracy"}
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    state = read_state(folder)
    averaged = toy_task(seed=5)
    averaged.model.load_state_dict(read_tensors(folder, state)["ema"])
    right = sum(int((averaged.predict(b).argmax(1) == b["labels"]).sum()) for b in toy_evaluation())
    assert state.metrics["ema_accuracy"] == right / 39
    evaluations = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "evaluation"]
    assert state.best_value == max(r["ema_accuracy"] for r in evaluations)


@pytest.mark.parametrize(
    ("decay", "said"), [(0.0, False), (0.5, False), (0.9, "28 % of the average"), (1.0, "100 % of")]
)
def test_an_average_that_is_mostly_the_start_is_said(
    tmp_path: Path, decay: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, toy_recipe(optimizer={"ema": decay}))
    assert ("of the average" in caplog.text) == bool(said)
    assert not said or said in caplog.text


def test_loss_that_is_not_finite_stops_the_run_and_nothing_is_saved_after_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run(tmp_path, toy_recipe(), batches=ToyBatches(broken_at=5))
    message = str(error.value)
    for part in ("cross_entropy nan", "step 6 (epoch 1.50)", "learning rate", "5/0.png", "5/7.png", "clip_norm"):
        assert part in message
    assert f"--model.weights {tmp_path}/checkpoints/step-00000004, with another --out" in message
    assert json.loads((tmp_path / "non_finite.json").read_text())["files"] == [f"5/{i}.png" for i in range(8)]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 5


@pytest.mark.parametrize("broken_at", [3, 4, 5])
def test_losses_read_one_step_late_are_still_read_before_anything_is_saved(
    tmp_path: Path, broken_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loop.STEPS_LATE, "cpu", 1)
    advice = "Nothing is saved yet" if broken_at == 3 else "--model.weights"
    with pytest.raises(InputError, match=f"at step {broken_at + 1} .*{advice}"):
        run(tmp_path, toy_recipe(), batches=ToyBatches(broken_at=broken_at))
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert saved == ([] if broken_at == 3 else ["step-00000004"])
    assert max(r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")) == broken_at


def test_reading_late_changes_no_record_and_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "at once", toy_recipe())
    monkeypatch.setitem(loop.STEPS_LATE, "cpu", 1)
    with pytest.raises(Interrupted):
        run(tmp_path / "late", toy_recipe(), batches=StopsItself(6))
    run(tmp_path / "late", toy_recipe())
    assert_same_end(tmp_path / "at once", tmp_path / "late")


def test_steps_that_are_read_together_share_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a checkpoint all losses are read, the last ones at once: none of those steps took no time."""

    class Slow(ToyBatches):
        def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
            for batch in super().starting_at(step):
                time.sleep(0.02)
                yield batch

    monkeypatch.setitem(loop.STEPS_LATE, "cpu", 1)
    run(tmp_path, toy_recipe(), batches=Slow())
    rates = {r["step"]: r["images_per_s"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "train"}
    assert max(rates[step] for step in (1, 2, 3, 4, 5, 6, 7, 8)) <= 2 * 8 / 0.02


def test_a_signal_during_the_last_checkpoint_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would follow the training is not begun; all of the training is there."""
    drawn = []

    def draw(log: loop.FileRunLog) -> None:
        drawn.append(log)
        if len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.FileRunLog, "draw", draw)
    with pytest.raises(Interrupted):
        run(tmp_path, toy_recipe())
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert folder.name == "step-00000012"
    assert read_state(folder).metrics_step == 12


def test_run_continues_before_the_loss_that_was_not_finite(tmp_path: Path) -> None:
    run(tmp_path / "whole", toy_recipe())
    with pytest.raises(InputError, match="not finite"):
        run(tmp_path / "parts", toy_recipe(), batches=ToyBatches(broken_at=5))
    run(tmp_path / "parts", toy_recipe())
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_weights_that_an_infinite_gradient_spoilt_are_not_saved(tmp_path: Path) -> None:
    task = toy_task()
    steps = 0

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return gradient * torch.inf if steps == 8 else gradient

    task.model[1].weight.register_hook(spoil)  # pyright: ignore[reportIndexIssue]
    with pytest.raises(InputError, match=r"weights stopped being finite at or before step 8"):
        fit(task, ToyBatches(), toy_evaluation(), toy_recipe(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_broken_last_checkpoint_names_the_older_one_and_continues_from_it(tmp_path: Path) -> None:
    run(tmp_path / "whole", toy_recipe())
    out = tmp_path / "broken"
    run(out, toy_recipe(run={"max_steps": 10}))
    file = out / "checkpoints" / "step-00000010" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError) as error:
        run(out, toy_recipe())
    assert "model.safetensors is damaged" in str(error.value)
    assert "step-00000008 (later ones are removed): --resume previous" in str(error.value)
    run(out, toy_recipe(), resume="previous")
    assert_same_end(tmp_path / "whole", out)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, toy_recipe(run={"max_steps": 4}), "linear")
    with pytest.raises(InputError, match=r"model\.safetensors does not fit: other weights.*missing 0\.weight"):
        run(tmp_path, toy_recipe(), "convolutional")


def test_other_recipe_and_never_leave_the_folder_untouched(tmp_path: Path) -> None:
    run(tmp_path, toy_recipe(run={"max_steps": 4}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"optimizer\.weight_decay"):
        run(tmp_path, toy_recipe(optimizer={"weight_decay": 0.5}))
    with pytest.raises(InputError, match="holds a run already"):
        run(tmp_path, toy_recipe(), resume="never")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_accumulation_does_not_change_a_run_without_batch_norm(tmp_path: Path) -> None:
    run(tmp_path / "one", toy_recipe())
    run(tmp_path / "four", toy_recipe(run={"accumulation": 4}))
    one, four = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "four"))
    assert [r["loss"] for r in four if "loss" in r] == pytest.approx([r["loss"] for r in one if "loss" in r], rel=1e-5)


def test_run_in_bf16_learns(tmp_path: Path) -> None:
    metrics = run(tmp_path, toy_recipe(schedule={"epochs": 5}, run={"precision": "bf16"}))
    assert metrics["accuracy"] is not None
    assert metrics["accuracy"] > 0.8


def test_tensorboard_gets_the_numbers_of_the_journal(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, toy_recipe(run={"trackers": ("tensorboard",), "max_steps": 4}))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [r["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)
