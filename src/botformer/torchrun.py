"""`python -m botformer.torchrun ...`: torchrun, and the exit status of the rank that failed first.

torchrun itself ends with status 1 whatever its processes said, under a trace of its own. A cluster has to know more:
bad input (2) fails again, the end of a machine (75) or a signal (128 + its number) is a reason to start once more.
"""

import os
import sys

from botformer.rank_failure import LOST


def main(arguments: list[str]) -> int:
    # Otherwise processes that start anew may meet addresses of the attempt before in the store that they share:
    # torchrun counts attempts on each machine by itself (pytorch issue 135712).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousConnectionError

    parsed = run.parse_args(arguments)
    try:
        run.run(parsed)
    except ChildFailedError as error:
        print(error.format_msg(), file=sys.stderr)
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    except SignalException as error:
        print(f"torchrun: stopped by {error.sigval.name}", file=sys.stderr)
        return 128 + error.sigval
    except (RendezvousClosedError, RendezvousConnectionError) as error:
        print(f"torchrun: the other machines have ended, or are not there ({error})", file=sys.stderr)
        return LOST
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
