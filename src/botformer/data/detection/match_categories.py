"""The categories of one data set in terms of another's, or of a trained detector's."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from botformer.data.detection.dataset import Category, DetectionDataset, make_dataset
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_LISTED = 12
"""Categories that a message names."""


def match_categories(dataset: DetectionDataset, known: Sequence[tuple[int, str]], owner: str) -> DetectionDataset:
    """The dataset with labels that are places in `known`, from 1, and as many categories in the same order.

    Categories match by id and name, or by a name that stands once on either side, capitals aside: formats number them
    differently. The dataset may have fewer; it keeps its ids, and what it lacks gets the id it is known by, or a free
    one. `owner` is whose categories these are, for messages.

    Raises:
        InputError: a category of the dataset that is not known, or that might be several.
    """
    if [tuple(category) for category in dataset.categories] == [tuple(category) for category in known]:
        return dataset
    places = category_places(dataset.categories, known, dataset.where, owner)
    relabelled = [
        replace(image, annotations=tuple(replace(each, label=places[each.label - 1] + 1) for each in image.annotations))
        for image in map(dataset.image, range(len(dataset)))
    ]
    matched = make_dataset(
        dataset.where, dataset.folder, dataset.categories, relabelled, dataset.problems, dataset.layout
    )
    return replace(matched, categories=_with_ids_of(dataset.categories, known, places))


def category_places(
    categories: Sequence[Category], known: Sequence[tuple[int, str]], where: str, owner: str
) -> list[int]:
    """For each category its place in `known`, from 0. Raises as `match_categories`."""
    places = [_place(category, categories, known) for category in categories]
    found = [place for place in places if place is not None]
    if len(found) < len(places):
        there = [(category.id, category.name) for category in categories]
        raise InputError(
            f"{owner} knows {len(known)} categories ({_listed(known, there)}), {where} has {len(there)} "
            f"({_listed(there, known)}); each of the latter must be one of the former, by its name where that is "
            "unique, else by id and name: rename it in the annotations (in COCO's, 'categories' and the category_id of "
            "what belongs to them), or use a detector trained on them"
        )
    by_name = [
        f"{category.name} ({category.id}) is {known[place][1]} ({known[place][0]})"
        for category, place in zip(categories, found, strict=True)
        if tuple(category) != tuple(known[place])
    ]
    if by_name:
        log.warning("%s: categories matched by name with those of %s: %s", where, owner, and_more(by_name, _LISTED))
    if len(categories) < len(known):
        log.info("%s lists %d of the %d categories of %s", where, len(categories), len(known), owner)
    return found


def _place(category: Category, categories: Sequence[Category], known: Sequence[tuple[int, str]]) -> int | None:
    if tuple(category) in map(tuple, known):
        return [tuple(each) for each in known].index(tuple(category))
    for reading in (str, lambda name: name.strip().casefold()):
        there, ours = ([reading(name) for _, name in side] for side in (categories, known))
        name = reading(category.name)
        if there.count(name) == ours.count(name) == 1:
            return ours.index(name)
    return None


def _with_ids_of(
    categories: Sequence[Category], known: Sequence[tuple[int, str]], places: Sequence[int]
) -> tuple[Category, ...]:
    ids = dict(zip(places, (category.id for category in categories), strict=True))
    taken = set(ids.values())
    for place, (number, _) in enumerate(known):
        if place not in ids:
            ids[place] = number if number not in taken else max(taken) + 1
            taken.add(ids[place])
    assert max(Counter(ids.values()).values()) == 1
    return tuple(Category(ids[place], name) for place, (_, name) in enumerate(known))


def _listed(categories: Sequence[tuple[int, str]], others: Sequence[tuple[int, str]]) -> str:
    """What the others lack comes first."""
    ordered = sorted(map(tuple, categories), key=lambda category: category in [tuple(other) for other in others])
    return and_more([f"{number} {name}" for number, name in ordered], _LISTED)
