"""docs/gallery.md is what its table says, and its images are there."""

import ast
import importlib
from pathlib import Path

import pytest
from PIL import Image

from .documentation_script import script_of

ROOT = Path(__file__).parents[2]
GALLERY, IMAGES, PAGE = ROOT / "docs/gallery", ROOT / "docs/images/gallery", ROOT / "docs/gallery.md"


@pytest.fixture(scope="module")
def script():
    return script_of(GALLERY, "draw")


@pytest.fixture(scope="module")
def rows(script):
    return script.ROWS


def test_the_page_is_up_to_date(script):
    assert script.page() == PAGE.read_text(encoding="utf-8"), "run python docs/gallery/draw.py --page"


def test_every_image_is_one_of_the_page_and_small(rows):
    files = [row.file for row in rows]
    assert len(files) == len(set(files)) == 24
    assert {path.name for path in IMAGES.iterdir() if path.suffix != ".txt"} == set(files)
    text = PAGE.read_text(encoding="utf-8")
    for row in rows:
        assert f"![{row.title}](images/gallery/{row.file})" in text
        with Image.open(IMAGES / row.file) as image:
            assert 400 < image.width <= 900
    sizes = [path.stat().st_size for path in IMAGES.iterdir()]
    assert max(sizes) <= 90_000
    assert sum(sizes) <= 1_600_000


def test_the_python_of_the_page_names_what_exists(rows):
    """It is run when the images are drawn; some of it needs runs and data that are not here."""
    checked = 0
    for row in rows:
        if not row.is_python:
            continue
        known = {}
        for node in ast.walk(ast.parse(row.code)):
            if isinstance(node, ast.Import):
                known |= {alias.name: importlib.import_module(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                known |= {alias.name: getattr(module, alias.name) for alias in node.names}
        for node in ast.walk(ast.parse(row.code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
                assert hasattr(known[node.value.id], node.attr), (row.file, node.attr)
                checked += 1
    assert checked >= 20
