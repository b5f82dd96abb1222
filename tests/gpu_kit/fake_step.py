"""A step for the tests of the runner: does what its first argument says."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WHAT, RESULTS = sys.argv[1], Path(sys.argv[sys.argv.index("--results") + 1])


def main() -> int:
    runs = RESULTS / f"{WHAT}.runs"
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    count = len(runs.read_text())
    if WHAT == "fails":
        print("the reason", file=sys.stderr)
        return 3
    if WHAT == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if WHAT == "hangs":  # deaf to SIGTERM, with a child that is as well
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (RESULTS / "child").write_text(str(child.pid))
        time.sleep(600)
    if WHAT == "waits":
        time.sleep(600)
    return 75 if WHAT == "three_times" and count < 3 else 0


if __name__ == "__main__":
    sys.exit(main())
