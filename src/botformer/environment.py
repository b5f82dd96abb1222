"""What becomes of memory that a process on the CPU gives back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """From now on keep freed memory in this process instead of returning it to the system; glibc alone can.

    By default every tensor beyond 32 MiB is made of new pages, each of which the system clears at its first touch: with
    large images a fifth of the time of a training step and more (results/cpu_choices.json). The price is memory
    that other processes cannot have meanwhile.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
