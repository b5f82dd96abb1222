"""Training: batch -> losses -> step -> log, and now and then evaluation -> checkpoint."""

import logging
import math
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from botformer.environment import versions
from botformer.errors import InputError
from botformer.recipes.from_json import flat
from botformer.recipes.schema import Recipe
from botformer.seeding import image_seeds, seed_all
from botformer.training.batches_ahead import BatchesAhead
from botformer.training.checkpoint import FULL, Checkpoints, State, no_room
from botformer.training.distributed import Accelerator, memory_mb, open_accelerator
from botformer.training.evaluation_loop import evaluate
from botformer.training.inexact import Division, division_note
from botformer.training.loaded_weights import RANDOM, LoadedWeights
from botformer.training.non_finite import loss_error, weights_error
from botformer.training.out_of_memory import evaluation_explained, step_explained
from botformer.training.resume import LENGTH, Resume, as_json, find_start, restore, with_saved_precision
from botformer.training.run_lock import RunLock, run_lock
from botformer.training.run_log import FileRunLog, RunLog, SilentRunLog, finite_or_none
from botformer.training.schedule import Plan, learning_rate, make_plan, peak_learning_rate
from botformer.training.signals import Interrupted, StopRequest, StopRequested, stop_request
from botformer.training.task import Batch, Task, TrainBatches
from botformer.training.trackers import find_trackers
from botformer.training.train_step import StepInfo, StepReport, StepResult, TrainState, Wishes, batch_length

log = logging.getLogger("botformer.training")

_MUCH_OF_THE_START = 0.01
STEPS_LATE = {"cuda": 1}
"""How many steps later losses are read: a GPU is still busy with a step when the next one is launched."""


def fit(
    task: Task,
    train: TrainBatches,
    evaluation: Iterable[Batch],
    recipe: Recipe,
    out: Path,
    resume: Resume = "auto",
    accelerator: Accelerator | None = None,
    loaded: LoadedWeights = RANDOM,
    extend: bool = False,
) -> dict[str, float | None]:
    """Train `task` as `recipe` says and return the metrics of the last evaluation.

    Everything is written to the folder `out`, which is locked meanwhile; with "auto" a run that is there already
    continues from its last checkpoint, with "previous" from the newest one that is intact, and with `extend` its
    schedule may get another length. Under torchrun every process calls this and brings its own part of the batches;
    `out` is one folder that all of them see. `accelerator` is the result of `open_accelerator(recipe.run)`, for callers
    who needed it to make the batches; by default it is opened here. `loaded` says which weights of `task` were loaded
    before; a run that continues remembers that itself.

    Raises `InputError` for settings that make no run, a folder that holds another run or is in use, a damaged
    checkpoint, data that cannot be read, a full disk, and a loss that is not finite; what was trained until then is
    saved wherever that is possible. Raises `Interrupted` when a signal stopped the run, after a checkpoint.
    """
    find_trackers(recipe.run.trackers)
    recipe = with_saved_precision(recipe, out)
    accelerator = accelerator or open_accelerator(recipe.run)
    if recipe.run.precision == "auto":
        recipe = replace(recipe, run=replace(recipe.run, precision=accelerator.precision))
    plan = make_plan(recipe, train.steps_per_epoch)
    if accelerator.is_main_process:
        _say_short_average(recipe.optimizer.ema, plan)
    with _locked(out, accelerator) as lock:
        start, data = find_start(out, recipe, resume, extend), train.data
        loaded = start[1].loaded if start else loaded
        train_state = TrainState(task, recipe, accelerator, loaded)
        if start:
            restore(train_state, out, start, data)
        accelerator.wait_for_everyone()  # all have looked at the folder before the first process changes it
        with _room_explained(train_state):
            run = _Run(train_state, plan, recipe, out, start[1] if start else None, loaded, data, lock)
            try:
                return run.train(train, evaluation)
            finally:
                run.run_log.close()


def _say_short_average(decay: float, plan: Plan) -> None:
    """The average begins at the first weights, and is what is measured, chosen as the best and loaded."""
    of_the_start = decay**plan.last if decay else 0.0
    if of_the_start > _MUCH_OF_THE_START:
        log.warning(
            "with optimizer.ema %g, %.0f %% of the average will be what the training begins with after its %d steps; "
            "take a smaller optimizer.ema, or more epochs",
            decay, 100 * of_the_start, plan.last,
        )  # fmt: skip


@contextmanager
def _room_explained(train_state: TrainState) -> Iterator[None]:
    """A full disk is an `InputError` that says how much a checkpoint needs."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename:
            needed = sum(t.nbytes for tensors in train_state.tensors().values() for t in tensors.values())
            raise no_room(Path(error.filename), needed) from error
        raise


@contextmanager
def _locked(out: Path, accelerator: Accelerator) -> Iterator[RunLock | None]:
    """The first process, which alone writes there, locks the folder for all."""
    with ExitStack() as stack:
        lock, refused = None, None
        if accelerator.is_main_process:
            try:
                lock = stack.enter_context(run_lock(out))
            except InputError as error:
                refused = str(error)
        refused = accelerator.of_main_process(refused)
        if refused:
            raise InputError(refused)
        yield lock


class _Run:
    """One run and where it stands."""

    def __init__(
        self,
        train_state: TrainState,
        plan: Plan,
        recipe: Recipe,
        out: Path,
        resumed: State | None,
        loaded: LoadedWeights,
        data: dict[str, Any],
        lock: RunLock | None,
    ) -> None:
        self.train_state, self.plan, self.recipe, self.out, self.lock = train_state, plan, recipe, out, lock
        self.accelerator = train_state.accelerator
        made_with = versions(self.accelerator.device) | {"first weights": str(loaded)}
        self.state = State(
            step=resumed.step if resumed else 0,
            metrics=resumed.metrics if resumed else {},
            metrics_step=resumed.metrics_step if resumed else 0,
            best_step=resumed.best_step if resumed else 0,
            best_value=resumed.best_value if resumed else None,
            sets=list(train_state.set_names),
            recipe=as_json(recipe),
            versions=made_with,
            model_config=train_state.task.model_config(),
            loaded=loaded,
            data=data,
            processes=self.accelerator.num_processes,
        )
        self.run_log: RunLog = SilentRunLog()
        if self.accelerator.is_main_process:
            self.checkpoints = Checkpoints(out, recipe.run.keep, resumed)
            steps = self.state.step, self.state.metrics_step
            self.run_log = FileRunLog(out, recipe, made_with, plan, *steps, train_state.task.shown)
        self.peak_rate = peak_learning_rate(recipe.optimizer, recipe.run.batch_size)
        if self.peak_rate != recipe.optimizer.learning_rate:
            self.run_log.note(
                f"learning rate {self.peak_rate:g}: {recipe.optimizer.learning_rate:g} is for a batch of "
                f"{recipe.optimizer.reference_batch}, this one has {recipe.run.batch_size}"
            )
        if loaded.names and recipe.optimizer.loaded_rate != 1.0:
            self.run_log.note(
                f"learning rate of the parameters that come from {loaded.source}: {recipe.optimizer.loaded_rate:g} of "
                "that of the new ones, which the log shows"
            )
        if resumed:
            done = " (nothing is left to do)" if resumed.step >= plan.last else ""
            self.run_log.note(f"continuing after step {resumed.step} of {plan.last} from {out}{done}")
            self._say_extended(resumed)
            accumulation = flat(resumed.recipe).get("run.accumulation", 1)
            before = Division(resumed.processes, accumulation)
            now = Division(self.accelerator.num_processes, recipe.run.accumulation)
            if said := division_note(recipe, before, now):
                self.run_log.note(said)
            for name in sorted(made_with.keys() & resumed.versions.keys()):
                if made_with[name] != resumed.versions[name]:
                    self.run_log.note(f"{name} was {resumed.versions[name]}, is now {made_with[name]}")

    def _say_extended(self, resumed: State) -> None:
        before, now = flat(resumed.recipe), flat(self.state.recipe)
        names = [name for name in sorted(LENGTH & before.keys()) if before[name] != now[name]]
        if names:
            changed = ", ".join(f"{name} was {before[name]}, is now {now[name]}" for name in names)
            self.run_log.note(
                f"extended: of another length since step {resumed.step} ({changed}). The learning rate is what the new "
                "schedule has there; a run of this length from the start would have had it all the time"
            )

    def train(self, train: TrainBatches, evaluation: Iterable[Batch]) -> dict[str, float | None]:
        state, plan = self.state, self.plan
        with stop_request() as request:
            try:
                if state.step and plan.evaluates(state.step) and state.metrics_step != state.step:
                    self.evaluate(evaluation, request)  # the run was stopped between this step and its evaluation
                self._train(train, evaluation, request)
            except StopRequested:  # whatever was interrupted, the steps before it are saved
                self.leave(request.signal)
            if request.signal:  # while the last checkpoint was written; what would follow a run is not begun
                self.leave(request.signal)
        return state.metrics

    def _train(self, train: TrainBatches, evaluation: Iterable[Batch], request: StopRequest) -> None:
        state, plan = self.state, self.plan
        running: deque[StepReport] = deque()
        late = STEPS_LATE.get(self.accelerator.device.type, 0)
        batches = BatchesAhead(train, state.step, plan.last, late, request)
        self.clock = self.saved_at = time.monotonic()
        while state.step < plan.last:
            losses, info = self.launch(*batches.take())
            batches.fetch()
            wishes = Wishes(request.signal != 0, batches.failure is not None, self.checkpoint_is_due())
            running.append(StepReport(self.accelerator, info, losses, wishes))
            evaluates, saves = plan.evaluates(state.step), plan.saves(state.step)
            wishes, results = Wishes(), list[StepResult]()
            while len(running) > (0 if saves or any(wishes) else late):
                results.append(running.popleft().read())
                wishes |= results[-1].wishes
            self.settle(results)
            if saves or any(wishes):
                self.save()
            if wishes.stop:
                self.leave(request.signal or signal.SIGTERM)
            if wishes.give_up:
                raise batches.failure or InputError(
                    f"another process of this run cannot read its images; the run was saved after step {state.step}"
                )
            if evaluates:
                self.evaluate(evaluation, request)
            if saves or any(wishes):
                self.clock = time.monotonic()

    def checkpoint_is_due(self) -> bool:
        """By the clock of the first process."""
        seconds = 60 * self.recipe.run.checkpoint_every_minutes
        return self.accelerator.is_main_process and 0 < seconds < time.monotonic() - self.saved_at

    def launch(self, batch: Batch, waited_s: float) -> tuple[dict[str, Tensor], StepInfo]:
        """One step on a batch, for which it has waited. A GPU may still be computing it afterwards."""
        step, recipe, plan = self.state.step, self.recipe, self.plan
        # The first thing done with the batch: fetching it may have left a random state that depends on the workers.
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        seed_all(recipe.run.seed, step, rank)
        places = range(rank, rank + processes * batch_length(batch), processes)  # as the data loader deals them
        batch = {**batch, "seeds": image_seeds(recipe.run.seed, step, places)}
        rate = learning_rate(step, plan.steps, recipe.schedule, plan.steps_per_epoch, self.peak_rate)
        with step_explained(recipe, processes):
            losses = self.train_state.step(batch, rate)
        self.state.step = step + 1
        return losses, StepInfo(
            step=step + 1,
            learning_rate=rate,
            images=recipe.run.batch_size,
            waited_s=waited_s,
            files=[str(file) for file in batch.get("files", [])],
        )

    def settle(self, results: Sequence[StepResult]) -> None:
        """Write steps down once their losses are known. Several at once share the time since those before: each was
        computed while the next was prepared."""
        if not results:
            return
        now = time.monotonic()
        seconds, self.clock = (now - self.clock) / len(results), now
        for result in results:
            self.write_down(result, seconds)

    def write_down(self, result: StepResult, seconds: float) -> None:
        if not result.finite:
            raise loss_error(result, self.plan, self.out, self.accelerator)
        info = result.info
        record = {
            "kind": "train",
            "step": info.step,
            "epoch": self.plan.epoch(info.step),
            "loss": result.loss,
            "lr": info.learning_rate,
            "images_per_s": round(info.images / seconds, 2),
            "waited_s": round(info.waited_s, 4),
            "memory_mb": memory_mb(self.accelerator.device),
        }
        if len(result.losses) > 1:
            assert not result.losses.keys() & record.keys(), f"a loss cannot be called {sorted(result.losses)}"
            record |= result.losses
        self.run_log.train(record, kept=self.plan.records(info.step))

    def evaluate(self, evaluation: Iterable[Batch], request: StopRequest) -> None:
        """Evaluate the weights, and their average if there is one, and add the metrics to the checkpoint, which is
        there already: an evaluation that fails or is interrupted costs no step."""
        train_state, state = self.train_state, self.state
        with request.interrupts():
            metrics = self.metrics_of(train_state.task, evaluation)
            headline = metrics[train_state.task.headline]
            if train_state.averaged_task:
                averaged = self.metrics_of(train_state.averaged_task, evaluation)
                headline = averaged[train_state.task.headline]
                metrics |= {f"ema_{name}": value for name, value in averaged.items()}
        state.metrics, state.metrics_step = finite_or_none(metrics), state.step
        self.run_log.evaluation(
            {"kind": "evaluation", "step": state.step, "epoch": self.plan.epoch(state.step)} | state.metrics
        )
        if math.isfinite(headline) and (state.best_value is None or headline > state.best_value):
            state.best_step, state.best_value = state.step, headline
        self.save()
        self.run_log.draw()

    def metrics_of(self, task: Task, evaluation: Iterable[Batch]) -> dict[str, float]:
        with evaluation_explained(self.recipe):
            return evaluate(task, self.run_log.evaluating(evaluation), self.accelerator).compute()

    def save(self) -> None:
        """Write a checkpoint, or what has become known of the one of this step."""
        self.check_weights()
        refused = None
        if self.lock:
            try:
                is_there = self.lock.check()
                if self.state.best_step and not self.checkpoints.has(self.state.best_step):
                    self.state.best_step, self.state.best_value = 0, None
                self.run_log.sync()
                self.checkpoints.save(self.state, self.train_state.tensors())
                if not is_there:
                    refused = (
                        f"{self.out} was removed or moved while the run wrote into it; a checkpoint of step "
                        f"{self.state.step} is there again, from which the same command continues. The journal of the "
                        "steps until then is where the folder has gone"
                    )
            except InputError as error:
                refused = str(error)
        refused = self.accelerator.of_main_process(refused)
        if refused:
            raise InputError(refused)
        self.saved_at = time.monotonic()

    def check_weights(self) -> None:
        """A gradient can be infinite while the loss is not: such weights are neither evaluated nor saved."""
        if not self.train_state.weights_are_finite():
            raise weights_error(self.state.step, self.plan, self.out)

    def leave(self, number: int) -> NoReturn:
        name, step = signal.Signals(number).name, self.state.step
        saved = f"after step {step} of {self.plan.last}, checkpoint saved" if step else "before the first step"
        self.run_log.note(f"stopped by {name} {saved}; the same command continues")
        raise Interrupted(128 + number)
