"""Headings, paragraphs, images, tables and commands -> one self-contained HTML file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from botformer.atomic_write import write_text


@dataclass(frozen=True)
class ImageBlock:
    """A PNG file and what it shows."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of cells of text; columns of numbers are right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Preformatted:
    """Commands or output, kept line by line."""

    text: str


@dataclass(frozen=True)
class Section:
    """A heading and its content; a plain string is a paragraph."""

    heading: str
    content: Sequence[str | ImageBlock | Table | Preformatted]


def write_report(out: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a self-contained page in one step. All text is escaped; images are read and put inside."""
    body = "\n".join(_section(section) for section in sections)
    page = _PAGE.format(title=escape(title), style=_STYLE, body=body)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)


def _section(section: Section) -> str:
    parts = "\n".join(_block(block) for block in section.content)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{parts}\n</section>"


def _block(block: str | ImageBlock | Table | Preformatted) -> str:
    match block:
        case str():
            return f"<p>{escape(block)}</p>"
        case ImageBlock():
            return _image(block)
        case Table():
            return _table(block)
        case Preformatted():
            return f'<pre tabindex="0">{escape(block.text)}</pre>'


def _image(image: ImageBlock) -> str:
    data = base64.b64encode(image.path.read_bytes()).decode("ascii")
    caption = escape(image.caption)
    # The scrolling frame keeps the text of a figure readable on a phone; the caption does not scroll.
    return (
        f'<figure>\n<div class="wide" tabindex="0"><img src="data:image/png;base64,{data}" alt="{caption}"></div>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    assert all(len(row) == len(table.header) for row in table.rows), (
        "a row and the header have different numbers of cells"
    )
    numeric = [all(_is_number(row[column]) for row in table.rows) for column in range(len(table.header))]
    lines = [_row("th", table.header, numeric), *(_row("td", row, numeric) for row in table.rows)]
    head, rows = lines[0], "\n".join(lines[1:])
    return (
        f'<div class="wide" tabindex="0"><table>\n<thead>\n{head}\n</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
    )


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
:root { --paper: #fff; --ink: #1f2933; --faint: #5b6670; --rule: #d9dee3; --tint: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --ink: #e4e8ec; --faint: #9aa5b1; --rule: #323b44; --tint: #1e252b; }
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
table { border-collapse: collapse; font-size: .95rem; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--tint); padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; }
pre { font: .88rem/1.5 ui-monospace, monospace; }
@media print { .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } img { min-width: 0; } }
"""
