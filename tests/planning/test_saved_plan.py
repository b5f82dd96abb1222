import json

import pytest

from botformer.errors import InputError
from botformer.planning.saved_plan import PLAN, saved_recipe
from botformer.planning.saved_plan import tests_at_the_end as at_the_end
from botformer.recipes.schema import ClassificationRecipe
from botformer.training.resume import as_json


@pytest.mark.parametrize(("before", "now"), [(True, ("tensorboard",)), (False, ())])
def test_a_plan_of_an_older_version_is_continued(tmp_path, before, now):
    recipe = as_json(ClassificationRecipe())
    del recipe["run"]["trackers"]
    recipe["run"]["tensorboard"] = before
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    (tmp_path / PLAN).write_text(json.dumps({"verb": "classify", "minutes": 5.0, "recipe": recipe}))
    found = saved_recipe(tmp_path, "classify", None)
    assert found is not None
    assert found.run.trackers == now


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "null", "\ufeff{}", "[" * 10**5),
        '{"verb": "classify", "minutes": "5", "recipe": {}}',
        '{"verb": "classify", "minutes": 5, "recipe": []}',
        '{"verb": "classify", "minutes": 5, "recipe": {"run": 1}}',
    ],
)
def test_a_damaged_plan_is_named(tmp_path, content):
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / PLAN).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"plan\.json|of a recipe"):
        saved_recipe(tmp_path, "classify", None)


@pytest.mark.parametrize("content", ["", "[]", "[" * 10**5])
def test_a_plan_that_was_damaged_meanwhile_is_named(tmp_path, content):
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(InputError, match=r"plan\.json"):
        at_the_end(tmp_path)
