"""Names of classes: their order, and which of one list is which of another."""

import difflib
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_LISTED = 10


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """2 before 10, in any case, as timm orders classes; then by the exact name, so that "a" and "A" do not stand as the
    file system happens to have them."""
    # In a text a name may be longer than any folder's, and a number in it longer than Python reads.
    return tuple(sorted(names, key=lambda name: (_natural_key(name[:255]), name)))


def _natural_key(name: str) -> list[str | int]:
    """Text and numbers by turns; of numbers the decimal ones, for ① and ² have digits that are no number."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name.lower()))]


def match_classes(names: Sequence[str], known: Sequence[str], where: str, known_by: str) -> list[int]:
    """The place in `known` of each of `names`, which may be a part of them.

    A name that is not there is looked for regardless of case, of Unicode's composed and decomposed letters, and of
    spaces, hyphens and underscores; it has to be the only one like it on both sides.

    Raises:
        InputError: names that are not among the known ones, with the nearest that are.
    """
    place = {name: index for index, name in enumerate(known)}
    alike: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(known):
        alike[_plain(name)].append(index)
    spelt = [name for name in names if name not in place]
    taken = {place[name] for name in names if name in place}
    for name in spelt:
        candidates = alike[_plain(name)]
        twins = [other for other in spelt if _plain(other) == _plain(name)]
        if len(candidates) == 1 and len(twins) == 1 and candidates[0] not in taken:
            place[name] = candidates[0]
    unknown = [name for name in names if name not in place]
    if unknown:
        raise InputError(
            f"{where} has {len(unknown)} of {len(names)} classes that are not among the {len(known)} of {known_by} "
            f"({and_more(known, 4)}): {and_more([_with_nearest(name, known) for name in unknown], _LISTED)}. Rename or "
            "remove their folders, or give the data whose classes these are"
        )
    if spelt:
        pairs = [f"{name} is {known[place[name]]}" for name in spelt]
        log.warning("%s: %d classes are spelt in another way: %s", where, len(spelt), and_more(pairs, _LISTED))
    found = [place[name] for name in names]
    if absent := sorted(set(range(len(known))) - set(found)):
        log.warning(
            "%s has no images of %d of the %d classes of %s: %s",
            where,
            len(absent),
            len(known),
            known_by,
            and_more([known[index] for index in absent], _LISTED),
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _with_nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"{name} (nearest: {near[0]})" if near else name
