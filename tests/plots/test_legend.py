import re

import pytest

from botformer.plots import style
from botformer.plots.fonts import TextRenderer
from botformer.plots.legend import Entry, break_lines, write_legend


@pytest.fixture
def renderer() -> TextRenderer:
    return TextRenderer(style.new_figure(4), [])


def test_lines_keep_to_the_width_and_the_order(renderer):
    entries = [Entry(f"category {place}", "red") for place in range(12)]
    lines = break_lines(entries, 4.0, renderer)
    assert [entry for line in lines for _, entry in line] == entries
    assert len(lines) > 1
    write_legend(lines, 0.5, 0.1, renderer)
    for text in renderer.figure.texts:
        assert text.get_window_extent().x1 / renderer.figure.dpi <= 4.5 + 0.01


def test_entries_that_do_not_fit_are_counted(renderer):
    entries = [Entry(f"category {place}", "red") for place in range(200)]
    lines = break_lines(entries, 4.0, renderer)
    said = [entry.text for line in lines for _, entry in line]
    more = re.fullmatch(r"and (\d+) more", said[-1])
    assert more
    assert len(said) - 1 + int(more[1]) == 200
    write_legend(lines, 0, 0, renderer)
    assert renderer.figure.texts[-1].get_window_extent().x1 / renderer.figure.dpi <= 4.0 + 0.01


def test_no_entries_are_no_lines(renderer):
    assert break_lines([], 4.0, renderer) == []
