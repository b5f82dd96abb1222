"""Training: batch -> losses -> step -> log, and now and then evaluation -> checkpoint."""

import math
import signal
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from botformer.environment import versions
from botformer.recipes.schema import Recipe
from botformer.seeding import image_seeds, seed_all
from botformer.training.checkpoint import Checkpoints, State
from botformer.training.distributed import Accelerator, memory_mb, open_accelerator
from botformer.training.evaluation_loop import evaluate
from botformer.training.loaded_weights import RANDOM, LoadedWeights
from botformer.training.non_finite import loss_error, weights_error
from botformer.training.out_of_memory import out_of_memory_explained
from botformer.training.resume import Resume, as_json, find_start, restore, with_saved_precision
from botformer.training.run_log import FileRunLog, RunLog, SilentRunLog, finite_or_none
from botformer.training.schedule import Plan, learning_rate, make_plan, peak_learning_rate
from botformer.training.signals import Interrupted, StopRequest, stop_request
from botformer.training.task import Batch, Task, TrainBatches
from botformer.training.trackers import find_trackers
from botformer.training.train_step import StepInfo, StepReport, StepResult, TrainState, batch_length

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
) -> dict[str, float | None]:
    """Train `task` as `recipe` says and return the metrics of the last evaluation.

    Everything is written to the folder `out`; with "auto" a run that is there already continues from its last
    checkpoint. Under torchrun every process calls this and brings its own part of the batches; `out` is one folder
    that all of them see. `accelerator` is the result of `open_accelerator(recipe.run)`, for callers who needed it to
    make the batches; by default it is opened here. `loaded` says which weights of `task` were loaded before; a run that
    continues remembers that itself.

    Raises `InputError` for settings that make no run, a folder that holds another run, a broken checkpoint, and a loss
    that is not finite; `Interrupted` when a signal stopped the run, after it has saved a checkpoint.
    """
    find_trackers(recipe.run.trackers)
    recipe = with_saved_precision(recipe, out)
    accelerator = accelerator or open_accelerator(recipe.run)
    if recipe.run.precision == "auto":
        recipe = replace(recipe, run=replace(recipe.run, precision=accelerator.precision))
    plan = make_plan(recipe, train.steps_per_epoch)
    start = find_start(out, recipe, resume)
    loaded = start[1].loaded if start else loaded
    train_state = TrainState(task, recipe, accelerator, loaded)
    if start:
        restore(train_state, out, start)
    accelerator.wait_for_everyone()  # all have looked at the folder before the first process changes it
    run = _Run(train_state, plan, recipe, out, start[1] if start else None, loaded)
    try:
        return run.train(train, evaluation)
    finally:
        run.run_log.close()


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
    ) -> None:
        self.train_state, self.plan, self.recipe, self.out = train_state, plan, recipe, out
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
        )
        self.run_log: RunLog = SilentRunLog()
        if self.accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            self.checkpoints = Checkpoints(out, recipe.run.keep, resumed)
            self.run_log = FileRunLog(out, recipe, made_with, plan, self.state.step, train_state.task.shown)
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
            self.run_log.note(f"continuing after step {resumed.step} of {plan.last} from {out}")
            for name in sorted(made_with.keys() & resumed.versions.keys()):
                if made_with[name] != resumed.versions[name]:
                    self.run_log.note(f"{name} was {resumed.versions[name]}, is now {made_with[name]}")

    def train(self, train: TrainBatches, evaluation: Iterable[Batch]) -> dict[str, float | None]:
        state, plan = self.state, self.plan
        if state.step and plan.evaluates(state.step) and state.metrics_step != state.step:
            self.evaluate(evaluation)  # the run was stopped between this step and its evaluation
            self.save()
            self.run_log.draw()
        running: deque[StepReport] = deque()
        late = STEPS_LATE.get(self.accelerator.device.type, 0)
        with stop_request() as request:
            batches = train.starting_at(state.step)
            self.clock = time.perf_counter()
            while state.step < plan.last:
                asked = time.perf_counter()
                batch = next(batches)
                running.append(self.launch(batch, time.perf_counter() - asked, request))
                evaluates, saves = plan.evaluates(state.step), plan.saves(state.step)
                stop = False
                while len(running) > (0 if evaluates or saves or stop else late):
                    stop |= self.settle(running.popleft().read())
                if stop:
                    self.save()
                    self.leave(request.signal or signal.SIGTERM)
                is_best = evaluates and self.evaluate(evaluation)
                if saves or is_best:
                    self.save()
                if evaluates:
                    self.run_log.draw()
                if evaluates or saves:
                    self.clock = time.perf_counter()
        return state.metrics

    def launch(self, batch: Batch, waited_s: float, request: StopRequest) -> StepReport:
        """One step on a batch, for which it has waited. A GPU may still be computing it afterwards."""
        step, recipe, plan = self.state.step, self.recipe, self.plan
        # The first thing done with the batch: fetching it may have left a random state that depends on the workers.
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        seed_all(recipe.run.seed, step, rank)
        places = range(rank, rank + processes * batch_length(batch), processes)  # as the data loader deals them
        batch = {**batch, "seeds": image_seeds(recipe.run.seed, step, places)}
        rate = learning_rate(step, plan.steps, recipe.schedule, plan.steps_per_epoch, self.peak_rate)
        with out_of_memory_explained(recipe, processes):
            losses = self.train_state.step(batch, rate)
        self.state.step = step + 1
        info = StepInfo(
            step=step + 1,
            learning_rate=rate,
            images=recipe.run.batch_size,
            waited_s=waited_s,
            files=[str(file) for file in batch.get("files", [])],
        )
        return StepReport(self.accelerator, info, losses, stop=request.signal != 0)

    def settle(self, result: StepResult) -> bool:
        """Write a step down once its losses are known. True: somebody asked to stop."""
        if not result.finite:
            raise loss_error(result, self.plan, self.out, self.accelerator)
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
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
        self.run_log.train(record)
        return result.stop

    def evaluate(self, evaluation: Iterable[Batch]) -> bool:
        """Evaluate the weights, and their average if there is one. True: the best so far."""
        self.check_weights()
        train_state, state = self.train_state, self.state
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
        is_best = math.isfinite(headline) and (state.best_value is None or headline > state.best_value)
        if is_best:
            state.best_step, state.best_value = state.step, headline
        return is_best

    def metrics_of(self, task: Task, evaluation: Iterable[Batch]) -> dict[str, float]:
        return evaluate(task, self.run_log.evaluating(evaluation), self.accelerator).compute()

    def save(self) -> None:
        self.check_weights()
        if self.accelerator.is_main_process:
            self.run_log.sync()
            self.checkpoints.save(self.state, self.train_state.tensors())
        self.accelerator.wait_for_everyone()

    def check_weights(self) -> None:
        """A gradient can be infinite while the loss is not: such weights are neither evaluated nor saved."""
        if not self.train_state.weights_are_finite():
            raise weights_error(self.state.step, self.plan, self.out)

    def leave(self, number: int) -> None:
        name = signal.Signals(number).name
        self.run_log.note(
            f"stopped by {name} after step {self.state.step} of {self.plan.last}, checkpoint saved; "
            "the same command continues"
        )
        raise Interrupted(128 + number)
