"""Kill training runs at random moments, restart them, and compare the end with that of an undisturbed run.

python benchmarks/kills.py [--kills 100] [--in-a-write 20] [--seed 0] [--only classification ...]

Rows: our two tasks as `botformer train` runs them, and one small network with our loop, with accelerate's `save_state`
and `load_state`, and with `save` and `load` of Lightning Fabric (where lightning-fabric is installed; the project
needs it for nothing else). The peers' loops are as their documentation has them: accelerate keeps the latest two
checkpoints by automatic naming, Fabric overwrites one file. Where a peer's load fails, its loop does what a person
would do next: remove that checkpoint and take the one before, or begin anew. Writes results/kills_cpu.json.
"""

import argparse
import hashlib
import importlib.util
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from botformer.benchmark.receipt import write_receipt
from botformer.training.loop import fit
from tests.training.killed_runs import JOBS, Outcome, Program, bits, run_and_kill, unfinished
from tests.training.toy import ToyBatches, toy_batch, toy_evaluation, toy_recipe, toy_task

RESULTS = Path(__file__).parents[1] / "results"
STEPS, SAVE_EVERY = 200, 2
SAVING, FAILED, END = "saving", "failed-loads", "end.safetensors"
"""Files of a peer's run: there while it saves; a byte for each load that failed; weights and optimiser at the end."""
NOTES = (
    "kills: SIGKILLs, each followed by a restart. in a write: those that came while a checkpoint was written. failed "
    "loads: restarts whose load raised an error. same bits: of the runs that came to their end, how many had the "
    "weights and the optimiser (ours: also the average, the metrics and the journal) of an undisturbed run."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="per row")
    parser.add_argument("--in-a-write", type=int, default=20, help="at least so many of them inside a write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--out", type=Path, default=RESULTS / "kills_cpu.json")
    given = parser.parse_args()
    with ThreadPoolExecutor(len(given.only)) as side_by_side:  # runs are processes of their own
        rows = list(side_by_side.map(lambda name: row_of(name, given.kills, given.in_a_write, given.seed), given.only))
    command = shlex.join(["python", "benchmarks/kills.py", *sys.argv[1:]])
    title = "Training runs that are killed and restarted"
    print(write_receipt(given.out, title, command, rows, given.seed, NOTES))


def row_of(name: str, kills: int, in_a_write: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        outcome = ROWS[name](Path(folder), kills, in_a_write, seed)
    for difference in outcome.differences:
        print(f"{name}: {difference}", file=sys.stderr)
    row = {
        "run": name,
        "kills": outcome.kills,
        "in a write": outcome.in_a_write,
        "failed loads": outcome.restarts_that_failed,
        "runs": outcome.runs,
        "same bits": outcome.same,
    }
    print(row, flush=True)
    return row


def our_task(name: str) -> Callable[[Path, int, int, int], Outcome]:
    def row(folder: Path, kills: int, in_a_write: int, seed: int) -> Outcome:
        write, program = JOBS[name]
        write(folder / "data")
        return run_and_kill(program, folder / "data", folder, kills, in_a_write, seed, bits, unfinished)

    return row


def ours_small(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    run = {"checkpoint_every_steps": SAVE_EVERY, "evaluate_every": STEPS}
    recipe = toy_recipe(schedule={"epochs": STEPS // 4}, run=run)
    fit(toy_task("convolutional"), ToyBatches(), toy_evaluation(), recipe, out)


def small(folder: Path, kills: int, in_a_write: int, seed: int) -> Outcome:
    return run_and_kill(ours_small, folder, folder, kills, in_a_write, seed, bits, unfinished)


# Peers


def peer(program: Program) -> Callable[[Path, int, int, int], Outcome]:
    def row(folder: Path, kills: int, in_a_write: int, seed: int) -> Outcome:
        outcome = run_and_kill(program, folder, folder, kills, in_a_write, seed, end_of, saving)
        failed = [path.stat().st_size for path in folder.glob(f"*/{FAILED}")]
        outcome.restarts_that_failed += sum(failed)
        return outcome

    return row


def end_of(out: Path) -> object:
    return hashlib.sha256((out / END).read_bytes()).hexdigest()


def saving(out: Path) -> set[str]:
    return {SAVING} if (out / SAVING).exists() else set()


@contextmanager
def said_to_save(out: Path) -> Iterator[None]:
    (out / SAVING).touch()
    yield
    (out / SAVING).unlink()


def failed_load(out: Path) -> None:
    with (out / FAILED).open("ab") as file:
        file.write(b".")


def write_end(out: Path, task: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {f"{place}.{name}": value for place, memory in optimizer.state_dict()["state"].items()
             for name, value in memory.items() if isinstance(value, torch.Tensor)}  # fmt: skip
    weights = {name: tensor.contiguous().clone() for name, tensor in task.state_dict().items()}
    save_file(weights | {name: value.contiguous().clone() for name, value in state.items()}, out / END)


def with_accelerate(data: Path, out: Path) -> None:
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    torch.set_num_threads(1)
    out.mkdir(exist_ok=True)
    (out / SAVING).unlink(missing_ok=True)
    progress = Progress()
    project = ProjectConfiguration(project_dir=str(out), automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(cpu=True, project_config=project)
    task: Any = toy_task("convolutional")
    model, optimizer = accelerator.prepare(task, torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9))
    accelerator.register_for_checkpointing(progress)
    folders = sorted((out / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
    while folders:
        try:
            accelerator.load_state(str(folders[-1]))
            project.iteration = int(folders[-1].name.split("_")[1]) + 1
            break
        except Exception:
            failed_load(out)
            shutil.rmtree(folders.pop())
    if not folders:
        task.load_state_dict(toy_task("convolutional").state_dict())
        progress.step = 0
    while progress.step < STEPS:
        torch.manual_seed(progress.step)
        loss = sum(model(toy_batch(progress.step)).values())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        if progress.step % SAVE_EVERY == 0:
            with said_to_save(out):
                accelerator.save_state()
    write_end(out, task, optimizer)


class Progress:
    """What accelerate saves along."""

    step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def with_fabric(data: Path, out: Path) -> None:
    from lightning_fabric import Fabric  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    out.mkdir(exist_ok=True)
    (out / SAVING).unlink(missing_ok=True)
    fabric = Fabric(accelerator="cpu", devices=1)
    task: Any = toy_task("convolutional")
    model, optimizer = fabric.setup(task, torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9))
    state = {"model": model, "optimizer": optimizer, "step": 0}
    file = out / "last.ckpt"
    if file.exists():
        try:
            fabric.load(file, state)
        except Exception:
            failed_load(out)
            file.unlink()
            task.load_state_dict(toy_task("convolutional").state_dict())
            state["step"] = 0
    while state["step"] < STEPS:
        torch.manual_seed(state["step"])
        fabric.backward(sum(model(toy_batch(state["step"])).values()))
        optimizer.step()
        optimizer.zero_grad()
        state["step"] += 1
        if state["step"] % SAVE_EVERY == 0:
            with said_to_save(out):
                fabric.save(file, state)
    write_end(out, task, optimizer)


ROWS = {
    "botformer, classification": our_task("classification"),
    "botformer, detection": our_task("detection"),
    "botformer, small network": small,
    "accelerate, small network": peer(with_accelerate),
}
if importlib.util.find_spec("lightning_fabric"):
    ROWS["Lightning Fabric, small network"] = peer(with_fabric)


if __name__ == "__main__":
    main()
