import logging

import pytest
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from botformer.plots import style
from botformer.plots.fonts import UNKNOWN, TextRenderer

NOBODYS = "\U0010fffe"  # Unicode promises that this is no character
WIDE = "mmmmmm"


def characters(font: str) -> set[int]:
    return set(FT2Font(findfont(font)).get_charmap())


def test_a_character_is_drawn_in_another_font_that_has_it(recwarn, tmp_path):
    foreign = chr(min(characters("STIXGeneral") - characters("DejaVu Sans")))
    figure = style.new_figure(1)
    figure.set_layout_engine("none")
    renderer = TextRenderer(figure, [f"a{foreign}"])
    assert renderer.clean(f"a{foreign}", 10) == f"a{foreign}"
    renderer.write((1, 0.5), f"a{foreign}", 10, "black")
    style.save(figure, tmp_path / "text.png")
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


def test_a_character_that_no_font_has_is_replaced_with_one_warning(caplog):
    figure = style.new_figure(1)
    with caplog.at_level(logging.WARNING, "botformer.plots"):
        assert TextRenderer(figure, [f"a{NOBODYS}b"]).clean(f"a{NOBODYS}b", 10) == f"a{UNKNOWN}b"
        assert TextRenderer(figure, [NOBODYS, "other"]).clean(NOBODYS, 10) == UNKNOWN
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ascii(NOBODYS)[1:-1] in caplog.text


@pytest.mark.parametrize(("name", "length", "clean"), [(" a\nb\t c ", 9, "a b c"), ("abcdef", 4, "abc…")])
def test_a_name_is_one_line_of_limited_length(name, length, clean):
    assert TextRenderer(style.new_figure(1), [name]).clean(name, length) == clean


def test_width_is_in_inches_and_grows_with_the_text_and_its_size():
    renderer = TextRenderer(style.new_figure(1), [])
    width = renderer.width(WIDE, 10)
    assert 0.5 < width / (10 / 72 * len(WIDE)) < 1.2  # an m is about as wide as the font is high
    assert renderer.width(WIDE, 20) == pytest.approx(2 * width, rel=0.05)
    assert renderer.width(WIDE + WIDE, 10) == pytest.approx(2 * width, rel=0.05)
