"""How long training takes on many processes, from what one process measures: a model of a step, and its check.

python benchmarks/scaling.py measure [--rounds 2]    writes results/scaling_cpu.json

`measure` times the parts (a step alone, all-reduces, reading images, writing a checkpoint), predicts runs of 1, 2 and 4
processes with the functions below, and times those runs. docs/scaling.md has the recipes of the paper by the same
functions.

A step is data parallel: every process computes its images, and the gradients are averaged by a ring all-reduce. With n
processes each sends and receives 2 (n-1) / n of the bytes, in 2 (n-1) turns.
"""

import argparse
from dataclasses import dataclass
from math import ceil
from pathlib import Path

BUCKET_BYTES = 25 * 2**20
"""Most gradients that DistributedDataParallel exchanges at once."""
BACKWARD = 2 / 3
"""Fraction of a step's time that is its backward pass: it has two products for each of the forward pass."""


@dataclass(frozen=True)
class Link:
    """What connects the processes."""

    bytes_per_s: float
    """Of one process, in each direction."""
    latency_s: float = 0.0
    """Of one turn of the ring."""


@dataclass(frozen=True)
class Step:
    """Where the time of one optimiser step goes, in seconds."""

    compute_s: float
    all_reduce_s: float
    """What the backward pass does not hide."""
    loader_s: float
    """Reading the images."""
    prefetched: bool = True
    """Whether other cores read the next images meanwhile."""

    @property
    def seconds(self) -> float:
        trained = self.compute_s + self.all_reduce_s
        return max(trained, self.loader_s) if self.prefetched else trained + self.loader_s

    @property
    def bottleneck(self) -> str:
        if self.loader_s >= self.compute_s + self.all_reduce_s:
            return "loader"
        return "all-reduce" if self.all_reduce_s > self.compute_s else "compute"


def gradient_bytes(parameters: int, bytes_per_value: int = 4) -> int:
    """What a process has to average per step. `parameters`: those that are trained. float32 as trained here; bfloat16
    has 2 bytes."""
    return bytes_per_value * parameters


def checkpoint_bytes(parameters: int, values: int, moments: int, average: bool) -> int:
    """Of the tensors of a checkpoint.

    Args:
        parameters: those that are trained.
        values: of the network's state dict, the statistics of BatchNorm included.
        moments: what the optimiser keeps per parameter: 1 with SGD's momentum, 2 with AdamW.
        average: whether the run keeps a moving average of the weights, a state dict of its own.
    """
    return 4 * (values * (2 if average else 1) + parameters * moments)


def buckets(gradients: int) -> int:
    """All-reduces per step."""
    return max(1, ceil(gradients / BUCKET_BYTES))


def all_reduce_s(size: float, processes: int, link: Link, messages: int = 1) -> float:
    """A ring all-reduce of `size` bytes, in `messages` parts one after the other. 0 for one process."""
    turns = 2 * (processes - 1)
    return turns / processes * size / link.bytes_per_s + turns * link.latency_s * messages


def exposed_s(gradients: int, processes: int, link: Link, backward_s: float) -> float:
    """What is left of the all-reduce after a backward pass that hides as much as it can.

    The last bucket is complete when the backward pass ends, so its exchange cannot be hidden.
    """
    whole = all_reduce_s(gradients, processes, link, buckets(gradients))
    last = all_reduce_s(min(gradients, BUCKET_BYTES), processes, link)
    return max(whole - backward_s, last)


def step_on_gpus(
    pass_s: float, images: int, passes: int, gradients: int, gpus: int, link: Link, loader_per_s: float
) -> Step:
    """A step of `passes` forward and backward passes of `images` images per GPU.

    Args:
        pass_s: one pass, as measured on one GPU.
        gradients: bytes; they are exchanged once per step, during the last pass.
        loader_per_s: images per second of all cores of one GPU together.
    """
    return Step(
        compute_s=passes * pass_s,
        all_reduce_s=exposed_s(gradients, gpus, link, BACKWARD * pass_s),
        loader_s=passes * images / loader_per_s,
    )


def step_on_cores(
    compute_s: float, loader_s: float, gradients: int, processes: int, cores: int, link: Link, messages: int
) -> Step:
    """A step of single-threaded processes that read their images themselves.

    More processes than cores take turns. Exchanging is work of the same cores, so that none of it is hidden.

    Args:
        compute_s, loader_s: of as many processes side by side as there are cores, or all if they are fewer: what they
            share (memory, caches, heat) is in these figures.
        link: as measured with so many processes on these cores.
        messages: small all-reduces and broadcasts per step, besides the gradients.
    """
    turns = max(1.0, processes / cores)
    return Step(
        compute_s=turns * compute_s,
        all_reduce_s=all_reduce_s(gradients, processes, link, buckets(gradients) + messages),
        loader_s=turns * loader_s,
        prefetched=False,
    )


def run_s(step: Step, steps: int, checkpoints: int, checkpoint_s: float) -> float:
    """Seconds of `steps` steps and of `checkpoints`, for which all processes wait."""
    return steps * step.seconds + checkpoints * checkpoint_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measure = commands.add_parser("measure", help="time the parts and whole runs on this machine's cores")
    measure.add_argument("--rounds", type=int, default=2, help="everything so many times; figures are medians")
    measure.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/scaling_cpu.json")
    given = parser.parse_args()
    from scaling_measure import write_measurement  # it imports torch

    print(write_measurement(given.out, given.rounds))


if __name__ == "__main__":
    main()
