import json

import pytest

from botformer.planning.saved_plan import PLAN, saved_recipe
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
