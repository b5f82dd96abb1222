"""Docstrings as the reference shows them: `load` becomes a link where the reference has it, and a literal elsewhere.

So does docs/PAGE.md, to the page."""

import inspect
import re
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference"


def documented() -> list[str]:
    """The full names on the pages of the reference; members of classes stand below their class."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return re.findall(r"^\.\. auto(?:function|class|exception|data):: ([\w.]+)$", pages, re.MULTILINE)


def setup(app):
    fields = {}

    def keep_field(app, what, name, thing, options, lines):
        if what in ("attribute", "data", "property"):
            fields[name] = list(lines)
            lines[:] = ["-"]

    def restore_field(app, what, name, thing, options, lines):
        lines[:] = fields.pop(name, lines)

    # Napoleon, between the two at 500, would take what stands before a colon for the type of a field.
    app.connect("autodoc-process-docstring", keep_field, priority=400)
    app.connect("autodoc-process-docstring", restore_field, priority=600)
    app.connect("autodoc-process-docstring", _link_names, priority=700)
    app.connect("autodoc-process-signature", _hide_signature)
    return {"parallel_read_safe": True}


def _link_names(app, what, name, thing, options, lines):
    full = {form: one for one in documented() for form in (one, one.rpartition(".")[2])}
    own = _parameters(thing)

    def marked(match):
        target = None if match[1] in own else full.get(match[1])
        return f":py:obj:`{match[1]} <{target}>`" if target else f"``{match[1]}``"

    for place, line in enumerate(lines):
        line = re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", marked, line)
        lines[place] = re.sub(r"\bdocs/([\w/]+)\.md\b", r":doc:`/\1`", line)


def _parameters(thing):
    try:
        return set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return set()


def _hide_signature(app, what, name, thing, options, signature, returns):
    # Such a class is given to a program, which does not make one. The fields of a dataclass follow with their defaults.
    return ("", "") if what == "class" and "Args:" not in (thing.__doc__ or "") else None
