"""The pages of docs/ name files, links and decisions that exist."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import botformer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/RESULTS.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "src").rglob("*.md")),
]
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "docs", "benchmarks", "tests", "results")
    for path in (ROOT / folder, *(ROOT / folder).rglob("*"))
    if path.is_dir() or path.suffix in (".py", ".json", ".md", ".png")
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", text_of(page)):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "RESULTS.md"], ids=ids)
def test_files_and_packages_that_a_page_names_exist(page):
    """`rpn.py`, `attention/sdpa.py`, `roi_heads/`: by name or by the end of a path. Receipts quote the past; `run.py`
    is written into exported folders."""
    for name in set(re.findall(r"`([\w/.-]+(?:\.py|/))`", text_of(page))) - {"run.py"}:
        assert any(f"/{file}".endswith(f"/{name.rstrip('/')}") for file in FILES), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_names_of_the_package_that_a_page_mentions_exist(page):
    for name in re.findall(r"`botformer\.([\w.]+)", text_of(page)):
        found = botformer
        for part in name.split("."):
            found = getattr(found, part, None) or import_module(f"{found.__name__}.{part}")


def test_the_figure_of_the_tour_names_files_that_exist():
    script = text_of(DOCS / "images/draw_flow.py")
    names = re.findall(r'"(\w+(?:\.py|/))"', script)
    assert len(names) > 20
    for name in names:
        assert any(f"/{file}".endswith(f"/{name.rstrip('/')}") for file in FILES), name


def test_the_tour_follows_the_numbers_of_its_figure():
    numbers = [int(number) for number in re.findall(r"Part\(axes, (\d+),", text_of(DOCS / "images/draw_flow.py"))]
    steps = [int(number) for number in re.findall(r"^(\d+)\. \*\*", text_of(DOCS / "tour.md"), re.MULTILINE)]
    assert numbers == steps == list(range(1, len(steps) + 1))


def test_the_measured_figures_of_detectors_are_figures_of_receipts():
    measured = [
        value
        for path in (ROOT / "results").glob("*.json")
        for row in _rows(json.loads(path.read_text(encoding="utf-8"))["figures"])
        for value in row.values()
        if isinstance(value, float)
    ]
    printed = re.findall(r"\b0\.\d{3,4}\b", text_of(DOCS / "detection.md").partition("## Measured")[2])
    assert len(printed) >= 10
    for figure in printed:
        assert any(f"{value:.{len(figure) - 2}f}" == figure for value in measured), figure


def _rows(figures):
    return figures if isinstance(figures, list) else [figures]


def test_the_generated_parts_are_up_to_date():
    subprocess.run([sys.executable, "docs/write_tables.py", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem[:4])
def test_a_decision_says_what_why_and_what_would_change_our_mind(page):
    title, *rest = text_of(page).splitlines()
    assert re.fullmatch(rf"# {int(page.name[:4])}\. .+", title)
    parts = re.findall(r"^\*\*(.+?)\.\*\* \S", "\n".join(rest), re.MULTILINE)
    assert parts == ["Decided", "Why", "What would change our mind"]
    assert len(rest) < 30, "one short page"


def test_the_index_lists_every_decision_once():
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", text_of(DOCS / "decisions/README.md"))
    assert listed == [page.name for page in DECISIONS]


def test_the_glossary_defines_each_word_once():
    words = re.findall(r"^\*\*(.+?)\.\*\*", text_of(DOCS / "glossary.md"), re.MULTILINE)
    assert {word.lower() for word in words} >= {
        *("canvas", "journal", "model card", "model config", "position table", "receipt", "roi", "tile", "window"),
    }
    assert words == sorted(set(words), key=str.lower)
