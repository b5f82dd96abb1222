"""Every row of the table of exports, tried with small networks -> results/export_matrix.json.

python benchmarks/export_matrix.py
python benchmarks/export_matrix.py --only classifier     # some of the rows, to see that they run; writes nothing

A network is exported, opened in the format's runtime, and compared with PyTorch's on what was traced and on what was
not: other sizes, odd and oblong, for what takes any; other images for detectors. What `deploy.support` refuses is tried
as well: it must be refused. Anything else that fails is an error, and no receipt is written.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import torch
from torch import nn

from botformer.backbone.mhsa import MHSA2d
from botformer.benchmark.receipt import write_receipt
from botformer.create import create_backbone, create_detector, create_model
from botformer.deploy.export import export
from botformer.deploy.formats import FormatName, Precision
from botformer.deploy.int8 import check_int8, quantize
from botformer.deploy.runtimes import open_exported
from botformer.deploy.support import SUPPORT
from botformer.errors import InputError
from botformer.exportable import Exportable

RESULTS = Path(__file__).parents[1] / "results"
NETWORKS = ("classifier", "backbone", "mask_rcnn", "keypoint_rcnn")
"""Faster R-CNN is Mask R-CNN without its mask head."""
DETECTOR = {
    "levels": ("p2", "p3", "p4", "p5"),
    "fpn_channels": 16,
    "anchor_sizes": (16.0, 24.0, 40.0, 64.0),
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n": 50,
    "box_channels": 32,
    "mask_convolutions": 1,
    "mask_channels": 16,
    "keypoints": 5,
    "keypoint_convolutions": 1,
    "keypoint_channels": 16,
    "max_detections": 20,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a network, format or precision")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        for combination in combinations(given.only):
            started = monotonic()
            figures.append(tried(*combination, Path(scratch)))
            print(f"{monotonic() - started:.0f} s", figures[-1], file=sys.stderr, flush=True)
    if given.only:
        return
    write_receipt(
        given.out / "export_matrix.json",
        "Exports: format x network x precision",
        "python benchmarks/export_matrix.py",
        figures,
        seed=0,
        notes="Largest differences from PyTorch in float32. Weights are random, with sharp attention: differences of "
        "int8 say only that the graph is right, and accuracy is measured with trained networks.",
    )


def combinations(only: str = "") -> Iterator[tuple[FormatName, str, Precision]]:
    """Format, network, precision."""
    for name in get_args(FormatName):
        for network in NETWORKS:
            for precision in get_args(Precision):
                if not only or only in (name, network, precision):
                    yield name, network, precision


def tried(name: FormatName, network: str, precision: Precision, scratch: Path) -> dict[str, Any]:
    """The sizes that it takes and the differences, or why it is refused."""
    _, exportable = small_network(network)
    support = SUPPORT[name, exportable.task, precision]
    row: dict[str, Any] = {"format": name, "network": network, "precision": precision}
    try:
        runtime = open_exported(exported(name, network, precision, scratch))
    except InputError as error:
        if not support.refused or support.refused not in str(error):
            raise
        return row | {"refused": support.refused}
    assert not support.refused, f"{row} works"
    differences: dict[str, dict[str, float]] = {}
    for inputs in (exportable.example, *exportable.probes):
        arrays = dict(zip(exportable.input_names, (tensor.numpy() for tensor in inputs), strict=True))
        if not _takes(runtime.inputs, arrays):
            continue
        kind = "not traced" if differences else "traced"  # the first that fits is what a fixed graph was traced with
        with torch.no_grad():
            results = exportable.reference(*inputs)
        expected = dict(zip(exportable.output_names, (result.numpy() for result in results), strict=True))
        of_kind = differences.setdefault(kind, {})
        for figure, value in exportable.differences(expected, runtime(**arrays)).items():
            of_kind[figure] = max(of_kind.get(figure, 0.0), float(f"{value:.2g}"))
    row |= {"sizes": support.sizes} | ({"meaning": support.meaning} if support.meaning else {})
    return row | {f"differences, {kind}": _words(of_kind) for kind, of_kind in differences.items()}


def exported(name: FormatName, network: str, precision: Precision, scratch: Path) -> Path:
    """Raises `InputError` where the combination is refused."""
    folder = scratch / f"{name}-{network}-{precision}"
    model, exportable = small_network(network)
    if precision != "int8":
        return export(name, model, folder, precision=precision)
    check_int8(name, exportable.task)
    float_folder = folder.with_name(f"{name}-{network}-float32")
    if not float_folder.is_dir():
        export(name, model, float_folder)
    return quantize(float_folder, _one_by_one(exportable, open_exported(float_folder).inputs), folder)


@cache
def small_network(name: str) -> tuple[nn.Module, Exportable]:
    """With attention that is sharp: flat, it would hide a wrong one. The scores of a detector are far apart, as those
    of a trained one are: between equal ones any rounding decides."""
    torch.manual_seed(0)
    model: Any
    if name == "classifier":
        model = create_model("botnet_nano", 10, 64, zero_gamma=False)
    elif name == "backbone":
        model = create_backbone("botnet_nano", 64, zero_gamma=False)
    else:
        model = create_detector(name, "botnet_nano", 3, 128, backbone_options={"zero_gamma": False}, **DETECTOR)
    for module in model.modules():
        if isinstance(module, MHSA2d):
            nn.init.normal_(module.qkv.weight, std=0.5 * 64**-0.5)
    if name.endswith("rcnn"):
        with torch.no_grad():
            model.rpn.logits.weight.mul_(30)
            model.box_head.predictor.cls_score.weight.mul_(100)
    model.eval()
    return model, model.exportable()


def _one_by_one(exportable: Exportable, inputs: Any) -> list[dict[str, Any]]:
    """What the graph is traced with, as calls of the batch size that it takes."""
    batch = next((row["shape"][0] for row in inputs if isinstance(row["shape"][0], int)), 1)
    count = exportable.example[0].shape[0] // batch
    return [
        {
            name: tensor[number * batch : (number + 1) * batch].numpy()
            for name, tensor in zip(exportable.input_names, exportable.example, strict=True)
        }
        for number in range(count)
    ]


def _takes(inputs: Any, arrays: dict[str, Any]) -> bool:
    return all(
        isinstance(side, str) or side == own
        for row in inputs
        for side, own in zip(row["shape"], arrays[row["name"]].shape, strict=True)
    )


def _words(differences: dict[str, float]) -> str:
    return ", ".join(f"{figure} {value:.2g}" for figure, value in differences.items())


if __name__ == "__main__":
    main()
