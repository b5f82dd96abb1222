"""Classes whose images would show something else if they were flipped left to right."""

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_TURNS = {"left", "right", "clockwise", "counterclockwise", "anticlockwise"}
_NUMBER = re.compile(r"\d{2,}")


def class_with_sides(names: Sequence[str]) -> str:
    """The first that is one letter or digit, says left or right, or has a counterpart that does. Empty: none.

    Where a name is a number of several digits, numbers are ids, not what is to be seen. One character that is a word,
    as in Chinese, is no letter.
    """
    numbered = any(_NUMBER.fullmatch(name) for name in names)
    known = {name.casefold() for name in names}
    return next((name for name in names if _is_sign(name, numbered) or _says_side(name, known)), "")


def _is_sign(name: str, numbered: bool) -> bool:
    if len(name) != 1:
        return False
    return not numbered if name.isdigit() else unicodedata.category(name) in ("Lu", "Ll")


def _says_side(name: str, known: set[str]) -> bool:
    """`turnleft` where there is `turnright`, so that neither `leftover` nor `copyright` is meant."""
    if _TURNS & {word.lower() for word in _WORD.findall(name)}:
        return True
    folded = name.casefold()
    return any(mirrored != folded and mirrored in known for mirrored in _mirrored(folded))


def _mirrored(name: str) -> tuple[str, str]:
    return name.replace("left", "right"), name.replace("right", "left")
