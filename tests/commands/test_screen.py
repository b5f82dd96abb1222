"""Names from users on a terminal."""

import pytest
from rich.cells import cell_len

from botformer.commands.screen import shorten_middle


def test_a_name_that_fits_stays_as_it_is():
    assert shorten_middle("scan_0012.png", 13) == "scan_0012.png"


@pytest.mark.parametrize("width", [24, 25, 40])
@pytest.mark.parametrize("name", ["a" * 100 + "b" * 100, "人" * 60, "größe " * 20])
def test_the_middle_of_a_long_name_is_left_out(name, width):
    short = shorten_middle(name, width)
    assert width - 2 <= cell_len(short) <= width  # a wide character may not fit into the last column
    beginning, end = short.split("…")
    assert name.startswith(beginning)
    assert name.endswith(end)
    assert cell_len(end) > cell_len(beginning) > width // 4
