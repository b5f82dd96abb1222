import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from botformer.plots.html_report import (
    Bars,
    Card,
    ColourBar,
    Gallery,
    ImageBlock,
    Notice,
    Panels,
    Preformatted,
    Section,
    Table,
    write_report,
)

NASTY = """<script>alert("1 & 2")</script> {curly} 'quoted' äöü"""
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Texts, attributes and elements of a page; fails on an element that is not closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def png(tmp_path) -> Path:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def page(folder: Path, *sections: Section, title: str = "a report") -> Page:
    write_report(folder / "report.html", title, sections)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_all_text_is_escaped_and_read_back_unchanged(tmp_path, png):
    content = [NASTY, ImageBlock(png, NASTY), Table([NASTY], [[NASTY]]), Preformatted(NASTY)]
    found = page(tmp_path, Section(NASTY, content), title=NASTY)
    for tag in ("title", "h1", "h2", "p", "figcaption", "th", "td", "pre"):
        assert found.texts[tag] == [NASTY], tag
    assert found.all("img")[0]["alt"] == NASTY
    assert not found.all("script")


def test_words_of_notices_charts_and_cards_are_escaped_too(tmp_path):
    content = [
        Notice("warning", NASTY, NASTY, NASTY, [NASTY]),
        Bars([NASTY, "b"], [(NASTY, [3, 0.5])]),
        Gallery([Card([], NASTY)]),
    ]
    found = page(tmp_path, Section("one", content))
    for tag in ("p", "pre", "div", "figcaption"):
        assert any(NASTY in text for text in found.texts[tag]), tag
    assert not found.all("script")


def test_bars_are_as_long_as_their_values(tmp_path):
    found = page(tmp_path, Section("one", [Bars(["images"], [("cat", [400]), ("dog", [100]), ("cow", [0])])]))
    widths = [div["style"] for div in found.all("div") if (div.get("class") or "").startswith("bar ")]
    assert widths == ["width:75.00%", "width:18.75%", "width:0.00%"]


def test_a_jpeg_is_said_to_be_one_and_cards_beyond_the_first_are_folded(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(content, "JPEG")
    found = page(tmp_path, Section("one", [Gallery([Card([content.getvalue()], f"{n}") for n in range(5)], shown=2)]))
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert len(found.all("img")) == 5
    assert found.texts["summary"] == ["3 more"]


def test_a_table_without_headings_has_no_empty_row_for_them(tmp_path):
    found = page(tmp_path, Section("one", [Table(("", ""), [("seed", "0")])]))
    assert found.all("th") == []
    assert found.texts["td"] == ["seed", "0"]


def test_images_are_embedded_byte_for_byte(tmp_path, png):
    source = page(tmp_path, Section("images", [ImageBlock(png, "red")])).all("img")[0]["src"]
    assert source is not None
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == png.read_bytes()


def test_nothing_is_loaded_from_elsewhere(tmp_path, png):
    found = page(tmp_path, Section("one", ["text", ImageBlock(png, "red"), Table(["a"], [["b"]])]))
    for tag, attributes in found.elements:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?:", (tmp_path / "report.html").read_text(encoding="utf-8"))
    policies = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policies[0])


def test_the_page_adapts_to_phones_and_dark_mode(tmp_path):
    found = page(tmp_path)
    metas = {meta.get("name"): meta["content"] for meta in found.all("meta") if "content" in meta}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    assert "prefers-color-scheme: dark" in "".join(found.texts["style"])
    assert found.all("html") == [{"lang": "en"}]


def test_only_columns_of_numbers_are_right_aligned(tmp_path):
    table = Table(["name", "top-1", "time"], [["botnet50", "93.4 %", "12 s"], ["resnet50", "-", "−3e-4"]])
    found = page(tmp_path, Section("numbers", [table]))
    assert [cell.get("class") for cell in found.all("td")] == [None, "number", "number"] * 2
    assert [cell.get("class") for cell in found.all("th")] == [None, "number", "number"]


def test_a_row_of_another_length_fails_an_assertion(tmp_path):
    with pytest.raises(AssertionError, match="different numbers of cells"):
        page(tmp_path, Section("numbers", [Table(["a", "b"], [["1"]])]))


def test_a_failed_report_leaves_the_old_one_unchanged(tmp_path):
    page(tmp_path, title="old")
    with pytest.raises(FileNotFoundError):
        page(tmp_path, Section("images", [ImageBlock(tmp_path / "absent.png", "")]), title="new")
    assert "<h1>old</h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_panels_and_their_scale_are_escaped_and_labelled(tmp_path, png):
    tiles = [(png.read_bytes(), f"<head> {number}") for number in range(6)]
    bar = ColourBar(png.read_bytes(), [(0.0, "1 <"), (1.0, "&")], "<times>")
    write_report(tmp_path / "panels.html", "panels", [Section("a", [Panels([("<row>", tiles)], "<all>", [bar])])])
    html = (tmp_path / "panels.html").read_text(encoding="utf-8")
    for words in ("&lt;all&gt;", "&lt;row&gt;", "&lt;head&gt; 5", "&lt;times&gt;", "1 &lt;", "&amp;"):
        assert words in html
    assert html.count("data:image/png") == 7
    assert "--n:4" in html, "four beside each other, the others below"
