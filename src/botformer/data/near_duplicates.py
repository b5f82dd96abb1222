"""Groups of images that are copies of each other, exact or nearly so, from their hashes; no comparison of all pairs."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from botformer.data.image_facts import Hashes

PERCEPTUAL_BITS, GRADIENT_BITS = 4, 8
"""Of 64, by which the hashes of near copies may differ. Both must agree: either alone takes images of one kind, such as
bottles before the same wall, for copies."""


_PAIRS_AT_ONCE = 1_000_000
"""That are kept in memory: a film has millions."""


def are_close(one: Hashes, other: Hashes) -> bool:
    """Whether these two are near copies, and not only linked by others of their group."""
    return (one.perceptual ^ other.perceptual).bit_count() <= PERCEPTUAL_BITS and (
        one.gradient ^ other.gradient
    ).bit_count() <= GRADIENT_BITS


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
    pairs = [(each.perceptual, each.gradient) for place in places.tolist() if (each := hashes[place])]
    # Images of equal hashes are one: thousands of them would be millions of pairs.
    known, of_image = np.unique(np.array(pairs, dtype=np.uint64).reshape(-1, 2), axis=0, return_inverse=True)
    group_of = _group_close(known[:, 0], known[:, 1])[of_image.reshape(-1)]
    order = np.argsort(group_of, kind="stable")
    groups = np.split(places[order], np.flatnonzero(np.diff(group_of[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def _group_close(perceptual: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Two uint64 (n,) -> the group of each place, int64 (n,): those whose hashes are close, and those close to these.

    Hashes that differ in at most k bits agree in at least one of k + 1 bands of bits, so only those within a band's
    bucket are compared: sorted by the band, each with the next, the one after it, and so on to the bucket's end.
    """
    group_of = np.arange(len(perceptual))
    bands = PERCEPTUAL_BITS + 1
    edges = [64 * band // bands for band in range(bands + 1)]
    for low, high in pairwise(edges):
        band = (perceptual >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.arange(len(order))  # those whose bucket reaches `step` further
        found, count = [], 0
        for step in range(1, len(order)):
            starts = starts[starts < len(order) - step]
            starts = starts[band[order[starts]] == band[order[starts + step]]]
            if not len(starts):
                break
            one, other = order[starts], order[starts + step]
            close = np.bitwise_count(perceptual[one] ^ perceptual[other]) <= PERCEPTUAL_BITS
            close &= np.bitwise_count(gradient[one] ^ gradient[other]) <= GRADIENT_BITS
            close &= group_of[one] != group_of[other]
            found.append(np.stack([one[close], other[close]]))
            count += int(close.sum())
            if count > _PAIRS_AT_ONCE:
                group_of, found, count = _joined(group_of, found), [], 0
        group_of = _joined(group_of, found)
    return group_of


def _joined(group_of: np.ndarray, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """The groups (n,) with those joined that pairs of places, each (2, pairs), connect."""
    from scipy.sparse import coo_array  # what imagehash itself computes with
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return group_of
    one, other = group_of[np.concatenate(pairs, 1)]
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(group_of), len(group_of)))
    _, joined = connected_components(graph, directed=False)
    return joined[group_of].astype(np.int64)
