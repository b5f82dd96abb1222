"""The data loader: samples of any kind -> batches. What is in a batch depends on the seed and the step alone.

It depends neither on the number of workers or processes nor on where a run was resumed: one worker computes a whole
batch, from its epoch and its indices.
"""

import hashlib
import logging
import multiprocessing
import multiprocessing.util
import os
import re
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from botformer.data.image_io import BadImage
from botformer.environment import cores
from botformer.errors import InputError
from botformer.seeding import host_state_kept, seed_host
from botformer.stop_signals import STOP_SIGNALS
from botformer.text import readable_bytes

log = logging.getLogger("botformer.data")

BatchT_co = TypeVar("BatchT_co", covariant=True)


class Samples(Protocol[BatchT_co]):
    """A data set with its transforms. It is pickled for the worker processes, so it has no open file."""

    @property
    def where(self) -> str:
        """Where the data set is, for messages."""
        ...

    @property
    def max_bad_files(self) -> int: ...

    @property
    def preload(self) -> list[str]:
        """Modules that the fork server imports for the workers, besides this one."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    @property
    def targets(self) -> np.ndarray:
        """Numbers that change when somebody changes the annotations: labels, or sizes of boxes."""
        ...

    @property
    def annotations_sha256(self) -> str | None:
        """Of all that `targets` says only in part. None: it says all."""
        ...

    @property
    def image_bytes(self) -> int:
        """About what an image of a batch takes."""
        ...

    @property
    def weights(self) -> np.ndarray | None:
        """For training, float (images,) above 0: how often each image is drawn, relative to the others, in an epoch of
        the same length. None: every image once per epoch."""
        ...

    def sample(self, index: int) -> Any:
        """Read and transform one image. Raises BadImage or OSError where it cannot be read."""
        ...

    def pack(self, samples: list[Any], indices: list[int]) -> Any:
        """In a worker: samples -> a dict that is sent to the main process."""
        ...

    def unpack(self, packed: Any) -> BatchT_co:
        """In the main process: the result of `pack` -> the batch."""
        ...


def training_loader(
    images: Samples[BatchT_co], batch_size: int, seed: int, workers: int, rank: int, world: int
) -> "TrainingLoader[BatchT_co]":
    """`batch_size` counts the images of all `world` processes together. `workers`: -1 is one per core, at most 8."""
    if batch_size < world:
        raise InputError(
            f"batch size {batch_size} leaves some of {world} processes without an image; take {world} or more "
            "(run.batch_size), or fewer processes"
        )
    if len(images) < batch_size:
        raise InputError(
            f"{images.where} has {len(images)} images, fewer than one batch of {batch_size}; "
            f"take a batch size of {len(images)} or less (run.batch_size)"
        )
    sampler = _Sampler(len(images), batch_size, seed, rank, world, images.weights)
    at_once = batch_size // world * images.image_bytes
    return TrainingLoader(images, sampler, _that_fit(_worker_count(workers), at_once))


def evaluation_loader(
    images: Samples[BatchT_co], batch_size: int, workers: int, rank: int, world: int, at_most: int = 0
) -> "EvaluationLoader[BatchT_co]":
    """This process's shard, every `world`-th batch of `batch_size`; the last one may be smaller.

    The batches are the same, whatever the number of processes: the last bits of what a network gives depend on them.

    `at_most`: of the images only so many, evenly spread; 0: all.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is too small; at least 1 is expected")
    chosen = evenly_spread(len(images), at_most or len(images))
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    at_once = min(batch_size, len(chosen)) * images.image_bytes
    return EvaluationLoader(images, batches[rank::world], _that_fit(_worker_count(workers), at_once), world == 1)


def evenly_spread(count: int, at_most: int) -> list[int]:
    """`at_most` of the places 0 to `count` - 1, or all of them."""
    chosen = min(count, at_most)
    return [number * count // chosen for number in range(chosen)]


class TrainingLoader(Generic[BatchT_co]):
    """Endless batches, reshuffled every epoch. `bad` maps the images that could not be read so far to the reasons."""

    def __init__(self, images: Samples[BatchT_co], sampler: "_Sampler", workers: int) -> None:
        self.bad: dict[str, str] = {}
        self.steps_per_epoch = sampler.steps_per_epoch
        """Full batches; the images that are left over are not used in that epoch."""
        self._images = images
        self._sampler = sampler
        self._workers = workers

    @property
    def data(self) -> dict[str, Any]:
        """How many images there are, and SHA-256 of their names, of their targets and of their annotations."""
        names = hashlib.sha256()
        for index in range(len(self._images)):
            names.update(self._images.name(index).encode("utf-8", "surrogateescape") + b"\0")
        targets = hashlib.sha256(np.ascontiguousarray(self._images.targets).tobytes())
        found = {
            "images": len(self._images),
            "names_sha256": names.hexdigest(),
            "targets_sha256": targets.hexdigest(),
        }
        annotations = self._images.annotations_sha256
        return found if annotations is None else found | {"annotations_sha256": annotations}

    def starting_at(self, step: int) -> Iterator[BatchT_co]:
        """Step s is batch `s % steps_per_epoch` of epoch `s // steps_per_epoch`. Workers end with the iterator.

        An image that cannot be read is replaced by the next one in the data set that can. Raises InputError when more
        than `max_bad_files` images cannot be read.
        """
        dataset = _TrainingBatches(self._images, self._sampler.seed)
        for result in _loader(dataset, self._sampler.from_step(step), self._workers):
            _note_bad(self.bad, result.bad, self._images)
            if result.packed is None:
                raise _none_readable(self._images, self.bad)
            yield self._images.unpack(result.packed)


class EvaluationLoader(Generic[BatchT_co]):
    """Every image once per iteration. `bad` maps the images that were skipped to the reasons.

    `alone`: no other process has a part of the images; where one has, it may be the one whose images can be read.
    """

    def __init__(self, images: Samples[BatchT_co], batches: list[list[int]], workers: int, alone: bool) -> None:
        self.bad: dict[str, str] = {}
        self._alone = alone
        self._images = images
        self._batches = batches
        self._workers = workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[BatchT_co]:
        """Raises InputError when more than `max_bad_files` images cannot be read, or, alone, when none can."""
        empty = bool(self._batches)
        for result in _loader(_EvaluationBatches(self._images), self._batches, self._workers):
            _note_bad(self.bad, result.bad, self._images)
            if result.packed is not None:
                empty = False
                yield self._images.unpack(result.packed)
        if empty and self._alone:
            raise _none_readable(self._images, self.bad)


# Sampling


@dataclass(frozen=True, eq=False)
class _Sampler:
    """The order of the training images, a pure function of (seed, epoch).

    A draw is `repetition * images + index`: the first time that an epoch shows an image it is the image's index, and
    later ones are other numbers, so that they are augmented in another way.
    """

    images: int
    batch_size: int
    seed: int
    rank: int
    world: int
    weights: np.ndarray | None = None
    """As in `Samples`."""

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def from_step(self, step: int) -> Iterator[tuple[int, list[int]]]:
        """(epoch, draws of this process) of every step from `step` on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        while True:
            order = self._order(epoch)
            for start in range(position * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size):
                # Every `world`-th: accumulation then makes parts of the same images, whatever the number of processes.
                yield epoch, order[start + self.rank : start + self.batch_size : self.world].tolist()
            epoch, position = epoch + 1, 0

    def _order(self, epoch: int) -> Tensor:
        """The draws of an epoch, int64 (images,)."""
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]))
        order = torch.randperm(self.images, generator=generator)
        if self.weights is None:
            return order
        # Systematic sampling: of an image that is due 2.3 times, 2 or 3 draws, and as many in all as there are images.
        due = np.cumsum(self.weights / self.weights.sum()) * self.images
        due[-1] = self.images
        offset = float(torch.rand((), generator=generator, dtype=torch.float64))
        drawn = np.diff(np.floor(due + offset).astype(np.int64), prepend=0)
        indices = np.repeat(np.arange(self.images), drawn)
        repetitions = np.arange(self.images) - np.repeat(np.cumsum(drawn) - drawn, drawn)
        return torch.from_numpy(repetitions * self.images + indices)[order]


# In the workers


@dataclass(frozen=True)
class _WorkerResult:
    """What a worker sends: the packed batch, None if no image could be read, and the bad images."""

    packed: Any
    bad: dict[str, str]
    failure: str = ""
    """Why there is no batch, where that is no image's fault."""

    def pin_memory(self) -> "_WorkerResult":
        """PyTorch's hook for custom types."""
        if self.packed is None:
            return self
        pinned = {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in self.packed.items()}
        return _WorkerResult(pinned, self.bad)


def _result_of(make: "Callable[[], _WorkerResult]") -> _WorkerResult:
    """What `make` gives; in a worker with its tensors in shared memory already: where there is no room for them, the
    thread that sends them would only drop them, and the main process would wait for ever."""
    in_worker = get_worker_info() is not None
    try:
        result = make()
        if in_worker and result.packed is not None:
            for value in result.packed.values():
                if isinstance(value, Tensor):
                    value.share_memory_()
        return result
    except InputError as error:
        return _WorkerResult(None, {}, str(error))
    except RuntimeError as error:
        if in_worker and _NO_ROOM.search(str(error)):
            return _WorkerResult(None, {}, f"the shared memory of the data workers is full ({error}); {_MORE_SHM}")
        raise


_NO_ROOM = re.compile("shared memory|No space left|Cannot allocate memory", re.IGNORECASE)
_SHM = Path("/dev/shm")
_MORE_SHM = (
    "give it more (docker run --shm-size=2g or --ipc=host; in Kubernetes an emptyDir with medium Memory at /dev/shm), "
    "or take fewer workers (run.workers; 0 needs none)"
)


@dataclass(frozen=True)
class _TrainingBatches(Dataset):
    images: Samples
    seed: int

    def __getitem__(self, key: tuple[int, list[int]]) -> _WorkerResult:
        return _result_of(lambda: self._batch(*key))

    def _batch(self, epoch: int, draws: list[int]) -> _WorkerResult:
        samples: list[Any] = []
        read: list[int] = []
        bad: dict[str, str] = {}
        with host_state_kept():
            for draw in draws:
                seed_host(self.seed, epoch, draw)
                found = self._first_readable(draw % len(self.images), bad)
                if found is None:
                    return _WorkerResult(None, bad)
                sample, index_read = found
                samples.append(sample)
                read.append(index_read)
        return _WorkerResult(self.images.pack(samples, read), bad)

    def _first_readable(self, index: int, bad: dict[str, str]) -> tuple[Any, int] | None:
        """None after more bad images than are allowed, or if no image can be read."""
        for candidate in chain(range(index, len(self.images)), range(index)):
            if len(bad) > self.images.max_bad_files:
                return None
            sample = _read(self.images, candidate, bad)
            if sample is not None:
                return sample, candidate
        return None


@dataclass(frozen=True)
class _EvaluationBatches(Dataset):
    images: Samples

    def __getitem__(self, indices: list[int]) -> _WorkerResult:
        return _result_of(lambda: self._batch(indices))

    def _batch(self, indices: list[int]) -> _WorkerResult:
        samples: list[Any] = []
        read: list[int] = []
        bad: dict[str, str] = {}
        for index in indices:
            sample = _read(self.images, index, bad)
            if sample is not None:
                samples.append(sample)
                read.append(index)
        return _WorkerResult(self.images.pack(samples, read) if read else None, bad)


def _read(images: Samples, index: int, bad: dict[str, str]) -> Any:
    """The sample; None, with an entry in `bad`, where the image cannot be read."""
    name = images.name(index)
    if name in bad:
        return None
    try:
        return images.sample(index)
    except BadImage as error:
        bad[name] = error.reason
    except OSError as error:
        bad[name] = error.strerror or str(error)
    return None


# In the main process


def _loader(
    parts: "_TrainingBatches | _EvaluationBatches", keys: Iterable[Any], workers: int
) -> Iterator[_WorkerResult]:
    if workers:
        _start_fork_server(parts.images)
    loader = DataLoader(
        parts,
        batch_size=None,  # a key is a whole batch
        sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=_start_method() if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # PyTorch draws a number from it, or else from the global generator
    )
    known = set(multiprocessing.active_children())
    with _stop_signals_blocked():
        results = iter(loader)
    if workers:
        _killed_at_the_end_of(os.getpid()).update(set(multiprocessing.active_children()) - known)
    while True:
        try:
            result = next(results)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"{parts.images.where}: a process that reads images has ended ({str(error).splitlines()[0]}). The "
                "system may have killed it for want of memory: take fewer of them (run.workers) and give the same "
                "command again"
            ) from error
        if result.failure:
            raise InputError(f"{parts.images.where}: {result.failure}")
        yield result


@cache
def _killed_at_the_end_of(process: int) -> "WeakSet[BaseProcess]":
    """Workers of the process of this number, which is this one. Python ends daemons by SIGTERM, which these ignore, and
    would then wait for them for ever."""
    workers: WeakSet[BaseProcess] = WeakSet()
    multiprocessing.util.Finalize(None, _kill, (workers,), exitpriority=10)
    return workers


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal, a batch system's SIGTERM to every one of a job. What starts inside
    does not hear them, so that the main process can finish its step; it receives the signal afterwards itself.

    PyTorch would have the end of a worker raise an error wherever the main process is, as in the middle of a step; the
    next batch raises it anyway.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it unblocks the signals
    in_main_thread = threading.current_thread() is threading.main_thread()
    of_children = signal.getsignal(signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        if in_main_thread and of_children is not None:  # None: a handler that Python has not set, and cannot set again
            signal.signal(signal.SIGCHLD, of_children)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unchanged(result: Any) -> Any:
    return result


def _start_worker(_: int) -> None:
    """Ignore Pillow's warnings of damaged metadata, in this process alone, and exit when the main process does, and not
    when it is asked to stop.

    PyTorch's own check watches the fork server, which waits for its workers if the main process is killed.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    main = multiprocessing.parent_process()
    assert main is not None

    def exit_with_main() -> None:
        main.join()
        os._exit(1)

    threading.Thread(target=exit_with_main, daemon=True).start()


def _start_method() -> str:
    """A fork of the training process may deadlock (threads) and breaks CUDA; spawn imports torch once per worker.

    A fork server is as safe as spawn and imports once for all workers together.
    """
    return "forkserver" if sys.platform == "linux" else "spawn"


def _start_fork_server(images: Samples) -> None:
    """Have the server import what its workers need. No effect on a server that is already running.

    To be called where no signals are blocked: they would be in all that the server ever starts, for whomever.
    """
    if _start_method() == "forkserver":
        multiprocessing.set_forkserver_preload([__name__, *images.preload])
        forkserver.ensure_running()


def _worker_count(workers: int) -> int:
    if workers < -1:
        raise InputError(
            f"{workers} workers; expected -1 (one per core, at most 8 per process), 0 (none) or more (run.workers)"
        )
    if workers >= 0:
        return workers
    return max(1, min(8, cores() // _processes_here()))


def _processes_here() -> int:
    """Of a run that torchrun started, those on this machine, which share its cores and its memory; else one."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _that_fit(workers: int, batch_bytes: int) -> int:
    """So many workers, or as many as have room for their batches in shared memory: each prepares two of `batch_bytes`,
    and one or two more are in use."""
    if not workers or not _SHM.is_dir():
        return workers
    free = shutil.disk_usage(_SHM).free // _processes_here()
    fit = int(free / max(batch_bytes, 1) - 2) // 2
    if fit >= workers:
        return workers
    fit = max(fit, 0)
    log.warning(
        "%d workers with batches of %s need %s of shared memory, and %s has %s for each process: %s; %s",
        workers,
        readable_bytes(batch_bytes),
        readable_bytes((2 * workers + 2) * batch_bytes),
        _SHM,
        readable_bytes(free),
        f"only {fit} of them are started" if fit else "images are read in the main process, which is slow",
        _MORE_SHM,
    )
    return fit


def _note_bad(known: dict[str, str], new: dict[str, str], images: Samples) -> None:
    for name, reason in new.items():
        if name not in known:
            known[name] = reason
            log.warning("%s: skipped %s: %s", images.where, name, reason)
    if len(known) > images.max_bad_files:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in sorted(known.items()))
        raise InputError(
            f"{len(known)} images of {images.where} cannot be read, {images.max_bad_files} are tolerated "
            f"(images.max_bad_files):\n{listed}\nRepair or remove them, or allow more"
        )


def _none_readable(images: Samples, bad: dict[str, str]) -> InputError:
    name, reason = next(iter(bad.items()))
    return InputError(f"none of the {len(bad)} images of {images.where} can be read; the first: {name}: {reason}")
