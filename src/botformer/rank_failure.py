"""One of several processes fails: its message is what people see, and not the echoes of the others.

The variables are torchrun's: LOCAL_RANK, WORLD_SIZE, and TORCHELASTIC_ERROR_FILE, which it reads once a process has
ended and prints below everything else.
"""

import json
import os
import sys
import time

LOST = 75
"""Exit status of a process that another one's end has ended: EX_TEMPFAIL of sysexits.h, try the same command again."""

PATIENCE_S = 5.0
"""torchrun looks at its processes ten times a second, and ends all others once one has failed."""


def is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def name_of_rank() -> str:
    """'rank 3: ' where there are several processes, else nothing."""
    return f"rank {os.environ.get('RANK', '?')}: " if is_one_of_several() else ""


def let_others_speak(everyone: bool) -> None:
    """Wait to be ended by the launcher; come back if nobody has done so.

    When all processes of a machine fail alike, the first of them speaks for all, so that it does not wait itself unless
    `everyone` does.
    """
    if is_one_of_several() and (everyone or os.environ.get("LOCAL_RANK", "0") != "0"):
        time.sleep(PATIENCE_S)


def tell_launcher(message: str) -> None:
    """`message` is what torchrun prints about this process."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with open(file, "w", encoding="utf-8") as opened:
            json.dump({"message": {"message": message, "extraInfo": extra}}, opened)


def lost_another_process(error: Exception) -> bool:
    """Whether an exchange between processes failed because one at its other end is gone or no longer answers."""
    if not is_one_of_several() or "torch.distributed" not in sys.modules:
        return False
    from torch import distributed

    if isinstance(error, distributed.DistBackendError):  # NCCL; its other errors are this process's own
        return "ncclRemoteError" in str(error) or "remote process exited" in str(error)
    gone = (distributed.DistNetworkError, distributed.DistStoreError)
    # gloo has no type of its own: "[.../gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:14258: Connection ..."
    return isinstance(error, gone) or (type(error) is RuntimeError and "/gloo/" in str(error))


def describe_loss(error: Exception) -> str:
    """One line."""
    first = str(error).strip().partition("\n")[0].rpartition("] ")[2].partition(". This is typically")[0]
    return (
        f"another process of this run has ended or no longer answers ({first[:120]}); the message of the one that "
        "failed first says why"
    )
