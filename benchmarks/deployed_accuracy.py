"""Accuracy of trained networks by format and precision, on validation images -> results/deployed_accuracy_cpu.json.

python benchmarks/deployed_accuracy.py --network "botnet50, photographs" RUN DIR --network "nuclei" nuclei DIR

A row per format and precision; the first of each network is PyTorch's. int8 is measured whether or not the gate of
`botformer export` would keep it. Figures so far are kept where the command is interrupted.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import botformer
from botformer.benchmark.receipt import write_receipt
from botformer.create import Loaded
from botformer.deploy.deployed_accuracy import DeployedAccuracy
from botformer.deploy.export import export
from botformer.deploy.exported_folder import read_config
from botformer.deploy.formats import FormatName, Precision
from botformer.deploy.int8 import calibration_inputs, quantize
from botformer.deploy.runtimes import Runtime, open_exported
from botformer.errors import InputError

RESULTS = Path(__file__).parents[1] / "results"
WAYS: tuple[tuple[FormatName, Precision], ...] = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch", "int8"),
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs=3, action="append", required=True, metavar=("TITLE", "RUN", "DATA"))
    parser.add_argument("--images", type=int, default=0, help="validation images per network; 0: all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    figures: list[dict[str, Any]] = []
    # Folders of this machine are no part of a result.
    command = shlex.join(["python", "benchmarks/deployed_accuracy.py", *_without_folders(sys.argv[1:])])
    for title, run, data in given.network:
        for row in rows(botformer.load(run), data, given.images):
            figures.append({"network": title, **row})
            print(figures[-1], file=sys.stderr, flush=True)
            write_receipt(
                given.out / "deployed_accuracy_cpu.json",
                "Accuracy of exported networks by format and precision",
                command,
                figures,
                notes="difference: to PyTorch's network in float32, on the same images, one at a time.",
            )


def rows(loaded: Loaded, data: str, images: int) -> Iterator[dict[str, Any]]:
    """PyTorch's figures, then those of each way."""
    with tempfile.TemporaryDirectory() as scratch:
        expected = None
        for name, precision in (("PyTorch", "float32"), *WAYS):
            folder = Path(scratch) / f"{name}-{precision}"
            try:
                if precision == "int8":
                    float_folder = folder.with_name(f"{name}-float32")
                    quantize(float_folder, calibration_inputs(loaded, read_config(float_folder), data), folder)
                elif name != "PyTorch":
                    export(name, loaded.model, folder, loaded.model_config, precision=precision)
                runtime = _pytorch(loaded) if name == "PyTorch" else open_exported(folder)
                accuracy = DeployedAccuracy(loaded, runtime.config, data, images)
                score = accuracy.measure(runtime)
            except InputError as error:
                yield {"format": name, "precision": precision, "left_out": str(error).partition("\n")[0]}
                continue
            expected = score if expected is None else expected
            metric, counted, unit = accuracy.scale
            yield {
                "format": name,
                "precision": precision,
                "metric": metric,
                "score": round(score, 4),
                "difference": round(score - expected, 4) + 0.0,  # never -0.0
                "over": f"{counted} {unit}",
            }


def _pytorch(loaded: Loaded) -> Runtime:
    """The network itself, called as an exported one is."""
    exportable = loaded.model.exportable()

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            results = exportable.reference(*(torch.from_numpy(inputs[name]) for name in exportable.input_names))
        return {name: result.numpy() for name, result in zip(exportable.output_names, results, strict=True)}

    def shape(name: str, tensor: torch.Tensor) -> list[Any]:
        axes = exportable.dynamic.get(name, {})
        return [axes.get(axis, side) for axis, side in enumerate(tensor.shape)]

    inputs = [
        {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape(name, tensor)}
        for name, tensor in zip(exportable.input_names, exportable.example, strict=True)
    ]
    return Runtime({"inputs": inputs, "outputs": [{"name": name} for name in exportable.output_names]}, run)


def _without_folders(arguments: list[str]) -> list[str]:
    return [Path(argument).name if "/" in argument else argument for argument in arguments]


if __name__ == "__main__":
    main()
