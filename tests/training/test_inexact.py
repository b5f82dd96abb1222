"""Where a divided batch teaches something else than the whole one, and that the notes say so."""

from dataclasses import replace

import pytest
import torch

from botformer.create import create_detection_task
from botformer.create.from_recipe import classification_task
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Images, Model, Optimizer, Run
from botformer.training.distributed import open_accelerator
from botformer.training.inexact import Division, division_note, inexact_reasons
from botformer.training.train_step import TrainState

RUN = Run(batch_size=8, precision="float32", device="cpu")
FROZEN = ClassificationRecipe(
    model=Model("botnet_nano", normalization="frozen", zero_gamma=False),
    optimizer=Optimizer("sgd"),
    run=RUN,
    images=Images(size=32),
)
DETECTOR = DetectionRecipe(
    model=Model("botnet_nano", normalization="sync"), settings=Settings(normalization="sync"), run=RUN
)


def of_model(**options) -> ClassificationRecipe:
    return replace(FROZEN, model=replace(FROZEN.model, **options))


@pytest.mark.parametrize(
    ("recipe", "before", "now", "expected"),
    [
        (of_model(normalization="batch"), (2, 1), (2, 1), []),
        (FROZEN, (1, 1), (4, 2), []),
        (FROZEN, (1, 1), (3, 2), []),
        (of_model(normalization="batch"), (1, 1), (2, 1), ["normalization batch"]),
        (of_model(normalization="batch"), (2, 1), (1, 2), ["normalization batch"]),  # as many, but not the same
        (of_model(normalization="sync"), (1, 1), (3, 1), []),
        (of_model(normalization="sync"), (1, 2), (4, 2), []),
        (of_model(normalization="sync"), (1, 2), (3, 2), ["normalization sync"]),
        (of_model(normalization="sync"), (1, 1), (1, 2), ["normalization sync"]),
        (of_model(dropout=0.1), (1, 1), (2, 1), ["model.dropout"]),
        (of_model(drop_path=0.1), (1, 1), (1, 2), ["model.dropout"]),
        (replace(FROZEN, images=Images(mixup=0.2)), (1, 1), (2, 1), ["images.mixup"]),
        (DETECTOR, (1, 1), (4, 1), []),
        (DETECTOR, (1, 1), (1, 4), ["normalization sync", "losses of boxes"]),
        (replace(DETECTOR, settings=Settings()), (1, 1), (2, 1), ["normalization batch"]),
    ],
)
def test_reasons(recipe, before, now, expected) -> None:
    reasons = inexact_reasons(recipe, Division(*before), Division(*now))
    assert len(reasons) == len(expected)
    assert all(reason.startswith(start) for reason, start in zip(reasons, expected, strict=True))
    note = division_note(recipe, Division(*before), Division(*now))
    assert (note is None) == (before == now)
    assert note is None or all(reason in note for reason in reasons)
    assert note is None or ("but for rounding" in note) == (not reasons)


def weights_after_a_step(task, recipe, batch) -> dict[str, torch.Tensor]:
    TrainState(task, recipe, open_accelerator(recipe.run)).step(batch, 0.05)
    return {name: value for name, value in task.model.state_dict().items() if value.is_floating_point()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("recipe", [FROZEN, of_model(normalization="batch"), of_model(drop_path=0.5)])
@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_classifier_equals_the_large_batch_where_no_reason_is_given(recipe, parts) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    batch = {"images": images, "labels": torch.arange(8) % 3}
    weights = []
    for accumulation in (1, parts):
        torch.manual_seed(0)
        divided = replace(recipe, run=replace(RUN, accumulation=accumulation))
        weights.append(weights_after_a_step(classification_task(divided, ["a", "b", "c"], {}), divided, batch))
    reasons = inexact_reasons(recipe, Division(1, 1), Division(1, parts))
    assert (furthest(*weights) < 1e-6) == (not reasons)


def test_a_detector_is_taught_the_same_in_parts_only_where_they_hold_as_many_objects() -> None:
    """The reason that is given for detectors, seen: batches of two whose images hold as many regions, and others."""
    frozen = replace(
        DETECTOR,
        detector="faster_rcnn",
        model=replace(DETECTOR.model, normalization="frozen"),
        settings=Settings(
            levels=("p3",), fpn_channels=8, anchor_sizes=(16.0,), rpn_pre_nms_top_n=20, rpn_post_nms_top_n=10,
            box_channels=16, rpn_samples=16, roi_samples=8, normalization="frozen",
        ),
        run=replace(RUN, batch_size=2),
    )  # fmt: skip
    pixels = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    objects = {"size": (64, 64), "boxes": torch.tensor([[8.0, 8.0, 28.0, 26.0]]), "labels": torch.tensor([1])}
    none = {"size": (64, 64), "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for second, equal in ((objects, True), (none, False)):
        batch = {"images": pixels.repeat(2, 1, 1, 1), "targets": [objects, second], "seeds": [5, 5]}
        weights = []
        for accumulation in (1, 2):
            torch.manual_seed(0)
            divided = replace(frozen, run=replace(frozen.run, accumulation=accumulation))
            task = create_detection_task(divided, [(1, "thing")])
            weights.append(weights_after_a_step(task, divided, batch))
        assert (furthest(*weights) < 1e-6) == equal
