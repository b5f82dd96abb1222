"""docs/gallery.md and its images.

python docs/gallery/draw.py --data DIR --photos RUN --demo DIR [FILE ...]    # run the lines, draw, write the page
python docs/gallery/draw.py --page                                           # the page alone
python docs/gallery/draw.py --check                                          # fail if the page is not up to date

DIR of --data has dsb2018/ (COCO: the 2018 Data Science Bowl's nuclei, CC0) and photos/ (TrashNet in class folders,
MIT). RUN was trained and DIR of --demo was made by the commands that the page shows for them, which take minutes. FILE,
such as heads.jpg, draws that one alone.
"""

import argparse
import contextlib
import os
import shlex
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from prepare import prepare
from rows import ROWS, SECTIONS, Row
from sheet import save

from botformer import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE, IMAGES = ROOT / "docs/gallery.md", ROOT / "docs/images/gallery"

_HEAD = """# Gallery

Images and the lines that make them: `python docs/gallery/draw.py` runs these very lines and writes this page.
`nuclei` comes with the package ([what it was trained on](../src/botformer/weights/shipped/nuclei.md)). `runs/photos`
was trained by the command shown for it, on two busy cores without a GPU, and `runs/digits` is the classifier of
`botformer demo`: they show what the lines do, not how good a network can be. No image was in
the training of the network that looks at it, but `cells.png`, which was in that of `nuclei`.
"""
_FOOT = """## Whose images these are

* Nuclei: BBBC038, the 2018 Data Science Bowl, Broad Bioimage Benchmark Collection
  ([Caicedo et al. 2019](https://bbbc.broadinstitute.org/BBBC038)), CC0; `cells.png` is
  [in the package](../src/botformer/data/synthetic/bbbc038/PROVENANCE.md).
* Waste: TrashNet, copyright 2017 Gary Thung, [MIT licence](images/gallery/LICENSE.trashnet.txt).
* Digits: handwriting of MNIST (Y. LeCun, C. Cortes, C. Burges) on crops of photographs, recoloured: brick, chelsea and
  coffee of scikit-image (CC0), china of scikit-learn (danielbuechele, CC BY 2.0).
"""


def page() -> str:
    parts = [_HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f"## {section}\n")
        parts += [_written(row) for row in rows]
    return "\n".join([*parts, _FOOT])


def _written(row: Row) -> str:
    code = f"```python\n{row.code}\n```" if row.is_python else "\n".join(f"    {line}" for line in row.lines)
    return f"### {row.title}\n\n{row.sentence}\n\n{code}\n\n![{row.title}](images/gallery/{row.file})\n"


def run(row: Row) -> dict:
    """The lines of a row, in the current folder; returns the names that Python leaves behind."""
    names: dict = {}
    if row.is_python:
        exec(row.code, names)
    elif not row.by_hand:
        for line in row.lines:
            status = cli.main(shlex.split(line)[1:])
            assert not status, (line, status)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "photos", "demo", "work"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args()
    if given.check:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE} is not up to date; run python docs/gallery/draw.py --page")
        return
    PAGE.write_text(page(), encoding="utf-8")
    if given.page:
        return
    with contextlib.ExitStack() as stack:
        work = given.work or Path(stack.enter_context(TemporaryDirectory()))
        prepare(work, *(each.resolve() for each in (given.data, given.photos, given.demo)))
        IMAGES.mkdir(parents=True, exist_ok=True)
        os.chdir(work)
        for row in ROWS:
            if not given.files or row.file in given.files:
                started = time.perf_counter()
                save(row.draw(run(row)), IMAGES / row.file)
                size = (IMAGES / row.file).stat().st_size / 1000
                print(f"{row.file}: {size:.0f} kB, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
