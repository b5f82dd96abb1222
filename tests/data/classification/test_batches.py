import gc
import logging
import multiprocessing
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from botformer.data.classification.batches import Batch, evaluation_batches, training_batches
from botformer.data.classification.dataset import ClassificationDataset, open_classification_dataset
from botformer.errors import InputError
from botformer.recipes.schema import Images
from tests.data.classification.folders import write_folder

AUGMENTED = Images(size=8, rand_augment_layers=2)
PLAIN = Images(size=8, augmentation="none", evaluation_crop=1.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ClassificationDataset:
    """23 images of 8x8 pixels."""
    return open_classification_dataset(
        str(write_folder(tmp_path_factory.mktemp("set"), {"cat": 9, "dog": 7, "emu": 7}, size=(8, 8)))
    )


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(islice(batches, count))


def assert_same(first: Iterable[Batch], second: Iterable[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["labels"], other["labels"])
        assert one["files"] == other["files"]


def joined(parts: Iterable[Batch]) -> Batch:
    parts = list(parts)
    return Batch(
        images=torch.cat([part["images"] for part in parts]),
        labels=torch.cat([part["labels"] for part in parts]),
        files=[name for part in parts for name in part["files"]],
    )


def file_pixels(dataset: ClassificationDataset, name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(Path(dataset.where) / name))).permute(2, 0, 1)


# Order and content


def test_a_batch_holds_the_pixels_and_labels_of_its_files(dataset: ClassificationDataset) -> None:
    for batches in (
        training_batches(dataset, PLAIN, 5, seed=0, workers=0).starting_at(0),
        evaluation_batches(dataset, PLAIN, 5, workers=0),
    ):
        batch = next(iter(batches))
        assert batch["images"].dtype == torch.uint8
        assert batch["labels"].dtype == torch.int64
        assert batch["images"].is_contiguous(memory_format=torch.channels_last)
        for image, label, name in zip(batch["images"], batch["labels"], batch["files"], strict=True):
            assert torch.equal(image, file_pixels(dataset, name))
            assert dataset.class_names[int(label)] == name.split("/")[0]


def test_an_epoch_shows_no_image_twice_and_the_next_one_is_shuffled_anew(dataset: ClassificationDataset) -> None:
    batches = training_batches(dataset, PLAIN, 5, seed=0, workers=0)
    assert batches.steps_per_epoch == 4
    taken = take(batches.starting_at(0), 8)
    epochs = [joined(taken[:4])["files"], joined(taken[4:])["files"]]
    assert [len(set(epoch)) for epoch in epochs] == [20, 20]
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_other_seeds_give_other_orders_and_other_epochs_other_pixels(dataset: ClassificationDataset) -> None:
    first = next(training_batches(dataset, AUGMENTED, 5, seed=0, workers=0).starting_at(0))
    other = next(training_batches(dataset, AUGMENTED, 5, seed=1, workers=0).starting_at(0))
    assert first["files"] != other["files"]
    batches = take(training_batches(dataset, AUGMENTED, 23, seed=0, workers=0).starting_at(0), 2)
    pixels = [dict(zip(batch["files"], batch["images"], strict=True)) for batch in batches]
    changed = [not torch.equal(pixels[0][name], pixels[1][name]) for name in pixels[0]]
    assert sum(changed) >= 20


def test_evaluation_gives_every_image_once_in_order_and_may_be_repeated(dataset: ClassificationDataset) -> None:
    batches = evaluation_batches(dataset, PLAIN, 5, workers=0)
    for _ in range(2):
        parts = list(batches)
        assert [len(part["files"]) for part in parts] == [5, 5, 5, 5, 3]
        assert len(batches) == 5
        assert joined(parts)["files"] == [dataset.name(index) for index in range(23)]


def test_an_evaluation_of_fewer_images_is_evenly_spread_over_all(dataset: ClassificationDataset) -> None:
    few = evaluation_batches(dataset, PLAIN, 5, workers=0, at_most=6)
    assert joined(few)["files"] == [dataset.name(index) for index in (0, 3, 7, 11, 15, 19)]
    assert len(joined(evaluation_batches(dataset, PLAIN, 5, workers=0, at_most=99))["files"]) == 23
    halves = [evaluation_batches(dataset, PLAIN, 5, 0, rank, 2, at_most=6) for rank in range(2)]
    assert sorted(joined([joined(half) for half in halves])["files"]) == sorted(joined(few)["files"])


def test_rare_classes_are_drawn_more_often_by_the_power_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"common": 64, "rare": 4}, size=(8, 8))
    unequal = open_classification_dataset(str(folder))
    for balance, expected in ((0.0, 4 / 68), (0.5, 4 * 4**-0.5 / (64 * 64**-0.5 + 4 * 4**-0.5)), (1.0, 0.5)):
        images = Images(size=8, augmentation="none", balance=balance)
        epochs = take(training_batches(unequal, images, 68, seed=0, workers=0).starting_at(0), 20)
        drawn = [float((batch["labels"] == 1).float().mean()) for batch in epochs]
        assert np.mean(drawn) == pytest.approx(expected, abs=0.01)
        again = next(training_batches(unequal, images, 68, seed=0, workers=0).starting_at(7))
        assert again["files"] == epochs[7]["files"]


# What the pixels do not depend on


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_a_bit(dataset: ClassificationDataset, workers: int) -> None:
    alone = training_batches(dataset, AUGMENTED, 5, seed=3, workers=0).starting_at(0)
    by_workers = training_batches(dataset, AUGMENTED, 5, seed=3, workers=workers).starting_at(0)
    assert_same(take(alone, 9), take(by_workers, 9))
    assert_same(
        evaluation_batches(dataset, PLAIN, 5, workers=0), evaluation_batches(dataset, PLAIN, 5, workers=workers)
    )


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_resumed_run_equals_the_uninterrupted(dataset: ClassificationDataset, step: int) -> None:
    batches = training_batches(dataset, AUGMENTED, 5, seed=3, workers=0)
    assert_same(take(batches.starting_at(0), 10)[step:], take(batches.starting_at(step), 10 - step))


def together(dataset: ClassificationDataset, world: int, step: int, count: int, workers: int = 0) -> list[Batch]:
    """`count` batches of six from `step` on, of which each process has every `world`-th image."""
    loaders = [training_batches(dataset, AUGMENTED, 6, 3, workers, rank, world) for rank in range(world)]
    wholes = []
    for parts in zip(*(take(loader.starting_at(step), count) for loader in loaders), strict=True):
        places = torch.cat([torch.arange(rank, 6, world) for rank in range(world)]).argsort()
        each = joined(parts)
        files = [each["files"][place] for place in places]
        wholes.append(Batch(images=each["images"][places], labels=each["labels"][places], files=files))
    return wholes


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_together_have_the_batch_of_one(dataset: ClassificationDataset, world: int) -> None:
    """Of six images four processes have 2, 2, 1 and 1."""
    alone = training_batches(dataset, AUGMENTED, 6, seed=3, workers=0)
    assert_same(take(alone.starting_at(0), 5), together(dataset, world, 0, 5))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_run_goes_on_with_the_same_bits_among_other_processes_and_workers(dataset: ClassificationDataset) -> None:
    alone = training_batches(dataset, AUGMENTED, 6, seed=3, workers=0)
    parts = [together(dataset, 2, 0, 3), together(dataset, 4, 3, 2, workers=1), together(dataset, 1, 5, 2)]
    assert_same(take(alone.starting_at(0), 7), [batch for part in parts for batch in part])


def test_processes_evaluate_the_very_batches_of_one(dataset: ClassificationDataset) -> None:
    alone = list(evaluation_batches(dataset, PLAIN, 5, workers=0))
    for rank in range(7):  # two have none
        assert_same(alone[rank::7], evaluation_batches(dataset, PLAIN, 5, workers=0, rank=rank, world=7))


@pytest.mark.parametrize("world", [2, 3, 30])
def test_processes_together_evaluate_every_image_once(dataset: ClassificationDataset, world: int) -> None:
    parts = [
        part
        for rank in range(world)
        for part in evaluation_batches(dataset, PLAIN, 4, workers=0, rank=rank, world=world)
    ]
    assert sorted(joined(parts)["files"]) == [dataset.name(index) for index in range(23)]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_callers_random_state_is_left_alone(dataset: ClassificationDataset, workers: int) -> None:
    def state() -> tuple:
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # type: ignore[union-attr]

    before = state()
    batches = training_batches(dataset, AUGMENTED, 5, seed=3, workers=workers).starting_at(0)
    for _ in range(3):
        next(batches)
        assert state() == before
    del batches
    list(evaluation_batches(dataset, AUGMENTED, 5, workers=workers))
    assert state() == before


# Worker processes


def workers_alive() -> list[int]:
    """Worker processes of this one, after giving them a moment to end."""
    gc.collect()
    deadline = time.monotonic() + 5
    while workers() and time.monotonic() < deadline:
        time.sleep(0.02)
    return workers()


def workers() -> list[int]:
    """They are daemons; other tests may have left children that are not."""
    return [process.pid or 0 for process in multiprocessing.active_children() if process.daemon]


def test_no_worker_outlives_its_iterator(dataset: ClassificationDataset) -> None:
    batches = training_batches(dataset, PLAIN, 5, seed=0, workers=2)
    iterator = batches.starting_at(0)
    next(iterator)
    assert len(workers()) == 2
    del iterator
    assert workers_alive() == []
    evaluation = evaluation_batches(dataset, PLAIN, 5, workers=2)
    for _ in evaluation:
        break
    assert workers_alive() == []
    list(evaluation)
    assert workers_alive() == []


def test_no_worker_outlives_an_exception(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 8, "dog": 8}, size=(8, 8))
    damage(tmp_path, "cat/00.png")
    batches = training_batches(
        open_classification_dataset(str(tmp_path)), Images(size=8, max_bad_files=0), 16, seed=0, workers=2
    )
    iterator = batches.starting_at(0)
    with pytest.raises(InputError, match="cat/00") as held:  # the traceback holds the frames
        next(iterator)
    assert workers_alive() == []
    assert held.value is not None


def test_no_worker_outlives_a_main_process_that_was_killed(dataset: ClassificationDataset) -> None:
    program = """
import pickle, sys
from botformer.data.classification.batches import training_batches
from botformer.recipes.schema import Images
dataset = pickle.load(sys.stdin.buffer)  # listing it anew would import timm
batches = training_batches(dataset, Images(size=8), 5, seed=0, workers=2).starting_at(0)
next(batches)
print("running", flush=True)
for _ in batches:
    pass
"""
    main = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert main.stdin is not None
    assert main.stdout is not None
    pickle.dump(dataset, main.stdin)
    main.stdin.flush()
    assert main.stdout.readline() == b"running\n"
    main.kill()
    main.communicate(timeout=10)  # its output ends when the last process that inherited it does


def test_other_processes_of_the_same_fork_server_still_hear_signals(dataset: ClassificationDataset) -> None:
    """Workers ignore those that ask to stop; the server that starts them serves whoever else asks for a process."""
    program = """
import multiprocessing, pickle, signal, sys, time
from botformer.data.classification.batches import training_batches
from botformer.recipes.schema import Images
dataset = pickle.load(sys.stdin.buffer)
next(training_batches(dataset, Images(size=8), 5, seed=0, workers=1).starting_at(0))
process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,), daemon=True)
process.start()
process.terminate()
process.join(10)
print(process.exitcode, *signal.pthread_sigmask(signal.SIG_BLOCK, []))
process.kill()
"""
    ended = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(dataset), capture_output=True)
    assert ended.stdout == b"-15\n", ended.stderr.decode()


# Bad images


def damage(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes((root / name).read_bytes()[:60])


@pytest.fixture
def damaged(tmp_path: Path) -> ClassificationDataset:
    write_folder(tmp_path, {"cat": 4, "dog": 4}, size=(8, 8))
    damage(tmp_path, "cat/01.png", "cat/02.png", "dog/03.png")
    dataset = open_classification_dataset(str(tmp_path))
    (tmp_path / "dog/00.png").unlink()  # deleted after it was listed
    return dataset


def bad_names(bad: dict[str, str]) -> list[str]:
    return sorted(bad)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_training_image_is_replaced_by_the_next_good_one(damaged: ClassificationDataset, workers: int) -> None:
    batches = training_batches(damaged, PLAIN, 8, seed=0, workers=workers)
    batch = next(batches.starting_at(0))
    assert sorted(batch["files"]) == [
        "cat/00.png", "cat/00.png", "cat/03.png", "cat/03.png", "cat/03.png",
        "dog/01.png", "dog/01.png", "dog/02.png",
    ]  # fmt: skip
    for image, label, name in zip(batch["images"], batch["labels"], batch["files"], strict=True):
        assert torch.equal(image, file_pixels(damaged, name))
        assert damaged.class_names[int(label)] == name.split("/")[0]
    assert bad_names(batches.bad) == ["cat/01.png", "cat/02.png", "dog/00.png", "dog/03.png"]
    assert "No such file" in batches.bad["dog/00.png"]
    assert_same([batch], take(training_batches(damaged, PLAIN, 8, seed=0, workers=0).starting_at(0), 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_skips_bad_images(
    damaged: ClassificationDataset, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    batches = evaluation_batches(damaged, PLAIN, 2, workers=workers)
    with caplog.at_level(logging.WARNING, "botformer.data"):
        names = [batch["files"] for batch in (*batches, *batches)]
    assert names == 2 * [["cat/00.png"], ["cat/03.png"], ["dog/01.png"], ["dog/02.png"]]
    assert bad_names(batches.bad) == ["cat/01.png", "cat/02.png", "dog/00.png", "dog/03.png"]
    assert caplog.text.count("skipped cat/01.png: ") == 1  # although it was read twice


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_too_many_bad_images_stop_with_the_list(damaged: ClassificationDataset, kind: str, workers: int) -> None:
    def run(most: int) -> None:
        images = Images(size=8, max_bad_files=most)
        if kind == "training":
            next(training_batches(damaged, images, 8, seed=0, workers=workers).starting_at(0))
        else:
            list(evaluation_batches(damaged, images, 8, workers=workers))

    run(4)
    with pytest.raises(InputError) as caught:
        run(3)
    message = str(caught.value)
    assert "4 images of" in message
    assert "3 are tolerated (images.max_bad_files)" in message
    assert "\n  cat/01.png: " in message
    assert "\n  dog/00.png: No such file" in message


def test_nothing_but_bad_images(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2}, size=(8, 8))
    damage(tmp_path, "cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png")
    dataset = open_classification_dataset(str(tmp_path))
    with pytest.raises(InputError, match="none of the 4 images of .* can be read"):
        next(training_batches(dataset, PLAIN, 2, seed=0, workers=0).starting_at(0))
    with pytest.raises(InputError, match="none of the 4 images of .* can be read"):
        list(evaluation_batches(dataset, PLAIN, 2, workers=0))


def test_a_process_whose_images_are_all_bad_leaves_the_others_to_go_on(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 2}, size=(8, 8))
    damage(tmp_path, "dog/01.png")
    dataset = open_classification_dataset(str(tmp_path))
    parts = [evaluation_batches(dataset, PLAIN, 4, workers=0, rank=rank, world=2) for rank in range(2)]
    assert [[len(batch["labels"]) for batch in part] for part in parts] == [[4], []]
    assert list(parts[1].bad) == ["dog/01.png"]


def test_an_image_above_the_size_limit_is_bad(dataset: ClassificationDataset) -> None:
    batches = evaluation_batches(dataset, Images(size=8, max_megapixels=1e-5), 4, workers=0)
    with pytest.raises(InputError, match="8x8 pixels are more than 1e-05 megapixels"):
        list(batches)


# Arguments


def test_a_data_set_smaller_than_a_batch_is_refused_with_numbers(dataset: ClassificationDataset) -> None:
    with pytest.raises(InputError, match="has 23 images, fewer than one batch of 24; take a batch size of 23"):
        training_batches(dataset, PLAIN, 24, seed=0, workers=0, world=2)


def test_a_batch_of_fewer_images_than_processes_is_refused(dataset: ClassificationDataset) -> None:
    with pytest.raises(InputError, match="batch size 2 leaves some of 3 processes without an image; take 3 or more"):
        training_batches(dataset, PLAIN, 2, seed=0, workers=0, world=3)
    with pytest.raises(InputError, match="batch size 0"):
        evaluation_batches(dataset, PLAIN, 0, workers=0)


def test_a_negative_number_of_workers_is_refused(dataset: ClassificationDataset) -> None:
    with pytest.raises(InputError, match="-2 workers; expected -1"):
        evaluation_batches(dataset, PLAIN, 5, workers=-2)
