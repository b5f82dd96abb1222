"""Write a trained network for another runtime, compared with PyTorch: botformer export RUN --format onnx."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from botformer.commands.results_folder import results_folder
from botformer.commands.screen import new_table, print_table, progress_bar
from botformer.errors import InputError
from botformer.terminal import screen
from botformer.text import duration


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, the name of a network that comes with the package, such as nuclei, or hf://owner/name."""
    format: Literal["onnx", "openvino", "torch", "executorch"] = "onnx"
    """onnx: ONNX Runtime and most others. openvino: Intel's and AMD's processors, fastest in int8. torch: PyTorch
    without botformer. executorch: phones; one size."""
    out: Path | None = None
    """Folder to write; by default exported/FORMAT in the run (exported/step-.../FORMAT of one checkpoint), or
    runs/exported/NAME/FORMAT. An earlier export in it is replaced; a folder with anything else is refused."""
    precision: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """float16: weights in half the bytes. bfloat16: computed in it, two to six times as fast where the processor has
    it. int8: calibrated on --data, and kept only if it is faster and as good."""
    size: int | None = None
    """Side of the images in pixels, fixed; for a detector, of its canvas. By default classifiers take any size, and
    what must be fixed is as in evaluation."""
    batch: int | None = None
    """Images per call, fixed. By default any, or 1 where it must be fixed."""
    data: Path | None = None
    """A folder of images, on some of which the exported network is compared with PyTorch, too. For --precision int8 the
    data of the training: training images calibrate, validation images measure."""


_COMPARED = 8
"""Images of --data on which the graph is compared with PyTorch."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer export", description=__doc__)
    _check(given)
    export_run(given)


def _check(given: Arguments) -> None:
    """What no network could use, before anything is loaded."""
    for name in ("size", "batch"):
        if (value := getattr(given, name)) is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if given.precision == "int8" and given.data is None:
        raise InputError("--precision int8 is calibrated and measured on images; give the training's folder as --data")


def export_run(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.create.from_checkpoint import load_for_rgb
    from botformer.deploy.export import export
    from botformer.deploy.exported_folder import check_free, read_config
    from botformer.deploy.int8 import check_int8, export_int8
    from botformer.deploy.prepared_images import images_in, training_images
    from botformer.deploy.support import check_supported

    out = given.out or results_folder(given.checkpoint, "exported") / given.format
    check_free(out)
    loaded = load_for_rgb(given.checkpoint)
    model, model_config = loaded
    check_supported(given.format, model_config["task"], given.precision)
    in_float, written, images = given.precision, out, []
    if given.precision == "int8":  # made of a network in float32, which stays beside it
        check_int8(given.format, model_config["task"])
        in_float, written = "float32", out.with_name(f"{out.name}-float32")
        check_free(written)
        images = training_images(loaded, given.size, str(given.data), _COMPARED)
    elif given.data is not None:
        images = images_in(given.data, model_config, given.size, _COMPARED)
    console = screen()
    started = time.monotonic()
    with progress_bar(f"exporting to {given.format}") as bar:
        export(
            given.format,
            model,
            written,
            model_config,
            precision=in_float,
            size=None if given.size is None else (given.size, given.size),
            batch=given.batch,
            images=images,
            on_progress=bar.show,
        )
    config = read_config(written)
    table = new_table("compared with PyTorch at", *config["checked"][0]["differences"])
    for record in config["checked"]:
        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in record["inputs"].items())
        table.add_row(shapes, *(f"{value:.2g}" for value in record["differences"].values()))
    print_table(console, table)
    if given.precision == "int8":
        with progress_bar("int8: calibrating, and measuring both networks") as bar:
            verdict = export_int8(written, out, loaded, str(given.data), on_progress=bar.show)
        console.print(f"int8 is kept: {verdict.figures()}")
        config = read_config(out)
    for note in config.get("notes", ()):
        console.print(f"note: {note}")
    megabytes = sum(file["bytes"] for file in config["files"].values()) / 1e6
    console.print(f"{out}: {megabytes:.1f} MB in {duration(time.monotonic() - started)}. To run it anywhere:")
    console.print(f"  python {out / 'run.py'} IMAGE")
