from dataclasses import replace
from pathlib import Path

import pytest

from botformer.errors import InputError
from botformer.recipes.from_json import flat
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.training.checkpoint import Checkpoints, State, write_state
from botformer.training.resume import MAY_DIFFER, as_json, find_start
from tests.training.test_checkpoint import tensors
from tests.training.toy import toy_recipe


def saved(out: Path, recipe: ClassificationRecipe, best_step: int = 0) -> None:
    state = State(4, {}, 0, best_step, 0.5 if best_step else None, ["model", "optimizer"], as_json(recipe), {}, {})
    Checkpoints(out, 2, None).save(state, tensors(4))


def test_empty_or_absent_folder_starts(tmp_path: Path) -> None:
    assert find_start(tmp_path, toy_recipe(), "auto") is None
    assert find_start(tmp_path / "absent", toy_recipe(), "never") is None
    assert not (tmp_path / "absent").exists()


def test_same_recipe_continues_from_the_last_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, toy_recipe())
    start = find_start(tmp_path, toy_recipe(), "auto")
    assert start is not None
    assert start[1].step == 4


def test_fields_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    saved(tmp_path, toy_recipe())
    other = toy_recipe(optimizer={"learning_rate": 0.7}, run={"seed": 3}, schedule={"milestones": (0.5,)})
    with pytest.raises(InputError) as error:
        find_start(tmp_path, other, "auto")
    message = str(error.value)
    assert "optimizer.learning_rate: 0.05 there, 0.7 now" in message
    assert "run.seed: 0 there, 3 now" in message
    assert "schedule.milestones: [0.67, 0.89] there, [0.5] now" in message
    assert "weight_decay" not in message


def test_fields_of_the_machine_may_differ(tmp_path: Path) -> None:
    saved(tmp_path, toy_recipe())
    other = toy_recipe(run={"workers": 5, "max_steps": 9, "keep": 7})
    other = replace(other, model=replace(other.model, backend="tiled"))
    assert find_start(tmp_path, other, "auto") is not None


def test_another_length_is_refused_with_the_way_to_have_it(tmp_path: Path) -> None:
    saved(tmp_path, toy_recipe())
    longer = toy_recipe(schedule={"epochs": 9})
    with pytest.raises(InputError, match=r"schedule\.epochs: 3 there, 9 now.*add --extend"):
        find_start(tmp_path, longer, "auto")
    assert find_start(tmp_path, longer, "auto", extend=True) is not None
    with pytest.raises(InputError, match=r"optimizer\.learning_rate") as error:
        find_start(tmp_path, toy_recipe(schedule={"epochs": 9}, optimizer={"learning_rate": 0.7}), "auto")
    assert "extend" not in str(error.value)


def test_every_field_that_may_differ_exists() -> None:
    classifiers, detectors = (flat(as_json(recipe())).keys() for recipe in (ClassificationRecipe, DetectionRecipe))
    assert MAY_DIFFER - classifiers == {"images.max_bad_records"}
    assert not MAY_DIFFER - detectors


def test_field_newer_than_the_run_counts_as_its_default(tmp_path: Path) -> None:
    recipe = toy_recipe()
    content = as_json(recipe)
    del content["optimizer"]["clip_norm"]
    state = State(4, {}, 0, 0, None, ["model", "optimizer"], content, {}, {})
    Checkpoints(tmp_path, 2, None).save(state, tensors(4))
    assert find_start(tmp_path, recipe, "auto") is not None
    with pytest.raises(InputError, match=r"clip_norm: 0\.0 there, 1\.0 now"):
        find_start(tmp_path, toy_recipe(optimizer={"clip_norm": 1.0}), "auto")


@pytest.mark.parametrize("trace", ["last", "recipe.json", "metrics.jsonl"])
def test_never_refuses_a_folder_with_a_run(tmp_path: Path, trace: str) -> None:
    (tmp_path / trace).write_text("")
    with pytest.raises(InputError, match=f"holds a run already .*{trace}"):
        find_start(tmp_path, toy_recipe(), "never")


def test_a_run_that_was_killed_before_it_wrote_anything_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert find_start(tmp_path, toy_recipe(), "never") is None
    (tmp_path / "checkpoints" / "step-00000001").mkdir()
    with pytest.raises(InputError, match=r"holds a run already \(checkpoints\)"):
        find_start(tmp_path, toy_recipe(), "never")


def test_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        find_start(tmp_path / "out", toy_recipe(), "auto")


def test_best_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    saved(tmp_path, toy_recipe(), best_step=4)
    start = find_start(tmp_path, toy_recipe(), "auto")
    assert start is not None
    assert start[1].best_step == 4
    other = tmp_path / "other"
    content = as_json(toy_recipe())
    Checkpoints(other, 2, None).save(State(4, {}, 0, 0, None, ["model", "optimizer"], content, {}, {}), tensors(4))
    folder = other / "checkpoints" / "step-00000004"
    write_state(folder, State(4, {}, 0, 2, 0.5, ["model", "optimizer"], content, {}, {}))
    start = find_start(other, toy_recipe(), "auto")
    assert start is not None
    assert (start[1].best_step, start[1].best_value) == (0, None)
