"""An exported network in int8: calibrated on training images, and kept only where it pays.

A float network is written first; `quantize` makes a copy of it in int8, `gate.gate` measures whether it stays.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from botformer.create import Loaded
from botformer.deploy import quantizers
from botformer.deploy.check_batches import IMAGES, check_batches
from botformer.deploy.deployed_accuracy import LIMIT, DeployedAccuracy
from botformer.deploy.export import RUN_SCRIPT
from botformer.deploy.exported_folder import CONFIG, check_files, check_free, new_folder, read_config, write_config
from botformer.deploy.formats import FORMATS, FormatName
from botformer.deploy.gate import Verdict, gate
from botformer.deploy.prepared_images import Inputs, fixed_side, prepared_batches, prepared_inputs
from botformer.deploy.run_script import run_script
from botformer.deploy.runtimes import Runtime, open_model
from botformer.deploy.support import check_supported
from botformer.environment import versions
from botformer.errors import InputError
from botformer.exportable import ExportTask

_CALIBRATION_IMAGES = {"classification": 200, "detection": 64}
_CALIBRATED, _FLOAT_MEASURED = 0.4, 0.7
"""Fractions of the whole, for a bar."""
_LAST_LINES = 12
"""Of what a quantiser printed, shown where it failed."""


def export_int8(
    float_folder: Path,
    out: Path,
    loaded: Loaded,
    data: str,
    *,
    workers: int = -1,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> Verdict:
    """Quantise the exported network in `float_folder`, and keep the result in `out` if it is worth it.

    Args:
        float_folder: what an `export_...` function wrote in float32; it stays as it is.
        out: a folder that is not there yet, or an earlier export.
        loaded: the network that was exported: it says how images are prepared.
        data: its data, as for `botformer train`. Ranges of numbers are measured on training images, evenly spread, 200
            for a classifier and 64 for a detector; accuracy on all validation images.
        workers: processes that read images; -1: one per core, at most 8 per process; 0: none.
        on_progress: called with the fraction that is done.

    Returns:
        The figures, which config.json of `out` holds under "int8".

    Raises:
        InputError: the format or the network cannot be quantised, a package is missing, or the data do not fit; or
            int8 is not faster, or less accurate: with both figures; or its answers depend on the batch. `out` is then
            as it was before.
    """
    config = read_config(float_folder)
    _check_quantizable(config, float_folder)
    check_free(out)
    if out.resolve() == float_folder.resolve():
        raise InputError(f"{out} holds the float network, which stays; name another folder for int8")
    inputs = calibration_inputs(loaded, config, data, workers)
    accuracy = DeployedAccuracy(loaded, config, data, workers=workers)
    first = list(islice(inputs, IMAGES))
    parts = iter([(_CALIBRATED, _FLOAT_MEASURED), (_FLOAT_MEASURED, 1.0)])

    def evaluate(runtime: Runtime) -> float:
        begin, end = next(parts)
        return accuracy.measure(runtime, lambda done: on_progress(begin + (end - begin) * done))

    with new_folder(out) as unfinished:
        _quantize_into(
            unfinished, float_folder, config, chain(first, inputs), lambda done: on_progress(_CALIBRATED * done)
        )
        batches = check_batches(open_model(read_config(unfinished), unfinished), first)
        verdict = gate(float_folder, unfinished, evaluate, LIMIT, first[0], lambda: accuracy.scale)
        if verdict.reasons:
            raise InputError(
                f"int8 of {FORMATS[config['format']].title} is refused, because {' and '.join(verdict.reasons)}: "
                f"{verdict.figures()}. The float network stays in {float_folder}"
            )
        write_config(unfinished, read_config(unfinished) | {"int8": verdict.as_dict() | {"batches": batches}})
    return verdict


def calibration_inputs(loaded: Loaded, config: Mapping[str, Any], data: str, workers: int = -1) -> Iterator[Inputs]:
    """Training images as the exported network takes them."""
    count = _CALIBRATION_IMAGES[config["task"]]
    batches, _ = prepared_batches(loaded, fixed_side(config), data, "train", count, workers)
    return prepared_inputs(config, batches)


def quantize(
    folder: Path,
    calibration: Iterable[Mapping[str, np.ndarray]],
    out: Path | None = None,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> Path:
    """A copy of the exported network in `folder` in int8, in the same format, whatever it is worth.

    Args:
        folder: of a network in float32.
        calibration: inputs by name, as the network takes them: a few hundred images.
        out: by default NAME-int8 beside it.
        on_progress: called with the fraction that is done.

    Raises:
        InputError: a format without int8, a package that is missing, or no inputs.
    """
    config = read_config(folder)
    _check_quantizable(config, folder)
    out = folder.with_name(f"{folder.name}-int8") if out is None else out
    with new_folder(out) as unfinished:
        _quantize_into(unfinished, folder, config, calibration, on_progress)
    return out


def check_int8(format_name: FormatName, task: ExportTask) -> None:
    """Raise `InputError` unless such networks can be quantised here."""
    check_supported(format_name, task, "int8")
    missing = [package for package in quantizers.PACKAGES[format_name] if find_spec(package) is None]
    if missing:
        raise InputError(
            f"int8 of {FORMATS[format_name].title} needs {' and '.join(missing)}, which is not installed: "
            'pip install "botformer[export]"'
        )


def _check_quantizable(config: Mapping[str, Any], folder: Path) -> None:
    check_int8(config["format"], config["task"])
    if config["precision"] != "float32":
        raise InputError(f"{folder} is in {config['precision']}; int8 is made of a network in float32")
    check_files(folder, config)


def _quantize_into(
    out: Path,
    folder: Path,
    config: Mapping[str, Any],
    calibration: Iterable[Mapping[str, np.ndarray]],
    on_progress: Callable[[float], object],
) -> None:
    """Fill the empty folder `out`. A process of its own does it (see `quantizers`)."""
    with tempfile.TemporaryDirectory() as scratch:
        count = 0
        for count, inputs in enumerate(calibration, 1):
            np.savez(Path(scratch) / f"{count:06}.npz", **inputs)  # pyright: ignore[reportArgumentType]
        if not count:
            raise InputError("int8 needs images to calibrate on, and there are none")
        row = FORMATS[config["format"]]
        paths = folder / row.model_file, out / row.model_file, folder / CONFIG, Path(scratch)
        _run_quantizer(paths, row.title, count, on_progress)
    more = {key: value for key, value in config.items() if key != "files"}
    more |= {"precision": "int8", "calibration_images": count}
    more["versions"] = config["versions"] | versions(more=row.to_run + quantizers.PACKAGES[config["format"]])
    if (folder / RUN_SCRIPT).is_file():
        (out / RUN_SCRIPT).write_text(run_script(more), encoding="utf-8")
    write_config(out, more)


def _run_quantizer(paths: Iterable[Path], title: str, count: int, on_progress: Callable[[float], object]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", quantizers.__file__, *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"NNCF_CI": "1", "ORT_DISABLE_TELEMETRY": "1"},
    )
    assert process.stdout is not None
    lines, seen = [], 0
    try:
        for line in process.stdout:
            if line.startswith(quantizers.SEEN):
                seen += 1
                on_progress(min(seen / (count + 1), 1))  # the last part is what follows the last image
            else:
                lines.append(line.rstrip())
        process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if process.returncode:
        end = "\n".join(lines[-_LAST_LINES:])
        raise InputError(f"{title} could not be quantised; what was printed:\n{end}")
    on_progress(1.0)
