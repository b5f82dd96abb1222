"""Before a run of several processes starts: all of them were given the same."""

from collections import defaultdict
from collections.abc import Mapping

from accelerate.utils import gather_object

from botformer.errors import InputError
from botformer.text import and_more
from botformer.training.distributed import Accelerator

_SHOWN = 5
"""Differences, and processes per value."""


def check_same_everywhere(accelerator: Accelerator, facts: Mapping[str, str]) -> None:
    """Compare `facts`, name -> what a person can read, over all processes; every process has to call this.

    A long fact is a count and a hash. Processes that differ would train on without a word: each on classes or images
    of its own, from steps of its own, or waiting for one another in the middle.

    Raises:
        InputError: in every process, the same: what differs, and what each process has.
    """
    if accelerator.num_processes == 1:
        return
    everyone: list[Mapping[str, str]] = gather_object([dict(facts)])
    names = dict.fromkeys(name for given in everyone for name in given)
    differences = []
    for name in names:
        ranks: dict[str, list[int]] = defaultdict(list)
        for rank, given in enumerate(everyone):
            ranks[given.get(name, "nothing")].append(rank)
        if len(ranks) > 1:
            values = [f"{value} on rank {and_more(of_value, _SHOWN)}" for value, of_value in ranks.items()]
            differences.append(f"{name}: {and_more(values, _SHOWN, '; ')}")
    if differences:
        raise InputError(
            f"the {accelerator.num_processes} processes of this run were not given the same. "
            f"{and_more(differences, _SHOWN, '. ')}. Start all of them with the same command, and with --data and "
            "--out that hold the same on every machine"
        )
