"""Random seeds computed from (seed, epoch, sample) or (seed, step, rank), so that no random state has to be saved.

A run therefore depends neither on the number of workers nor on where it was interrupted. What is drawn for one image of
a batch follows from (seed, step, place in the batch), and depends on the number of processes as little.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(*key: int) -> None:
    """Seed Python, NumPy and torch (every device) from a tuple of non-negative integers."""
    torch.manual_seed(_seed_python_and_numpy(key))


def seed_host(*key: int) -> None:
    """As `seed_all`, for work on the CPU: the generators of other devices stay as they are.

    For single samples: seeding every device takes ten times as long as the rest (100 against 11 microseconds), and
    reading a sample in the training process must not disturb the network's dropout.
    """
    torch.default_generator.manual_seed(_seed_python_and_numpy(key))


def image_seeds(seed: int, step: int, places: range) -> list[int]:
    """A seed of its own for whatever is drawn for an image in a step; `places` are in the batch of all processes."""
    return np.random.SeedSequence((seed, step, 0, 1)).generate_state(max(places, default=-1) + 1)[list(places)].tolist()


@contextmanager
def host_state_kept() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's CPU generators on exit."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def _seed_python_and_numpy(key: tuple[int, ...]) -> int:
    """Returns the seed for torch."""
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    return (int(words[2]) << 32) | int(words[3])
