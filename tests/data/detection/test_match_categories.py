from pathlib import Path

import pytest

from botformer.data.detection.coco_reader import coco_annotations, coco_dataset
from botformer.data.detection.match_categories import match_categories
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, content, image

KNOWN = [(0, "cat"), (3, "dog"), (7, "Bird")]


def dataset(*categories: tuple[int, str]):
    """An object of each category, in their order."""
    found = [annotation(n, 1, [n, 1, 5, 5], category_id=number) for n, (number, _) in enumerate(categories)]
    records = [{"id": number, "name": name} for number, name in categories]
    return coco_dataset(content([image(1)], found, records), "here", Path())


def labels(categories, known=KNOWN):
    """Name of each object -> the name that its label has among the known."""
    matched = match_categories(dataset(*categories), known, "there")
    assert [category.name for category in matched.categories] == [name for _, name in known]
    (found,) = [each.annotations for each in (matched.image(0),)]
    # Written out again, the category is that of the file.
    again = [record["category_id"] for record in coco_annotations(matched.image(0), matched.categories)]
    assert again == [number for number, _ in categories]
    assert len({category.id for category in matched.categories}) == len(known)
    return [known[each.label - 1][1] for each in found]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        (KNOWN, ["cat", "dog", "Bird"]),
        ([(3, "dog")], ["dog"]),
        ([(0, "cat"), (7, "Bird")], ["cat", "Bird"]),
        ([(1, "cat"), (2, "dog")], ["cat", "dog"]),  # from 1, not from 0
        ([(0, "dog"), (1, "cat"), (2, "Bird")], ["dog", "cat", "Bird"]),  # sorted otherwise
        ([(0, "dog")], ["dog"]),  # an id that is another's there
        ([(5, " bird"), (6, "DOG")], ["Bird", "dog"]),
    ],
)
def test_a_subset_matches_by_name_whatever_its_ids(categories, expected):
    assert labels(categories) == expected


def test_names_that_stand_twice_need_their_ids():
    twice = [(1, "cell"), (2, "cell"), (3, "dog")]
    assert labels([(2, "cell")], twice) == ["cell"]
    matched = match_categories(dataset((2, "cell")), twice, "there")
    assert matched.image(0).annotations[0].label == 2
    for categories in ([(4, "cell")], [(2, "cell"), (4, "cell")]):
        with pytest.raises(InputError, match="by its name where that is unique, else by id and name"):
            match_categories(dataset(*categories), twice, "there")
    with pytest.raises(InputError, match="by its name where that is unique"):
        match_categories(dataset((1, "dog"), (2, "DOG ")), KNOWN[:1] + [(9, "Dog")], "there")


@pytest.mark.parametrize("categories", [[(0, "horse")], [(0, "cat"), (9, "horse")]])
def test_what_is_not_known_is_named(categories):
    with pytest.raises(InputError, match=r"there knows 3 categories \(.*\), here has \d \(\d horse"):
        match_categories(dataset(*categories), KNOWN, "there")


def test_the_same_categories_leave_the_data_set_as_it_is():
    same = dataset(*KNOWN)
    assert match_categories(same, KNOWN, "there") is same
