"""Processes of tests, forked from a server that has imported torch once and run nothing.

Threads that torch has started in the tests' own process would not survive a fork of it, and what waits for them waits
for ever.
"""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def start_process(program: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """The server imports the module of the first test's program for all."""
    context = get_context("forkserver")
    context.set_forkserver_preload([program.__module__])
    process = context.Process(target=program, args=arguments)
    process.start()
    return process


def launch(processes: int, program: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """What `torchrun --standalone --nproc-per-node N` does, but forking, because importing torch anew takes long: for
    programs of `start_process`. Returns rank -> what the program returned there."""
    config = LaunchConfig(
        1, 1, processes, max_restarts=0, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork"
    )
    return elastic_launch(config, program)(*arguments)
