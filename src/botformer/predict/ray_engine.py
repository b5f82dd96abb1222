"""Many images on Ray Data: the same predictor in a pool of processes, on this machine or on many.

What is predicted is written into Parquet files as it goes, beside Ray's own notes of which images that was, so that a
run that was killed goes on. At the end the same files are made of it as without Ray.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from botformer.data.image_inputs import Damaged, NamedBytes
from botformer.environment import cores
from botformer.errors import InputError
from botformer.predict.coco_ids import IdAndSize
from botformer.predict.detector import DetectorNetwork
from botformer.predict.prediction_log import (
    PARQUET,
    RAY_CHECKPOINT,
    PredictionLog,
    check_replaced,
    check_unfinished,
    committed,
)
from botformer.predict.prediction_records import (
    BulkOptions,
    BulkSummary,
    began_with,
    known_images,
    write_json_files,
    wrong_size,
)
from botformer.predict.predictor import Predictor
from botformer.predict.tar_members import TAR_IMAGE_BYTES, is_tar

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it reports to its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else it warns of its own actors on the terminal
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else, under uv run, it packs the working directory
}
_ENVIRONMENT_HERE = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",  # else two processes outlive a killed command for 70 s
}
"""Of a Ray that is started on this machine."""
_CPUS_LEFT = 2
"""For reading names, for the checkpoint and for writing: with an actor on every CPU nothing is ever written."""
_LEAST_ACTORS = 2
"""At most so many: Ray replaces a dead actor only in a pool that may grow."""
_BLOCKS_PER_ACTOR, _BATCHES_PER_BLOCK = 8, 64
_MOST_CPUS_PER_GPU = 8
_POLLED_EVERY_S = 0.5


@dataclass
class RaySummary(BulkSummary):
    """What happened."""

    first_done_s: float = 0.0
    """Seconds until the first images were done: what it takes to start Ray, and a block of images."""
    all_done_s: float = 0.0


@dataclass(frozen=True)
class _Pool:
    """Of actors."""

    most: int
    cpus: int
    gpus: int


def predict_on_ray(
    make: Callable[..., Predictor],
    files: Sequence[Path],
    out: Path,
    options: BulkOptions,
    address: str | None = None,
    device: str = "auto",
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> RaySummary:
    """Predict every image of `files`, among which tars of images may be, into the folder `out`.

    predictions.parquet has a row per image once its block is done; a run that was stopped there goes on with the images
    that have none. At the end predictions.jsonl, predictions.json and images.json are made of it, as `predict_files`
    does. A file that cannot be read is a row with its reason. Nothing is drawn.

    Args:
        make: `make(device=..., decoders=...)` gives each actor its predictor; it is sent to other processes.
        address: of a cluster; None: one that is started on this machine, and stopped at the end.
        device: "auto" (the GPUs that the cluster has, or else CPUs), "cuda" or "cpu".
        on_progress: called, from another thread, with the fraction of the images that is done.

    Raises:
        InputError: Ray is not installed or not there, options that do not fit the network or the files, `out` has a
            stopped run of other options, or is not a folder that all machines of the cluster share.
    """
    predictor = make(device="cpu")
    known, category_ids = known_images(predictor, files, out, options)
    names = hashlib.sha256(b"\0".join(os.fsencode(file) for file in files)).hexdigest()
    wanted = began_with(predictor, options, "ray") | {"images": names}
    check_unfinished(out, wanted)  # before Ray takes its time
    check_replaced(out, files)
    with ray_on(address) as ray:
        pool = _pool(ray, device)
        out.mkdir(parents=True, exist_ok=True)
        log = PredictionLog(out, wanted)
        try:
            summary = RaySummary(category_ids)
            with _progress(out, files, summary, on_progress):
                _predict(make, pool, predictor.batch_size, files, out, category_ids)
            _write_lines(log, files, known, out, summary)
            write_json_files(log, predictor, category_ids, out)
            log.finish()
            return summary
        finally:
            log.close()


@contextmanager
def ray_on(address: str | None) -> Iterator[Any]:
    """Ray, connected. One that a program has already is used, and left as it is."""
    if address is not None and address.startswith("ray://"):
        raise InputError(
            f"--ray-address {address}: Ray's client does not carry Ray Data; run this command on a machine of the "
            "cluster (ray job submit -- botformer predict ...) with --ray-address auto"
        )
    wanted = _ENVIRONMENT | (_ENVIRONMENT_HERE if address is None else {})
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    level = None
    try:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise InputError(
                f"--engine ray needs the package ray ({error}): pip install 'botformer[ray]'; or leave --engine out"
            ) from None
        log = logging.getLogger("ray.data")
        level = log.level
        log.setLevel(logging.ERROR)
        if ray.is_initialized():
            yield ray
            return
        here: dict[str, Any] = {"address": address}
        if address is None:
            cpus = max(cores(), _LEAST_ACTORS) + _CPUS_LEFT
            here = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        try:
            ray.init(**here, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--ray-address {address}: there is no Ray cluster ({error}); start one (ray start --head), or "
                "leave it out to start Ray on this machine"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        if level is not None:
            logging.getLogger("ray.data").setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _predict(
    make: Callable[..., Predictor],
    pool: _Pool,
    batch_size: int,
    files: Sequence[Path],
    out: Path,
    category_ids: Sequence[int],
) -> None:
    """Write the rows that are not there yet."""
    import ray.data

    from botformer.predict.ray_source import NamedImages, count_tasks

    smallest_blocks = -(-len(files) // (pool.most * _BLOCKS_PER_ACTOR))
    block_images = min(max(smallest_blocks, batch_size), batch_size * _BATCHES_PER_BLOCK)
    with checkpointed(out):
        images = ray.data.read_datasource(
            NamedImages(files, block_images), override_num_blocks=count_tasks(files, block_images)
        )
        rows = images.map_batches(
            PredictRows,
            fn_constructor_args=(make, "cuda" if pool.gpus else "cpu", pool.cpus, category_ids),
            batch_size=None,  # the block
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(pool.most, _LEAST_ACTORS)),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
        rows.write_parquet(str((out / PARQUET).absolute()))


@contextmanager
def checkpointed(out: Path) -> Iterator[None]:
    """Ray notes in `out` what is written, and leaves that out the next time."""
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    from botformer.predict.checkpoint_check import CheckpointIsOn

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.use_datasource_v2 = False  # which starts 32 processes to read the notes of what is done
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, CheckpointIsOn]
    context.checkpoint_config = CheckpointConfig(
        id_column="path",
        checkpoint_path=str((out / RAY_CHECKPOINT).absolute()),
        delete_checkpoint_on_success=False,  # but once the JSON files are made
    )
    with ray.data.DataContext.current(context):
        yield


def _pool(ray: Any, device: str) -> _Pool:
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise InputError("--device cuda: Ray finds no GPU; leave --device out to predict on CPUs")
    if device != "cpu" and gpus:
        with_gpus = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        per_gpu = min((int((node.get("CPU", 0) - 1) // node["GPU"]) for node in with_gpus), default=1)
        pool = _Pool(gpus, max(1, min(per_gpu, _MOST_CPUS_PER_GPU)), 1)
        least = gpus * pool.cpus + 1
    else:
        pool = _Pool(max(cpus - _CPUS_LEFT, _LEAST_ACTORS), 1, 0)
        least = _LEAST_ACTORS + _CPUS_LEFT
    if cpus < least:
        raise InputError(
            f"the Ray cluster has {cpus} CPUs, and at least {least} are needed: some must be left for reading and "
            "writing; add CPUs (ray start --num-cpus)"
        )
    return pool


class PredictRows:
    """A predictor in an actor: rows of `ray_source` -> rows of `parquet_rows`."""

    def __init__(self, make: Callable[..., Predictor], device: str, decoders: int, category_ids: Sequence[int]) -> None:
        self._predictor = make(device=device, decoders=decoders)
        self._category_ids = category_ids

    def __call__(self, images: Any) -> Any:
        import pyarrow as pa

        from botformer.predict.parquet_rows import CLASSES, DETECTIONS, row_of

        rows = images.to_pylist()
        of_images = ({key: row[key] for key in ("path", "place", "member")} for row in rows)
        results = self._predictor.stream(map(_source, rows))
        of_results = (row_of(result, self._category_ids) for result in results)
        schema = DETECTIONS if isinstance(self._predictor.network, DetectorNetwork) else CLASSES
        return pa.Table.from_pylist([one | other for one, other in zip(of_images, of_results, strict=True)], schema)


def _source(row: dict[str, Any]) -> Path | NamedBytes | Damaged:
    if row["error"] is not None:
        return Damaged(row["path"], row["error"])
    return Path(os.fsdecode(row["file"])) if row["data"] is None else NamedBytes(row["path"], row["data"])


@contextmanager
def _progress(
    out: Path, files: Sequence[Path], summary: RaySummary, on_progress: Callable[[float], object]
) -> Iterator[None]:
    """Count the images that are done, as long as it lasts."""
    import pyarrow.parquet as pq

    start, ended = time.monotonic(), Event()
    about = sum(
        max(1.0, file.stat().st_size / TAR_IMAGE_BYTES) if is_tar(file.name) and file.is_file() else 1.0
        for file in files
    )
    counted: dict[str, int] = {}

    def count() -> int:
        for file in committed(out):
            if file.name not in counted:
                counted[file.name] = pq.read_metadata(file).num_rows
        return sum(counted.values())

    def poll() -> None:
        while not ended.wait(_POLLED_EVERY_S):
            done = count()
            if done > summary.earlier and not summary.first_done_s:
                summary.first_done_s = time.monotonic() - start
            on_progress(min(done / about, 1.0))

    summary.earlier = count()
    polling = Thread(target=poll, name="botformer-ray-progress", daemon=True)
    polling.start()
    try:
        yield
    finally:
        ended.set()
        polling.join()
    summary.all_done_s = time.monotonic() - start
    summary.first_done_s = summary.first_done_s or summary.all_done_s
    on_progress(1.0)


def _write_lines(
    log: PredictionLog, files: Sequence[Path], known: Sequence[IdAndSize], out: Path, summary: RaySummary
) -> None:
    """predictions.jsonl of the Parquet files."""
    from botformer.predict.parquet_rows import content_of, name_of, rows_in_order

    log.remove_lines()
    there = np.zeros(len(files), dtype=bool)
    last = None
    for number, row in enumerate(rows_in_order(out / PARQUET), 1):
        place = row["place"], row["member"]
        if place == last:
            raise InputError(f"{row['path']} is twice in {out / PARQUET}; name another --out")
        last, there[row["place"]] = place, True
        expected = known[row["place"]] if known else IdAndSize(number, None)
        file = files[row["place"]]
        name = name_of(row["path"]) if is_tar(file.name) else file.as_posix()
        record = {"id": expected.id, "file_name": name}
        error = row["error"]
        if error is None:
            error = wrong_size((row["width"], row["height"]), expected)
        if error is None:
            record |= {"width": row["width"], "height": row["height"], "drawing": None} | content_of(row, expected.id)
        else:
            record["error"] = error
        log.add(record)
        summary.count(record)
    if not there.all():
        raise InputError(
            f"{out / PARQUET} holds nothing of {files[int(there.argmin())]} and {len(files) - there.sum() - 1} others; "
            "--out must be a folder that all machines of the cluster share"
        )
