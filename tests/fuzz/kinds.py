"""What is fuzzed: per kind, how a case is made of valid inputs, and the public code that has to bear it.

A case runs in a folder of its own, which is the working directory. It may end, raise `InputError`, or, for a command,
return 0, 1 or 2; `watched_process` decides what is a find.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import botformer
from botformer.create import create_classification_task
from botformer.data.classification.batches import evaluation_batches, training_batches
from botformer.data.classification.dataset import (
    has_test_split,
    open_classification_dataset,
    open_classification_datasets,
)
from botformer.data.classification.transforms import evaluation_transform, training_transform
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.layouts import (
    format_of,
    has_annotated_test_split,
    has_keypoints,
    has_shapes,
    is_annotated,
    open_detection_datasets,
)
from botformer.data.image_inputs import input_image
from botformer.data.image_io import decode, decode_small, open_image, read_header, upright_size
from botformer.deploy.runtimes import open_exported
from botformer.errors import InputError
from botformer.planning.saved_plan import saved_recipe, tests_at_the_end
from botformer.predict.tar_members import tar_images
from botformer.recipes.from_json import recipe_from_json
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Images
from botformer.seeding import seed_all
from botformer.training.distributed import open_accelerator
from botformer.training.resume import find_start, restore, with_saved_precision
from botformer.training.run_log import read_metrics
from botformer.training.train_step import TrainState
from botformer.weights import read_state_dict
from tests.fuzz.command_lines import run_command_line
from tests.fuzz.mutations import Random, damage_folder, json_text, mutated_bytes, mutated_file, mutated_json
from tests.fuzz.valid_inputs import CLASSES, RECIPE

Case = Callable[[Random, Path], object]
"""Takes the generator and the folder of valid inputs; the working directory is empty."""

SMALL = Images(size=16)


def images(rng: Random, valid: Path) -> None:
    file = rng.choice(sorted((valid / "images").iterdir()))
    other = rng.choice(sorted((valid / "images").iterdir()))
    data = mutated_bytes(rng, file.read_bytes(), other.read_bytes())
    damaged = Path(file.name)
    damaged.write_bytes(data)
    seed_all(rng.randrange(2**31))
    ways: list[Callable[[], object]] = [
        lambda: decode(damaged, file.name, 4),
        lambda: decode(io.BytesIO(data), file.name, 4),
        lambda: read_header(io.BytesIO(data), file.name, 4),
        lambda: decode_small(io.BytesIO(data), file.name, 8, 4),
        lambda: upright_size(damaged),
        lambda: evaluation_transform(SMALL)(open_image(io.BytesIO(data), file.name, 4)),
        lambda: training_transform(SMALL)(open_image(io.BytesIO(data), file.name, 4)),
        lambda: input_image(data, 1, 4).decode(),
        lambda: input_image(damaged, 1, 4).decode(),
    ]
    _each(ways)


def annotations(rng: Random, valid: Path) -> None:
    folder = Path("data")
    shutil.copytree(rng.choice(sorted((valid / "annotations").iterdir())), folder, symlinks=True)
    damage_folder(rng, folder)
    single = [file for file in folder.rglob("*.json") if file.is_file()]
    data = str(rng.choice(single)) if single and rng.random() < 0.2 else str(folder)
    keypoints = rng.random() < 0.3
    options = DetectionImages(size=32, mask_crop=8)

    def whole() -> None:
        train, validation = open_detection_datasets(data, keypoints, rng.choice((0, 1000)))
        for dataset in (train, validation):
            for number in range(min(len(dataset), 20)):
                dataset.image(number)
            has_shapes(dataset)
            has_keypoints(dataset)
            for _ in detection_evaluation_batches(dataset, options, 1, 0):
                pass
        if train.objects:
            next(detection_training_batches(train, options, 1, 0, 0).starting_at(0))

    _each([whole, lambda: is_annotated(data), lambda: format_of(data), lambda: has_annotated_test_split(data)])


def classes(rng: Random, valid: Path) -> None:
    folder = Path("data")
    shutil.copytree(valid / rng.choice(("classes", "shards")), folder, symlinks=True)
    damage_folder(rng, folder)

    def whole() -> None:
        train, validation = open_classification_datasets(str(folder))
        next(training_batches(train, SMALL, 1, 0, 0).starting_at(0))
        for _ in evaluation_batches(validation, SMALL, 4, 0):
            pass

    tars = sorted(folder.rglob("*.tar"))
    _each(
        [
            whole,
            lambda: has_test_split(str(folder)),
            lambda: open_classification_dataset(str(folder), rng.choice(("train", "test", "", "000"))),
            *(lambda tar=tar: [each.image for each in tar_images(tar)] for tar in tars),
        ]
    )


def weights(rng: Random, valid: Path) -> None:
    file = rng.choice([*sorted((valid / "weights").iterdir()), *sorted((valid / "networks").iterdir())])
    damaged = Path(file.name)
    data = file.read_bytes()
    unchanged = rng.random() < 0.1  # a malicious one may be in perfect order
    damaged.write_bytes(data if unchanged else mutated_file(rng, file.name, data))
    _each(
        [
            lambda: read_state_dict(damaged),
            lambda: botformer.load(damaged),
            lambda: botformer.load_weights(botformer.create_model("botnet_nano", num_classes=2), damaged),
        ]
    )


def checkpoints(rng: Random, valid: Path) -> None:
    run = Path("run")
    shutil.copytree(valid / "run", run)
    shutil.rmtree(run / "evaluation")
    damage_folder(rng, run / "checkpoints" if rng.random() < 0.6 else run)

    def resumed() -> None:
        recipe = with_saved_precision(RECIPE, run)
        start = find_start(run, recipe, "auto")
        if start:
            accelerator = open_accelerator(recipe.run)
            state = TrainState(create_classification_task(recipe, list(CLASSES)), recipe, accelerator, start[1].loaded)
            restore(state, run, start, start[1].data)

    rng.choice((resumed, resumed, lambda: botformer.load(run), lambda: botformer.load(run / "last")))()


def recipes(rng: Random, valid: Path) -> None:
    run = Path("run")
    run.mkdir()
    for name in ("recipe.json", "plan.json"):
        shutil.copy(valid / "run" / name, run)
    damage_folder(rng, run)
    kind = rng.choice((ClassificationRecipe, DetectionRecipe))
    content = mutated_json(rng, json.loads(json_text(Random(0), _plain(kind()))))
    ways: list[Callable[[], object]] = [
        lambda: saved_recipe(run, rng.choice(("classify", "detect")), rng.choice((None, 3.0))),
        lambda: tests_at_the_end(run),
        lambda: with_saved_precision(replace(RECIPE, run=replace(RECIPE.run, precision="auto")), run),
    ]
    if isinstance(content, dict):
        ways.append(lambda: recipe_from_json(kind, content))
    _each(ways)


def runs(rng: Random, valid: Path) -> None:
    """What is read of a run besides its checkpoints: the journal, for the report and the model card."""
    from botformer.hub.publish import prepare_folder
    from botformer.report.run_report import write_run_report

    run = Path("run")
    shutil.copytree(valid / "run", run)
    if rng.random() < 0.5:
        journal = run / "metrics.jsonl"
        journal.write_bytes(mutated_file(rng, journal.name, journal.read_bytes()))
    else:
        damage_folder(rng, run)
    data = str(valid / "classes") if rng.random() < 0.3 else ""
    slow = rng.choice((lambda: write_run_report(run, data), lambda: prepare_folder(run, "card", "owner/name")))

    def written() -> None:
        with _system_says():
            slow()

    _each([lambda: read_metrics(run / "metrics.jsonl"), written])


def predictions(rng: Random, valid: Path) -> None:
    """What programs go on with: predictions for annotation programs, stopped predictions, exported networks."""
    from botformer.commands.convert import Arguments, convert
    from botformer.predict.bulk import BulkOptions, predict_files

    kind = rng.choice(("classifier", "detector"))
    folder = Path("predictions")
    shutil.copytree(valid / "predictions" / kind, folder)
    exported = Path("exported")
    shutil.copytree(valid / "exported", exported)
    export = Path("tasks.json")
    label_studio = rng.choice(sorted((valid / "annotations").glob("*/project-1-at*.json")))
    export.write_bytes(mutated_file(rng, export.name, label_studio.read_bytes()))
    damage_folder(rng, folder)
    damage_folder(rng, exported)
    to, shapes = rng.choice(("label_studio", "coco")), rng.choice(("brush", "polygon", "box"))

    def went_on() -> None:
        with _system_says():
            go_on()

    def go_on() -> None:
        network = botformer.predictor(valid / "networks" / f"{kind}.safetensors", "cpu", decoders=1)
        predict_files(network, sorted((valid / "scenes" / "val").glob("*.png")), folder, BulkOptions(draw=0))

    ways: tuple[Callable[[], object], ...] = (
        lambda: convert(Arguments(folder, to, Path("out.json"), shapes=shapes)),
        lambda: convert(Arguments(export, "classes")),
        went_on,
        lambda: open_exported(exported),
    )
    rng.choice(ways)()


def commands(rng: Random, valid: Path) -> int:
    return run_command_line(rng, valid)


KINDS: dict[str, Case] = {
    "images": images,
    "annotations": annotations,
    "classes": classes,
    "weights": weights,
    "checkpoints": checkpoints,
    "recipes": recipes,
    "runs": runs,
    "predictions": predictions,
    "commands": commands,
}


def _each(ways: list[Callable[[], object]]) -> None:
    """All of them, whatever the ones before refused; a refusal at the end where there was one."""
    refused: InputError | None = None
    for way in ways:
        try:
            way()
        except InputError as error:
            refused = error
    if refused:
        assert str(refused).strip(), "a message that says nothing"
        raise refused


@contextmanager
def _system_says() -> Iterator[None]:
    """Where a file cannot be written, the error of the system names it, and the command line says what to do."""
    try:
        yield
    except OSError as error:
        if not error.filename:
            raise
        raise InputError(str(error)) from error


def _plain(recipe: Any) -> Any:
    from botformer.training.resume import as_json

    return as_json(recipe)
