"""Groups of images that are copies of each other, exact or nearly so, from their hashes; no comparison of all pairs."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from botformer.data.image_facts import Hashes

PERCEPTUAL_BITS, GRADIENT_BITS = 4, 8
"""Of 64, by which the hashes of near copies may differ. Both must agree: either alone takes images of one kind, such as
bottles before the same wall, for copies."""


def exact_groups(hashes: Sequence[Hashes | None]) -> list[list[int]]:
    """Places of the images whose files are equal byte by byte, two or more each; None is no image."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, each in enumerate(hashes):
        if each is not None:
            places[each.content].append(place)
    return [group for group in places.values() if len(group) > 1]


def near_groups(hashes: Sequence[Hashes | None]) -> list[list[int]]:
    """Places of the images that look alike: resized, saved anew, slightly cropped or recoloured. Of files that are
    equal byte by byte only the first is a member. Blank images are left out."""
    first: dict[bytes, int] = {}
    for place, each in enumerate(hashes):
        if each is not None and not each.blank:
            first.setdefault(each.content, place)
    places = np.array(sorted(first.values()), dtype=np.int64)
    known = [hashes[place] for place in places.tolist()]
    perceptual = np.array([each.perceptual for each in known if each], dtype=np.uint64)
    gradient = np.array([each.gradient for each in known if each], dtype=np.uint64)
    pairs = _close_pairs(perceptual, gradient)
    return [places[group].tolist() for group in _connected(pairs, len(places))]


def _close_pairs(perceptual: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """int64 (pairs, 2) of the places in two uint64 (n,) whose hashes are close.

    Hashes that differ in at most k bits agree in at least one of k + 1 bands of bits, so only those within a band's
    bucket are compared: sorted by the band, each with the next, the one after it, and so on to the bucket's end.
    """
    bands = PERCEPTUAL_BITS + 1
    edges = [64 * band // bands for band in range(bands + 1)]
    found = [np.empty((0, 2), dtype=np.int64)]
    for low, high in pairwise(edges):
        band = (perceptual >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.arange(len(order))  # those whose bucket reaches `step` further
        for step in range(1, len(order)):
            starts = starts[starts < len(order) - step]
            starts = starts[band[order[starts]] == band[order[starts + step]]]
            if not len(starts):
                break
            one, other = order[starts], order[starts + step]
            close = np.bitwise_count(perceptual[one] ^ perceptual[other]) <= PERCEPTUAL_BITS
            close &= np.bitwise_count(gradient[one] ^ gradient[other]) <= GRADIENT_BITS
            found.append(np.stack([one[close], other[close]], 1))
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def _connected(pairs: np.ndarray, count: int) -> list[np.ndarray]:
    """The connected parts with two members or more, each in order."""
    from scipy.sparse import coo_array  # what imagehash itself computes with
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    order = np.argsort(part, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(part[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))
