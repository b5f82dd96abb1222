"""Names of what a flip from left to right exchanges: points of objects, and classes whose images would show another."""

import re
import unicodedata
from collections.abc import Sequence

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
# A word of its own (left_eye, "eye left", hand.R), or set off by a capital (leftEye, eyeLeft, LEye).
_SIDE = re.compile(r"(?<![A-Za-z])(left|right|l|r)(?![A-Za-z])", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"^(left|right|l|r|L|R)(?=[A-Z])|(?<![A-Z])(Left|Right)(?![a-z])|(?<=[a-z0-9])(L|R)(?=\d*$)")
# Glued to what follows or precedes it (lefteye, eyeleft), or to both: a partner of that name tells that it is meant.
_GLUED = re.compile(r"^(left|right)|(left|right)$", re.IGNORECASE)
_WITHIN = re.compile(r"left|right", re.IGNORECASE)

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_TURNS = {"left", "right", "clockwise", "counterclockwise", "anticlockwise"}
_NUMBER = re.compile(r"\d{2,}")


def mirrored_names(name: str) -> list[str]:
    """Names in lower case with left for right, and the other way round, that the partner may have; the surest first."""

    def other(match: re.Match[str]) -> str:
        return _SIDES[match[0].lower()]

    found = (pattern.sub(other, name) for pattern in (_SIDE, _CAMEL_CASE, _GLUED, _WITHIN))
    return [each.lower() for each in found if each != name]


def class_with_sides(names: Sequence[str]) -> str:
    """The first that is one letter or digit, says left or right, or has a counterpart among them. Empty: none.

    Where a name is a number of several digits, numbers are ids, not what is to be seen. One character that is a word,
    as in Chinese, is no letter.
    """
    numbered = any(_NUMBER.fullmatch(name) for name in names)
    known = {name.lower() for name in names}
    return next((name for name in names if _is_sign(name, numbered) or _says_side(name, known)), "")


def _is_sign(name: str, numbered: bool) -> bool:
    if len(name) != 1:
        return False
    return not numbered if name.isdigit() else unicodedata.category(name) in ("Lu", "Ll")


def _says_side(name: str, known: set[str]) -> bool:
    """`turnleft` where there is `turnright`, so that neither `leftover` nor `copyright` is meant."""
    words = {word.lower() for word in _WORD.findall(name)}
    return not _TURNS.isdisjoint(words) or not known.isdisjoint(mirrored_names(name))
