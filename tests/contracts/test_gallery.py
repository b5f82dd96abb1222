"""docs/gallery.md is what its table says, and its pictures are there."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
GALLERY, PICTURES, PAGE = ROOT / "docs/gallery", ROOT / "docs/images/gallery", ROOT / "docs/gallery.md"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(GALLERY))
    try:
        return importlib.import_module("draw")
    finally:
        sys.path.remove(str(GALLERY))


@pytest.fixture(scope="module")
def rows(script):
    return script.ROWS


def test_the_page_is_up_to_date(script):
    assert script.page() == PAGE.read_text(encoding="utf-8"), "run python docs/gallery/draw.py --page"


def test_every_picture_is_one_of_the_page_and_small(rows):
    files = [row.file for row in rows]
    assert len(files) == len(set(files)) == 24
    assert {path.name for path in PICTURES.iterdir() if path.suffix != ".txt"} == set(files)
    text = PAGE.read_text(encoding="utf-8")
    for row in rows:
        assert f"![{row.title}](images/gallery/{row.file})" in text
        with Image.open(PICTURES / row.file) as image:
            assert 400 < image.width <= 900
    sizes = [path.stat().st_size for path in PICTURES.iterdir()]
    assert max(sizes) <= 90_000
    assert sum(sizes) <= 1_600_000


def test_the_python_of_the_page_names_what_exists(rows):
    """It is run when the pictures are drawn; some of it needs runs and data that are not here."""
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
