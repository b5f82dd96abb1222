"""Samples -> batches. Which pictures a batch holds, and their pixels, depend on seed and step alone.

Not on the number of workers, nor of processes, nor on where a run was resumed: a batch is computed as a whole, by one
worker, from its epoch and its indices.
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from botformer.data.decoding import BadImage, decode
from botformer.data.sources import ImageSource
from botformer.data.transforms import Transform, evaluation_transform, training_transform
from botformer.errors import InputError
from botformer.recipes.schema import Images
from botformer.seeding import host_state_kept, seed_host

log = logging.getLogger("botformer.data")


class Batch(TypedDict):
    images: Tensor
    """uint8 (pictures, 3, size, size), channels last in memory."""
    labels: Tensor
    """int64 (pictures,)."""
    files: list[str]
    """Names in the source."""


def training_batches(
    source: ImageSource, images: Images, batch_size: int, seed: int, workers: int, rank: int = 0, world: int = 1
) -> "TrainingBatches":
    """`batch_size` counts the pictures of all `world` processes together. `workers`: -1 is one a core, at most 8."""
    if batch_size < 1 or batch_size % world:
        raise InputError(
            f"batch size {batch_size} cannot be shared evenly by {world} processes; "
            f"{max(1, round(batch_size / world)) * world} can"
        )
    if len(source) < batch_size:
        raise InputError(
            f"{source.where} has {len(source)} pictures, fewer than one batch of {batch_size}; "
            f"take a batch size of {max(1, len(source) // world) * world} or less (run.batch_size)"
        )
    return TrainingBatches(source, images, _Dealing(len(source), batch_size, seed, rank, world), _worker_count(workers))


def evaluation_batches(
    source: ImageSource, images: Images, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> "EvaluationBatches":
    """This process's share (every `world`-th picture), in batches of `batch_size`, the last one smaller."""
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is too small; at least 1 is expected")
    share = range(rank, len(source), world)
    chunks = [list(share[start : start + batch_size]) for start in range(0, len(share), batch_size)]
    return EvaluationBatches(source, images, chunks, _worker_count(workers))


class TrainingBatches:
    """Endless, shuffled anew every epoch. `bad` lists what could not be read so far: name -> reason."""

    def __init__(self, source: ImageSource, images: Images, dealing: "_Dealing", workers: int) -> None:
        self.bad: dict[str, str] = {}
        self.steps_per_epoch = dealing.steps_per_epoch
        """Full batches; what is left over sits this epoch out."""
        self._dealing = dealing
        self._workers = workers
        self._pictures = _TrainingPictures(source, images, training_transform(images), dealing.seed)

    def starting_at(self, step: int) -> Iterator[Batch]:
        """Step s is batch `s % steps_per_epoch` of epoch `s // steps_per_epoch`. Workers end with the iterator.

        A picture that cannot be read gives its place to the next one in the source that can. Raises InputError when
        more than `images.max_bad_files` cannot.
        """
        for part in _loader(self._pictures, self._dealing.from_step(step), self._workers):
            _note_bad(self.bad, part.bad, self._pictures.source, self._pictures.images.max_bad_files)
            if part.batch is None:
                raise _none_readable(self._pictures.source, self.bad)
            yield part.batch


class EvaluationBatches:
    """Every picture once, each time it is iterated. `bad` lists what was left out: name -> reason."""

    def __init__(self, source: ImageSource, images: Images, chunks: list[list[int]], workers: int) -> None:
        self.bad: dict[str, str] = {}
        self._chunks = chunks
        self._workers = workers
        self._pictures = _EvaluationPictures(source, images, evaluation_transform(images))

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Batch]:
        """Raises InputError when more than `images.max_bad_files` pictures cannot be read, or none can."""
        empty = bool(self._chunks)
        for part in _loader(self._pictures, self._chunks, self._workers):
            _note_bad(self.bad, part.bad, self._pictures.source, self._pictures.images.max_bad_files)
            if part.batch is not None:
                empty = False
                yield part.batch
        if empty:
            raise _none_readable(self._pictures.source, self.bad)


# Who gets what


@dataclass(frozen=True)
class _Dealing:
    """The order of training, a pure function of (seed, epoch)."""

    pictures: int
    batch_size: int
    seed: int
    rank: int
    world: int

    @property
    def steps_per_epoch(self) -> int:
        return self.pictures // self.batch_size

    def from_step(self, step: int) -> Iterator[tuple[int, list[int]]]:
        """(epoch, indices of this process's share) of every step from here on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        share = self.batch_size // self.world
        while True:
            order = self._order(epoch)
            for start in range(position * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size):
                mine = start + self.rank * share
                yield epoch, order[mine : mine + share].tolist()
            epoch, position = epoch + 1, 0

    def _order(self, epoch: int) -> Tensor:
        """int64 (pictures,)."""
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]))
        return torch.randperm(self.pictures, generator=generator)


# What a worker does


@dataclass(frozen=True)
class _Part:
    """What a worker hands over. No batch: no picture could be read."""

    batch: Batch | None
    bad: dict[str, str]

    def pin_memory(self) -> "_Part":
        """The loader's hook for types of our own."""
        if self.batch is None:
            return self
        images, labels = self.batch["images"].pin_memory(), self.batch["labels"].pin_memory()
        return _Part(Batch(images=images, labels=labels, files=self.batch["files"]), self.bad)


@dataclass(frozen=True)
class _TrainingPictures(Dataset):
    source: ImageSource
    images: Images
    transform: Transform
    seed: int

    def __getitem__(self, key: tuple[int, list[int]]) -> _Part:
        epoch, indices = key
        pictures: list[Tensor] = []
        read: list[int] = []
        bad: dict[str, str] = {}
        with host_state_kept():
            for index in indices:
                seed_host(self.seed, epoch, index)
                found = self._first_readable_from(index, bad)
                if found is None:
                    return _Part(None, bad)
                picture, index_read = found
                pictures.append(picture)
                read.append(index_read)
        return _Part(_batch(self.source, pictures, read), bad)

    def _first_readable_from(self, index: int, bad: dict[str, str]) -> tuple[Tensor, int] | None:
        """None after more bad pictures than are allowed, or where there is no good one."""
        for candidate in chain(range(index, len(self.source)), range(index)):
            if len(bad) > self.images.max_bad_files:
                return None
            picture = _read(self.source, candidate, self.images.max_megapixels, self.transform, bad)
            if picture is not None:
                return picture, candidate
        return None


@dataclass(frozen=True)
class _EvaluationPictures(Dataset):
    source: ImageSource
    images: Images
    transform: Transform

    def __getitem__(self, indices: list[int]) -> _Part:
        pictures: list[Tensor] = []
        read: list[int] = []
        bad: dict[str, str] = {}
        for index in indices:
            picture = _read(self.source, index, self.images.max_megapixels, self.transform, bad)
            if picture is not None:
                pictures.append(picture)
                read.append(index)
        return _Part(_batch(self.source, pictures, read) if read else None, bad)


def _read(
    source: ImageSource, index: int, max_megapixels: float, transform: Transform, bad: dict[str, str]
) -> Tensor | None:
    """uint8 (3, size, size); None, with an entry in `bad`, where the picture cannot be read."""
    name = source.name(index)
    if name in bad:
        return None
    try:
        file, _ = source.read(index)
        with file:
            return transform(decode(file, name, max_megapixels))
    except BadImage as error:
        bad[name] = error.reason
    except OSError as error:
        bad[name] = error.strerror or str(error)
    return None


def _batch(source: ImageSource, pictures: Sequence[Tensor], indices: Sequence[int]) -> Batch:
    # Stacked as (pictures, height, width, 3), the way they lie in memory: half the time of moving every pixel.
    stacked = torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)
    return Batch(
        images=stacked,
        labels=torch.from_numpy(source.labels[list(indices)]),
        files=[source.name(index) for index in indices],
    )


# What the main process does


def _loader(pictures: "_TrainingPictures | _EvaluationPictures", keys: Iterable[Any], workers: int) -> Iterable[_Part]:
    if workers:
        _prepare_fork_server(pictures.images)
    return DataLoader(
        pictures,
        batch_size=None,  # a key is a whole batch
        sampler=keys,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=_start_method() if workers else None,
        worker_init_fn=_end_with_main_process,
        generator=torch.Generator(),  # the loader draws a number from it; from the global one, if there is none
    )


def _as_it_is(part: Any) -> Any:
    return part


def _end_with_main_process(_: int) -> None:
    """Should the main process be killed: torch's own check looks at the fork server, which waits for the workers."""
    main = multiprocessing.parent_process()
    assert main is not None

    def follow() -> None:
        main.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _start_method() -> str:
    """A fork of the training process may deadlock (threads) and breaks CUDA; spawn imports torch once a worker.

    A fork server is clean as spawn is and imports once: two seconds for all workers together.
    """
    return "forkserver" if sys.platform == "linux" else "spawn"


def _prepare_fork_server(images: Images) -> None:
    """Have the server import what its workers need. Without effect on a server that runs already."""
    if _start_method() == "forkserver":
        timm = ["timm.data.auto_augment"] if images.rand_augment_layers else []  # four seconds: only if needed
        multiprocessing.set_forkserver_preload([__name__, *timm])


def _worker_count(workers: int) -> int:
    if workers < -1:
        raise InputError(f"{workers} workers; expected -1 (one a core, at most 8), 0 (none) or more (run.workers)")
    if workers >= 0:
        return workers
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(8, cores)


def _note_bad(known: dict[str, str], new: dict[str, str], source: ImageSource, most: int) -> None:
    for name, reason in new.items():
        if name not in known:
            known[name] = reason
            log.warning("%s: skipped %s: %s", source.where, name, reason)
    if len(known) > most:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in sorted(known.items()))
        raise InputError(
            f"{len(known)} pictures of {source.where} cannot be read, {most} are tolerated (images.max_bad_files):\n"
            f"{listed}\nMend or remove them, or allow more"
        )


def _none_readable(source: ImageSource, bad: dict[str, str]) -> InputError:
    name, reason = next(iter(bad.items()))
    return InputError(f"none of the {len(bad)} pictures of {source.where} can be read; the first: {name}: {reason}")
