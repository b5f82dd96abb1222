"""docs/maths.md: its Python runs, its formulas are drawn, and its figures are made by their scripts."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.contracts.test_readme import python_blocks

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
PAGES = [ROOT / f"docs/{name}.md" for name in ("maths", "which_blocks", "paper")]
SCRIPTS = {"draw_offsets": ["offsets"], "draw_table_sizes": ["table_sizes"], "draw_folding": ["folding", "pooling"]}


def test_the_python_runs_and_folds_exactly():
    (block,) = python_blocks(ROOT / "docs/maths.md")
    names: dict = {}
    exec(block, names)
    assert names["after"].shape == (1, 8, 3, 4)
    assert names["difference"] < 1e-14


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_file()], ids=lambda page: page.stem)
def test_formulas_are_ones_that_the_site_can_draw(page):
    latex2mathml = pytest.importorskip("docutils.utils.math.latex2mathml")
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = re.findall(r"^\$\$\n(.*?)\n\$\$$", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", text)
    assert page.stem != "maths" or (len(blocks) > 5 and len(inline) > 20)
    for formula in blocks + inline:
        assert latex2mathml.tex2mathml(formula).startswith("<math"), formula


def test_sizes_and_costs_are_counted():
    text = (ROOT / "docs/maths.md").read_text(encoding="utf-8")
    positions, channels, heads = 64 * 64, 512, 4
    product = positions**2 * channels
    assert f"{product / 1e9:.2f}e9" in text
    assert f"{product / 4 / 1e9:.2f}e9" in text
    width = channels // heads
    position_term = heads * positions * width * (2 * 64 - 1 + 2 * 64 - 1)
    assert f"{position_term / (heads * positions**2 * width):.0%}".replace("%", " %") in " ".join(text.split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_draws_its_figures(script, tmp_path):
    copy = shutil.copy(IMAGES / f"{script}.py", tmp_path)
    runpy.run_path(str(copy), run_name="__main__")
    for name in SCRIPTS[script]:
        committed = IMAGES / f"{name}.png"
        assert committed.stat().st_size < 150_000
        assert f"](images/{name}.png)" in (ROOT / "docs/maths.md").read_text(encoding="utf-8")
        with Image.open(committed) as ours, Image.open(tmp_path / f"{name}.png") as drawn:
            assert ours.size == drawn.size
