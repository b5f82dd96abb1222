"""What calls brought home, into the repository: receipts and charts into results/, tables into the package.

python -m benchmarks.gpu.collect OUT [OUT ...]    the folders given to --out; then write the pages anew
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu import out_folder, tables
from benchmarks.gpu.runner import ROOT

RESULTS = ROOT / "results"
PAGES = ("benchmarks/results_page.py", "docs/write_tables.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="+")
    for out in parser.parse_args().out:
        for name in collect(out, RESULTS):
            print(name)
    for page in PAGES:
        subprocess.run([sys.executable, page], cwd=ROOT, check=True)


def collect(out: Path, results: Path) -> list[str]:
    """The names of what was taken. Receipts of dry runs, logs and checkpoints stay where they are."""
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder)
        if not out_folder.unpack(out, unpacked):
            raise SystemExit(
                f"{out} has no {out_folder.ZIP}: give a folder that was the --out of python -m benchmarks.gpu"
            )
        receipts = [path for ending in ("json", "png") for path in sorted(unpacked.glob(f"*_gpu.{ending}"))]
        for path in receipts:
            shutil.copyfile(path, results / path.name)
        return [path.name for path in receipts] + tables.install(unpacked)


if __name__ == "__main__":
    main()
