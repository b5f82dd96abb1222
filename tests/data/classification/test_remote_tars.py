"""Tars on a server that has bad days: the same batches as from the disk, or a message that says what is wrong."""

import json
import logging
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from botformer import cli
from botformer.data import http_ranges
from botformer.data.classification.batches import Batch, evaluation_batches, training_batches
from botformer.data.classification.dataset import (
    ClassificationDataset,
    has_test_split,
    open_classification_dataset,
    open_classification_datasets,
)
from botformer.data.http_ranges import Retries
from botformer.errors import InputError
from botformer.recipes.schema import Images
from botformer.training.checkpoint import checkpoint_folder
from tests.data.classification.folders import write_folder, write_tar
from tests.data.classification.shard_server import TROUBLES, ShardServer, at_random, serving

IMAGES = Images(size=8)
TRIES = 6


@pytest.fixture(autouse=True)
def _impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting, a cache of its own, and no proxy between this machine and itself."""
    monkeypatch.setattr(http_ranges, "RETRIES", Retries(TRIES, 0.0, 5.0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders: 27 images."""
    return write_folder(tmp_path / "plain", {"cat": 11, "dog": 9, "emu": 7}, size=(9, 8))


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """The same images in three tars, cut where their order is."""
    root = tmp_path / "tars"
    root.mkdir()
    files = sorted(folder.glob("*/*.png"))
    for number in range(3):
        with tarfile.open(root / f"set-{number:03}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for file in files[9 * number : 9 * number + 9]:
                tar.add(file, file.relative_to(folder).as_posix())
    return root


@pytest.fixture
def server(shards: Path) -> Iterator[ShardServer]:
    with serving(shards) as server:
        yield server


@pytest.fixture
def data(server: ShardServer) -> str:
    return f"{server.address}/set-{{000..002}}.tar"


def batches_of(
    dataset: ClassificationDataset, count: int, start: int = 0, workers: int = 0, **shard: int
) -> list[Batch]:
    loader = training_batches(dataset, IMAGES, 6, seed=3, workers=workers, **shard)
    return list(islice(loader.starting_at(start), count))


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["labels"], other["labels"])


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch["files"]]


# The same batches


def test_batches_are_those_of_the_folder_whatever_the_server_does(
    server: ShardServer, data: str, shards: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three epochs; a third of the requests fails in one way or another."""
    server.trouble = at_random(1, 1 / 3)
    remote = open_classification_dataset(data)
    local, plain = open_classification_dataset(str(shards)), open_classification_dataset(str(folder))
    assert [remote.name(index) for index in range(27)] == [local.name(index) for index in range(27)]
    got = batches_of(remote, 12)
    assert server.failures > 20
    assert "skipped" not in caplog.text
    assert_same(got, batches_of(plain, 12))
    assert_same(got, batches_of(local, 12))
    assert names(got) == names(batches_of(local, 12))
    epochs = [names(got[4 * epoch : 4 * epoch + 4]) for epoch in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_every_kind_of_trouble_is_tried_again(server: ShardServer, data: str) -> None:
    expected = open_classification_dataset(data).read(13)[0].read()
    for trouble in TROUBLES:
        remote = open_classification_dataset(data)
        begin = len(server.requests)
        server.trouble = lambda path, number, begin=begin, trouble=trouble: trouble if number <= begin + 3 else ""
        assert remote.read(13)[0].read() == expected
        assert len(server.requests) >= begin + 4
        server.trouble = lambda path, number: ""


def test_a_run_goes_on_inside_a_shard(server: ShardServer, data: str) -> None:
    server.trouble = at_random(2, 0.2)
    whole = batches_of(open_classification_dataset(data), 9)
    for start in (1, 3, 6):  # step 6 is inside the second epoch
        again = batches_of(open_classification_dataset(data), 9 - start, start)
        assert names(again) == names(whole[start:])
        assert_same(again, whole[start:])


def test_one_shard_serves_four_workers_and_three_serve_two_processes(
    server: ShardServer, data: str, shards: Path, folder: Path
) -> None:
    """There is no least number of shards: any image can be the next one, of any worker."""
    write_tar(shards / "all.tar", folder)
    server.trouble = at_random(3, 0.2)
    expected = batches_of(open_classification_dataset(str(folder)), 5)
    one = open_classification_dataset(f"{server.address}/all.tar")
    assert_same(batches_of(one, 5, workers=4), expected)
    assert server.failures > 0
    three = open_classification_dataset(data)
    halves = [batches_of(three, 5, rank=rank, world=2) for rank in range(2)]
    for first, second, both in zip(*halves, expected, strict=True):
        assert torch.equal(first["images"], both["images"][0::2])
        assert torch.equal(second["images"], both["images"][1::2])


def test_an_evaluation_gives_every_image_once(data: str, folder: Path) -> None:
    plain = list(evaluation_batches(open_classification_dataset(str(folder)), IMAGES, 6, 0))
    assert_same(list(evaluation_batches(open_classification_dataset(data), IMAGES, 6, 0)), plain)


def test_a_training_from_addresses(server: ShardServer, shards: Path, folder: Path, tmp_path: Path) -> None:
    """From the command line, continued half-way, with dropped connections; it learns the same as from the disk."""
    options = ["--model.name=botnet_nano", "--images.size=32", "--run.batch-size=6", "--run.workers=0",
               "--run.device=cpu", "--schedule.warmup-epochs=0", "--schedule.epochs=2"]  # fmt: skip
    server.trouble = at_random(4, 0.2)
    for file in shards.iterdir():
        file.unlink()
    for name in ("val-000", "train-001", "train-002"):
        write_tar(shards / f"{name}.tar", write_folder(tmp_path / name, {"cat": 6, "dog": 3}))
    data = f"{server.address}/{{train-{{001..002}},val-000}}.tar"

    def weights(run: str) -> dict[str, torch.Tensor]:
        return load_file(checkpoint_folder(tmp_path / run) / "model.safetensors")

    for run, given, more in (
        ("disk", str(shards), []),
        ("halves", data, ["--run.max-steps=3"]),
        ("halves", data, ["--run.max-steps=0"]),
    ):
        assert cli.main(["train", "digits", "--data", given, "--out", str(tmp_path / run), *options, *more]) == 0
    halves, disk = weights("halves"), weights("disk")
    assert len(disk) > 10
    assert all(torch.equal(halves[key], disk[key]) for key in disk)
    assert server.failures > 0


# Listing


def test_only_headers_and_labels_are_listed_and_only_once(server: ShardServer, shards: Path, tmp_path: Path) -> None:
    with tarfile.open(shards / "big.tar", "w") as tar:
        for number in range(4):
            (tmp_path / "image").write_bytes(os.urandom(300_000))
            tar.add(tmp_path / "image", f"{number:04}.jpg")
            (tmp_path / "label").write_text(["cat", "dog"][number % 2])
            tar.add(tmp_path / "label", f"{number:04}.cls")
    dataset = open_classification_dataset(f"{server.address}/big.tar")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert sum(size for _, _, size in server.requests) < 150_000
    assert len(server.requests) < 12
    server.requests.clear()
    again = open_classification_dataset(f"{server.address}/big.tar")
    assert server.requests == [("big.tar", 0, 1)]
    assert again.labels.tolist() == [0, 1, 0, 1]
    assert [again.name(index) for index in range(4)] == ["0000.jpg", "0001.jpg", "0002.jpg", "0003.jpg"]


def test_small_files_come_many_per_request(server: ShardServer, shards: Path, tmp_path: Path) -> None:
    write_tar(shards / "small.tar", write_folder(tmp_path / "many", {"cat": 400, "dog": 400}, size=(2, 2)))
    assert len(open_classification_dataset(f"{server.address}/small.tar")) == 800
    assert len(server.requests) < 12


def test_a_proxy_is_asked(server: ShardServer, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_classification_dataset(data)
    monkeypatch.setenv("http_proxy", server.address)
    behind = open_classification_dataset("http://nowhere.invalid/set-{000..002}.tar")
    assert behind.read(20)[0].read() == expected.read(20)[0].read()


def test_a_connection_is_kept(server: ShardServer, data: str) -> None:
    dataset = open_classification_dataset(data)
    before = server.connections
    for index in range(27):
        dataset.read(index)
    assert server.connections <= before + 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', "\udcff", "outside", "labels"])
def test_a_damaged_cache_is_made_anew(data: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = open_classification_dataset(data)
    files = sorted((tmp_path / "cache" / "botformer" / "shards").iterdir())
    assert len(files) == 3
    good = files[0].read_text()
    content = json.loads(good)
    if damage == "outside":
        content["members"][2][2] = 10**9
        damage = json.dumps(content)
    elif damage == "labels":
        damage = json.dumps(content | {"contents": {"99": "cat"}})
    files[0].write_text(damage, errors="surrogateescape")
    second = open_classification_dataset(data)
    assert "cannot be used" in caplog.text
    assert second.labels.tolist() == first.labels.tolist()
    assert files[0].read_text() == good


def test_without_a_cache_folder_it_works_and_says_so(
    data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert len(open_classification_dataset(data)) == 27
    assert caplog.text.count("so they are listed again next time") == 1


def test_splits_are_read_from_names_and_from_folders(server: ShardServer, shards: Path, tmp_path: Path) -> None:
    (shards / "a").mkdir()
    for count, name in ((9, "train"), (3, "val"), (2, "test")):
        file = write_tar(shards / "a" / f"{name}-0.tar", write_folder(tmp_path / name, {"cat": count, "dog": 1}))
        (shards / "b" / name).mkdir(parents=True)
        shutil.copy(file, shards / "b" / name / "7.tar")
    pair = f"{server.address}/a/{{train,val}}-{{0..0}}.tar"
    for data in (pair, f"{server.address}/b/{{train,val}}/7.tar"):
        train, validation = open_classification_datasets(data)
        assert (len(train), len(validation)) == (10, 4)
        assert len(open_classification_dataset(data, "validation")) == 4
        assert len(open_classification_dataset(data)) == 14
        with pytest.raises(InputError, match="has no split 'test'.*found there: train, validation"):
            open_classification_dataset(data, "test")
    every = "::".join(f"{server.address}/b/{name}/7.tar" for name in ("train", "val", "test"))
    assert has_test_split(every)
    assert len(open_classification_dataset(every, "test")) == 3
    assert not has_test_split(pair)


def test_training_shards_alone_hold_a_tenth_out(server: ShardServer, shards: Path, data: str) -> None:
    os.rename(shards / "set-000.tar", shards / "train-0.tar")
    os.rename(shards / "set-001.tar", shards / "train-1.tar")
    os.rename(shards / "set-002.tar", shards / "train-2.tar")
    data = f"{server.address}/train-{{0..2}}.tar"
    train, validation = open_classification_datasets(data)
    assert (len(train), len(validation)) == (24, 3)
    evaluated = open_classification_dataset(data, "validation")
    assert [evaluated.name(index) for index in range(3)] == [validation.name(index) for index in range(3)]
    with pytest.raises(InputError, match=r"of 1 tars the names do not say .* set-000\.tar, of others"):
        open_classification_datasets(f"{server.address}/{{train-{{0..2}},val-0,set-000}}.tar")


def test_names_of_classes_beside_the_shards(server: ShardServer, shards: Path, tmp_path: Path) -> None:
    samples = write_folder(tmp_path / "samples", {"x": 4}, size=(3, 3)) / "x"
    for number in range(4):
        (samples / f"{number:02}.json").write_text(json.dumps({"label": number % 2, "caption": "long " * 999}))
    (shards / "wds").mkdir()
    write_tar(shards / "wds" / "0.tar", samples)
    (shards / "classnames.txt").write_text("cat\ndog\n")
    dataset = open_classification_dataset(f"{server.address}/wds/0.tar")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1, 0, 1]


# What cannot be mended


def test_a_server_that_goes_away_ends_the_run_and_no_image_is_skipped(server: ShardServer, data: str) -> None:
    dataset = open_classification_dataset(data)
    loader = training_batches(dataset, IMAGES, 6, seed=3, workers=0)
    batches = loader.starting_at(0)
    next(batches)
    server.trouble = lambda path, number: "drop"
    with pytest.raises(InputError) as caught:
        next(batches)
    message = str(caught.value)
    assert f"{server.address}/set-00" in message
    assert ".png: no answer that could be used in 6 tries" in message
    assert "continues a training from its last checkpoint" in message
    assert loader.bad == {}
    server.trouble = lambda path, number: "status 503"
    with pytest.raises(InputError, match=r"503 \(Service Unavailable\)"):
        dataset.read(0)
    server.shutdown()
    server.server_close()
    http_ranges.close_connections()
    with pytest.raises(InputError, match="in 6 tries; the last one: Connection refused"):
        dataset.read(0)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args  # out of a worker process


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("whole", "gives whole files alone, not parts of them .* copy the tars into a folder"),
        ("status 404", r"the server says 404 \(Not Found\)"),
        ("status 403", r"the server says 403 \(Forbidden\)"),
        ("status 418", "the server says 418 to a request of"),
        ("to ftp://elsewhere/0.tar", "leads to ftp://elsewhere/0.tar, which is not read"),
    ],
)
def test_what_no_further_try_would_change_is_said_at_once(
    server: ShardServer, data: str, trouble: str, said: str
) -> None:
    dataset = open_classification_dataset(data)
    server.requests.clear()
    server.trouble = lambda path, number: trouble
    with pytest.raises(InputError, match=said):
        dataset.read(0)
    assert len(server.requests) == 1


def test_redirections_are_followed_and_asked_for_again_when_they_expire(server: ShardServer, shards: Path) -> None:
    (shards / "store").mkdir()
    shutil.move(shards / "set-000.tar", shards / "store" / "abc")
    shutil.copy(shards / "set-001.tar", shards / "set-000.tar")  # what must not be read
    expired = False

    def trouble(path: str, number: int) -> str:
        nonlocal expired
        if path == "set-000.tar":
            return f"to {server.address}/store/abc?signature={number}"
        was_expired, expired = expired, False
        return "status 403" if was_expired else ""

    server.trouble = trouble
    dataset = open_classification_dataset(f"{server.address}/set-000.tar::{server.address}/set-002.tar")
    server.requests.clear()
    for index in range(3):
        dataset.read(index)
    assert [path for path, _, _ in server.requests].count("set-000.tar") <= 1
    expired = True
    server.requests.clear()
    dataset.read(0)
    assert [path for path, _, _ in server.requests] == ["store/abc", "set-000.tar", "store/abc"]


def test_missing_and_broken_shards_are_named_all_at_once(server: ShardServer, shards: Path, folder: Path) -> None:
    data = f"{server.address}/set-{{000..005}}.tar"
    with pytest.raises(InputError) as caught:
        open_classification_dataset(data)
    assert [f"set-00{number}.tar" in str(caught.value) for number in range(6)] == [False] * 3 + [True] * 3
    whole = (shards / "set-000.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    (shards / "set-001.tar").write_bytes(whole[: end // 2])
    (shards / "set-002.tar").write_bytes(b"<html>" * 999)
    (shards / "set-003.tar").write_bytes(b"")
    second = whole.index(b"cat/01.png")
    (shards / "set-004.tar").write_bytes(whole[:second] + b"?" * 9 + whole[second + 9 :])
    (shards / "set-005.tar").write_bytes(whole[: end + -end % 512])
    for data in (f"{server.address}/set-{{000..005}}.tar", str(shards)):
        with pytest.raises(InputError, match="^5 tars cannot be listed") as caught:
            open_classification_dataset(data)
        lines = str(caught.value).splitlines()
        reasons = ["damaged or cut off at byte", "not a whole tar, or compressed", "not a whole tar",
                   "where a file should begin", "the mark at its end is missing"]  # fmt: skip
        for line, number, reason in zip(lines[1:6], range(1, 6), reasons, strict=True):
            assert f"set-00{number}.tar: " in line
            assert reason in line


def test_a_shard_that_is_whole_at_the_second_try(server: ShardServer, shards: Path, folder: Path) -> None:
    """A file that is being replaced while it is listed."""
    good = write_tar(shards / "all.tar", folder).read_bytes()
    (shards / "all.tar").write_bytes(b"half a file")

    def trouble(path: str, number: int) -> str:
        if number == 4:  # after its size was asked for twice, and its beginning once
            (shards / "all.tar").write_bytes(good)
        return ""

    server.trouble = trouble
    assert len(open_classification_dataset(f"{server.address}/all.tar")) == 27
    assert len(server.requests) >= 4


def test_a_shard_that_changes_on_the_server_ends_the_run(server: ShardServer, data: str, shards: Path) -> None:
    dataset = open_classification_dataset(data)
    os.utime(shards / "set-000.tar", (1, 1))
    with pytest.raises(InputError, match=r"set-000\.tar was changed on the server since it was listed .*ETag"):
        dataset.read(0)
    dataset.read(26)[0].close()
    assert len(open_classification_dataset(data)) == 27  # listed again, and not from the cache
    dataset = open_classification_dataset(data)
    dataset.read(0)[0].close()


def test_a_training_in_the_cold_says_what_it_waits_for(
    server: ShardServer, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = open_classification_dataset(data)
    begin = len(server.requests)
    server.trouble = lambda path, number: "status 500" if number <= begin + 4 else ""
    with caplog.at_level(logging.WARNING, "botformer.data"):
        dataset.read(0)[0].close()
    assert caplog.text.count("the server says 500 (Internal Server Error); tried 3 times, and again soon") == 1


# Tars on the disk


def test_a_tar_on_the_disk_that_changes_or_vanishes_ends_the_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botformer.data.classification.tars._AGAIN_AFTER_S", 0.0)
    dataset = open_classification_dataset(str(shards))
    loader = training_batches(dataset, IMAGES, 27, seed=3, workers=0)
    file = shards / "set-001.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])
    with pytest.raises(InputError, match=r"set-001\.tar was changed while it was in use: it has 2,000 bytes, and had"):
        next(loader.starting_at(0))
    file.unlink()
    with pytest.raises(InputError, match=r"set-001\.tar can no longer be read \(No such file.*same command continues"):
        next(loader.starting_at(0))
    file.write_bytes(whole)
    next(loader.starting_at(0))
    assert loader.bad == {}
