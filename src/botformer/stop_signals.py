"""The signals that ask a run to stop: from a terminal, a batch system, a container's host."""

import signal

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)  # Windows has two of them
)
"""Those that are sent ahead of the end (Slurm's --signal, LSF's limits), too."""
