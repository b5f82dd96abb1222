"""Classifiers for a set of images, by rule."""

from dataclasses import replace

import pytest

from botformer.backbone.flops import count
from botformer.backbone.variants import ROWS
from botformer.planning.classification_candidates import batch_size, classification_candidates
from botformer.planning.look_at_data import ImageFacts
from botformer.recipes.schema import ClassificationRecipe

PHOTOS = ImageFacts(classes=10, images=3_000, most=320, fewest=280, shorter_px=375, long=0.02, has_sides="")


def everywhere(name):
    return True


def nowhere(name):
    return False


def recipes(facts, pretrained=everywhere, **asked):
    return [candidate.recipe for candidate in classification_candidates(facts, pretrained, **asked)]


def test_real_weights_are_taken_where_there_are_any():
    assert {recipe.model.weights for recipe in recipes(PHOTOS)} == {"imagenet"}
    half = recipes(PHOTOS, lambda name: name.endswith("_half"))
    assert half
    assert all(recipe.model.name.endswith("_half") for recipe in half)
    assert {recipe.model.weights for recipe in recipes(PHOTOS, nowhere)} == {""}
    assert min(r.optimizer.learning_rate for r in recipes(PHOTOS, nowhere)) > max(
        r.optimizer.learning_rate * r.optimizer.loaded_rate for r in recipes(PHOTOS)
    )


@pytest.mark.parametrize("pretrained", [everywhere, nowhere])
@pytest.mark.parametrize("shorter_px", [0, 20, 100, 375, 4_000])
def test_candidates_differ_and_cost_less_and_less(pretrained, shorter_px):
    candidates = classification_candidates(replace(PHOTOS, shorter_px=shorter_px), pretrained)
    needs = [
        candidate.images * count(ROWS[candidate.recipe.model.name], candidate.recipe.images.size).multiply_adds
        for candidate in candidates
    ]
    assert needs == sorted(needs, reverse=True)
    assert len({candidate.recipe for candidate in candidates}) == len(candidates) > 0
    for candidate in candidates:
        assert isinstance(candidate.recipe, ClassificationRecipe)
        assert candidate.recipe.model.name in ROWS
        assert candidate.recipe.images.size % 16 == 0


@pytest.mark.parametrize("pretrained", [everywhere, nowhere])
def test_what_looks_otherwise_in_a_mirror_is_not_flipped(pretrained):
    assert all(recipe.images.hflip for recipe in recipes(PHOTOS, pretrained))
    assert not any(recipe.images.hflip for recipe in recipes(replace(PHOTOS, has_sides="b"), pretrained))


def test_images_are_not_enlarged_without_need():
    assert max(recipe.images.size for recipe in recipes(replace(PHOTOS, shorter_px=100))) == 128
    assert {recipe.images.size for recipe in recipes(replace(PHOTOS, shorter_px=28))} == {96}
    assert {recipe.images.size for recipe in recipes(replace(PHOTOS, shorter_px=28), nowhere)} == {32}


def test_long_images_are_letterboxed():
    assert {recipe.images.fit for recipe in recipes(PHOTOS)} == {"crop"}
    assert {recipe.images.fit for recipe in recipes(replace(PHOTOS, long=0.5))} == {"letterbox"}


def test_classes_far_from_equal_are_balanced():
    assert {recipe.images.balance for recipe in recipes(PHOTOS)} == {0.0}
    assert all(recipe.images.balance > 0 for recipe in recipes(replace(PHOTOS, most=2_000, fewest=50)))


@pytest.mark.parametrize(
    ("images", "expected"), [(2, 2), (7, 7), (18, 8), (40, 8), (70, 16), (127, 16), (128, 32), (100_000, 32)]
)
def test_a_small_set_gives_several_batches_per_epoch(images, expected):
    assert batch_size(images) == expected


def test_what_is_asked_for_is_kept():
    (only,) = recipes(PHOTOS, model="botnet_t3", size=192)
    assert (only.model.name, only.images.size) == ("botnet_t3", 192)
    assert {recipe.model.name for recipe in recipes(PHOTOS, nowhere, model="botnet_nano")} == {"botnet_nano"}
    assert {recipe.images.size for recipe in recipes(PHOTOS, size=100)} == {100}


def test_few_images_are_seen_more_often_and_many_less_often():
    """A pass over 20 images teaches less than one over 3,000, one over a million more."""
    last = {
        images: classification_candidates(replace(PHOTOS, images=images), everywhere)[0].images
        for images in (20, 3_000, 1_000_000)
    }
    assert last[20] > 20 * last[3_000] / 3_000
    assert last[1_000_000] < 1_000_000
