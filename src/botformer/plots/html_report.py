"""Headings, paragraphs, images, tables, notices and commands -> one self-contained HTML file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from botformer.atomic_write import write_text


@dataclass(frozen=True)
class ImageBlock:
    """A PNG or JPEG file and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of cells of text; columns of numbers are right-aligned. A header of empty cells is left out."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Preformatted:
    """Commands or output, kept line by line."""

    text: str


@dataclass(frozen=True)
class Card:
    """Small JPEG images side by side, and what they show below them."""

    jpegs: Sequence[bytes]
    caption: str
    tone: Literal["", "good", "bad"] = ""


@dataclass(frozen=True)
class Gallery:
    """Cards in as many columns as fit; those beyond the first `shown` are folded away."""

    cards: Sequence[Card]
    shown: int = 12


@dataclass(frozen=True)
class Bars:
    """A horizontal bar per label, of one value per series: fractions of the largest one. All values at least 0."""

    series: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]


@dataclass(frozen=True)
class ColourBar:
    """What the colours of panels mean."""

    png: bytes
    """The colours from left to right."""
    ticks: Sequence[tuple[float, str]]
    """Places from 0 to 1, and what stands there."""
    words: str


@dataclass(frozen=True)
class Panels:
    """Images to be compared, in labelled rows, each with a few words below it."""

    rows: Sequence[tuple[str, Sequence[tuple[bytes, str]]]]
    """The label of a row (none where it is empty); JPEG or PNG files and their words."""
    caption: str
    bars: Sequence[ColourBar] = ()


@dataclass(frozen=True)
class Notice:
    """Something found: how bad it is, what it is, what to do, and the command that does it."""

    level: Literal["error", "warning", "note"]
    text: str
    fix: str = ""
    command: str = ""
    listed: Sequence[str] = field(default=())
    """Lines that are folded away."""


Block = str | ImageBlock | Table | Preformatted | Gallery | Bars | Panels | Notice
"""A plain string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    heading: str
    content: Sequence[Block]


_PANEL_COLUMNS = 4


def write_report(out: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a self-contained page in one step. All text is escaped; images are read and put inside."""
    body = "\n".join(_section(section) for section in sections)
    page = _PAGE.format(title=escape(title), style=_STYLE, body=body)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)


def _section(section: Section) -> str:
    parts = "\n".join(_block(block) for block in section.content)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{parts}\n</section>"


def _block(block: Block) -> str:
    match block:
        case str():
            return f"<p>{escape(block)}</p>"
        case ImageBlock():
            return _image(block)
        case Table():
            return _table(block)
        case Preformatted():
            return _preformatted(block.text)
        case Gallery():
            return _gallery(block)
        case Bars():
            return _bars(block)
        case Panels():
            return _panels(block)
        case Notice():
            return _notice(block)


def _preformatted(text: str) -> str:
    return f'<pre tabindex="0">{escape(text)}</pre>'


def _data(content: bytes) -> str:
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _gallery(gallery: Gallery) -> str:
    cards = [_card(card) for card in gallery.cards]
    first, rest = cards[: gallery.shown], cards[gallery.shown :]
    folded = f"<details>\n<summary>{len(rest)} more</summary>\n{_grid(rest)}\n</details>" if rest else ""
    return _grid(first) + folded


def _grid(cards: Sequence[str]) -> str:
    return '<div class="gallery">\n' + "\n".join(cards) + "\n</div>"


def _card(card: Card) -> str:
    caption = escape(card.caption)
    images = "".join(f'<img src="{_data(jpeg)}" alt="{caption}">' for jpeg in card.jpegs)
    several = " several" if len(card.jpegs) > 1 else ""
    tone = f" {card.tone}" if card.tone else ""
    return f'<figure class="card{several}{tone}"><div>{images}</div><figcaption>{caption}</figcaption></figure>'


def _bars(bars: Bars) -> str:
    most = max((value for _, values in bars.rows for value in values), default=0) or 1
    marks = [f'<span class="key s{place % 3}">{escape(name)}</span>' for place, name in enumerate(bars.series)]
    legend = f'<p class="keys">{" ".join(marks)}</p>\n' if len(bars.series) > 1 else ""
    rows = []
    for label, values in bars.rows:
        lines = "".join(
            f'<div class="line"><div class="bar s{place % 3}" style="width:{75 * value / most:.2f}%"></div>'
            f"<span>{value:,.10g}</span></div>"
            for place, value in enumerate(values)
        )
        rows.append(f'<div class="label">{escape(label)}</div><div class="lines">{lines}</div>')
    return legend + '<div class="bars">\n' + "\n".join(rows) + "\n</div>"


def _panels(panels: Panels) -> str:
    columns = min(max((len(tiles) for _, tiles in panels.rows), default=1), _PANEL_COLUMNS)
    rows = []
    for label, tiles in panels.rows:
        head = f'<p class="row">{escape(label)}</p>\n' if label else ""
        figures = "".join(
            f'<figure><img src="{_data(image)}" alt="{escape(f"{label}, {words}" if label else words)}">'
            f"<figcaption>{escape(words)}</figcaption></figure>"
            for image, words in tiles
        )
        rows.append(f'{head}<div class="panels" style="--n:{columns}">{figures}</div>')
    bars = "\n".join(map(_colour_bar, panels.bars))
    grid = "\n".join(rows)
    caption = f'<p class="what-is-seen">{escape(panels.caption)}</p>\n' if panels.caption else ""
    return f"{caption}{bars}\n{grid}"


def _colour_bar(bar: ColourBar) -> str:
    ticks = "".join(
        f'<i style="left:{100 * place:.2f}%;transform:translateX({-100 * place:.2f}%)">{escape(words)}</i>'
        for place, words in bar.ticks
    )
    return (
        f'<div class="scale"><span>{escape(bar.words)}</span>'
        f'<div><img src="{_data(bar.png)}" alt="">{ticks}</div></div>'
    )


def _notice(notice: Notice) -> str:
    fix = f"<p>{escape(notice.fix)}</p>" if notice.fix else ""
    command = _preformatted(notice.command) if notice.command else ""
    lines = escape("\n".join(notice.listed))
    listed = f'<details>\n<summary>which</summary>\n<pre tabindex="0">{lines}</pre>\n</details>' if lines else ""
    return (
        f'<div class="notice {notice.level}">\n<p class="what"><b>{notice.level}</b> {escape(notice.text)}</p>\n'
        f"{fix}{command}{listed}\n</div>"
    )


def _image(image: ImageBlock) -> str:
    source = _data(image.path.read_bytes())
    caption = escape(image.caption)
    # The scrolling frame keeps the text of a figure readable on a phone; the caption does not scroll.
    return (
        f'<figure>\n<div class="wide" tabindex="0"><img src="{source}" alt="{caption}"></div>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    assert all(len(row) == len(table.header) for row in table.rows), (
        "a row and the header have different numbers of cells"
    )
    numeric = [all(_is_number(row[column]) for row in table.rows) for column in range(len(table.header))]
    head = f"<thead>\n{_row('th', table.header, numeric)}\n</thead>\n" if any(table.header) else ""
    rows = "\n".join(_row("td", row, numeric) for row in table.rows)
    return f'<div class="wide" tabindex="0"><table>\n{head}<tbody>\n{rows}\n</tbody>\n</table></div>'


def _row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    marks = (' class="number"' if is_number else "" for is_number in numeric)
    return "<tr>" + "".join(
        f"<{tag}{scope}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
    ) + "</tr>"  # fmt: skip


def _is_number(cell: str) -> bool:
    """Starts like a number, or is a placeholder for one: 93.4 %, 1,024, -3e-4, 12 s."""
    return cell in ("", "-", "\N{EN DASH}") or cell.lstrip("+-\N{MINUS SIGN}.")[:1].isdigit()


# The policy makes the browser refuse to load anything, which guarantees that the page is self-contained.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

_STYLE = """\
:root { --paper: #fff; --ink: #1f2933; --faint: #5b6670; --rule: #d9dee3; --tint: #f4f6f8;
  --bad: #b3401a; --warn: #8a5a00; --good: #00664a; --s0: #0072b2; --s1: #e69f00; --s2: #009e73; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --ink: #e4e8ec; --faint: #9aa5b1; --rule: #323b44; --tint: #1e252b;
    --bad: #ff8a65; --warn: #f0b840; --good: #4fd0a5; --s0: #4fa8dd; --s1: #e0a030; --s2: #3fbf95; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.5rem; overflow-wrap: break-word; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
p { max-width: 42rem; overflow-wrap: break-word; }
figure { margin: 1.25rem 0; }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .4rem; max-width: 42rem; }
.wide { overflow-x: auto; }
img { display: block; width: 100%; min-width: 34rem; height: auto; background: #fff; border-radius: 4px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .75rem; }
.gallery { margin: 1rem 0; align-items: start; }
.card { margin: 0; padding: .4rem; background: var(--tint); border-radius: 4px; border-top: 3px solid transparent; }
.card.several { grid-column: span 2; }
.card.good { border-top-color: var(--good); }
.card.bad { border-top-color: var(--bad); }
.card div { display: flex; gap: .3rem; align-items: flex-start; }
.card img { min-width: 0; flex: 1 1 0; object-fit: contain; max-height: 14rem; background: none; border-radius: 2px; }
.card figcaption { font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
@media (max-width: 26rem) { .gallery { grid-template-columns: 1fr 1fr; } }
.bars { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .45rem .9rem; font-size: .95rem; }
.bars { margin: 1rem 0; align-items: center; }
.label { overflow-wrap: anywhere; }
.line { display: flex; align-items: center; gap: .5rem; line-height: 1.25; }
.line span { font-size: .85rem; color: var(--faint); font-variant-numeric: tabular-nums; }
.bar { height: .7rem; min-width: 1px; border-radius: 2px; }
.bar.s0, .key.s0::before { background: var(--s0); }
.bar.s1, .key.s1::before { background: var(--s1); }
.bar.s2, .key.s2::before { background: var(--s2); }
.key { margin-right: 1rem; white-space: nowrap; font-size: .9rem; }
.key::before { content: ""; display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; }
.key::before { margin-right: .4rem; }
.what-is-seen { margin: 1rem 0 .6rem; }
.row { font-size: .9rem; font-weight: 600; margin: 1.1rem 0 .35rem; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(var(--n), minmax(0, 14rem)); gap: .5rem; margin-bottom: .8rem; }
.panels figure { margin: 0; }
.panels img { min-width: 0; max-height: 30rem; object-fit: contain; object-position: left; background: none; }
.panels figcaption { font-size: .8rem; line-height: 1.3; margin-top: .25rem; }
.scale { display: flex; flex-wrap: wrap; align-items: start; gap: .3rem 1.4rem; margin: .6rem 0 2rem; }
.scale { font-size: .85rem; color: var(--faint); }
.scale > span { flex: 0 1 19rem; line-height: 1.35; }
.scale div { position: relative; flex: 0 1 18rem; min-width: 12rem; margin-top: .2rem; }
.scale img { min-width: 0; height: .8rem; border-radius: 2px; }
.scale i { position: absolute; top: 1rem; font-style: normal; white-space: nowrap; }
.notice { border-left: 4px solid var(--rule); padding: .1rem 0 .1rem .9rem; margin: 1.4rem 0 .8rem; }
.notice p { margin: .3rem 0; }
.notice b { text-transform: uppercase; font-size: .75rem; letter-spacing: .05em; margin-right: .5rem; }
.notice.error { border-color: var(--bad); }
.notice.error b { color: var(--bad); }
.notice.warning { border-color: var(--warn); }
.notice.warning b { color: var(--warn); }
.notice.note b { color: var(--faint); }
.what { font-weight: 600; }
.what b { font-weight: 700; }
summary { cursor: pointer; color: var(--faint); font-size: .9rem; margin: .4rem 0; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--tint); padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; }
pre { font: .88rem/1.5 ui-monospace, monospace; }
@media print { .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } img { min-width: 0; } }
"""
