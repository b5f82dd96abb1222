"""Small inputs of every kind that is read, all of them in order: what is damaged later."""

import io
import json
import pickle
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import botformer
from botformer.create import create_classification_task, load
from botformer.create.train_recipe import train_recipe
from botformer.deploy.exported_folder import write_config
from botformer.recipes.schema import ClassificationRecipe, Images, Model, Optimizer, Run, Schedule
from tests.commands.detection_scenes import save_detector
from tests.data.detection.layout_examples import EXAMPLES, coco

CLASSES = ("cat", "dog")
RECIPE = ClassificationRecipe(
    model=Model("botnet_nano"),
    images=Images(size=32),
    optimizer=Optimizer(name="adamw", learning_rate=0.001, ema=0.9),
    schedule=Schedule(epochs=1, warmup_epochs=0),
    run=Run(batch_size=2, workers=0, threads=1, device="cpu", precision="float32", max_steps=1),
)
_MARKER = "executed"
"""A file of this name in the working folder shows that a pickle was run."""


class Malicious:
    """A pickle of this opens a file to write as it is loaded."""

    def __reduce__(self):
        return open, (_MARKER, "w")


def write_valid_inputs(root: Path) -> None:
    """Folders in `root`, one per kind of input."""
    rng = np.random.default_rng(0)
    _write_images(root / "images", rng)
    _write_class_folders(root / "classes", rng)
    _write_shards(root / "shards", rng)
    for number, example in enumerate(EXAMPLES):
        example.write(root / "annotations" / f"{number:02}")
    _write_scenes(root / "scenes", rng)
    _write_networks(root / "networks")
    _write_weights(root / "weights", load(root / "networks" / "classifier.safetensors").model.state_dict())
    train_recipe(RECIPE, str(root / "classes"), root / "run")
    _write_plan(root / "run")
    _write_evaluation(root)
    _write_exported(root / "exported")


def _pixels(rng: np.random.Generator, width: int = 20, height: int = 12) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _write_images(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    image = Image.fromarray(_pixels(rng))
    deep = Image.fromarray(rng.integers(0, 65536, (12, 20)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    palette = image.quantize(16)
    image.save(folder / "rgb.png")
    image.convert("RGBA").save(folder / "rgba.png")
    palette.save(folder / "palette.png", transparency=3)
    image.save(folder / "turned.png", exif=exif)
    deep.save(folder / "deep.png")
    image.save(folder / "rgb.jpg")
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "progressive.jpg", progressive=True, xmp=xmp)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "grey.jpg")
    palette.save(folder / "one.gif")
    palette.save(folder / "frames.gif", save_all=True, append_images=[palette, palette], transparency=0)
    image.save(folder / "lossy.webp")
    image.convert("RGBA").save(folder / "lossless.webp", lossless=True, exif=exif)
    image.save(folder / "frames.webp", save_all=True, append_images=[image])
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        image.save(folder / f"{compression}.tif", compression=compression, exif=exif)
    deep.save(folder / "deep.tif")
    Image.fromarray(rng.normal(0, 1, (12, 20)).astype(np.float32)).save(folder / "float.tif")
    image.save(folder / "rgb.bmp")
    palette.save(folder / "palette.bmp")
    image.save(folder / "rgb.ppm")
    image.convert("1").save(folder / "bits.pbm")
    deep.save(folder / "deep.pgm")


def _write_class_folders(root: Path, rng: np.random.Generator) -> None:
    for split, count in (("train", 3), ("validation", 1)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(_pixels(rng)).save(root / split / name / f"{number}.{('png', 'jpg')[number % 2]}")


def _write_shards(root: Path, rng: np.random.Generator) -> None:
    for split in ("train", "validation"):
        (root / split).mkdir(parents=True)
        with tarfile.open(root / split / "000.tar", "w") as tar:
            for number, label in enumerate(("0", "1", '{"label": 1}')):
                file = io.BytesIO()
                Image.fromarray(_pixels(rng)).save(file, "PNG")
                ending = "json" if label.startswith("{") else "cls"
                for name, content in ((f"{number:03}.png", file.getvalue()), (f"{number:03}.{ending}", label.encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (root / "classnames.txt").write_text("cat\ndog\n", encoding="utf-8")


def _write_scenes(root: Path, rng: np.random.Generator) -> None:
    for split, file in (("train", "instances_train.json"), ("val", "instances_val.json")):
        for folder in (root / split, root / "annotations"):
            folder.mkdir(parents=True, exist_ok=True)
        names = ["1.png", "2.png"]
        for name in names:
            Image.fromarray(_pixels(rng, 64, 48)).save(root / split / name)
        text = coco(names, segmentation=[[24, 12, 40, 12, 40, 36, 24, 36]])
        (root / "annotations" / file).write_text(text, encoding="utf-8")


def _write_networks(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    task = create_classification_task(RECIPE, list(CLASSES))
    botformer.save(task.model, task.model_config(), folder / "classifier.safetensors")
    save_detector(folder / "detector.safetensors", score_threshold=0.02)


def _write_weights(folder: Path, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    small = {name: tensor for name, tensor in state.items() if tensor.numel() < 5000}
    torch.save(small, folder / "plain.pth")
    torch.save({"state_dict": {f"module.{name}": value for name, value in small.items()}, "epoch": 3}, folder / "t.pth")
    torch.save(small, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": small, "hook": Malicious()}, folder / "malicious.pth")
    torch.save(Malicious(), folder / "malicious_old.pth", _use_new_zipfile_serialization=False)
    (folder / "pickle.pth").write_bytes(pickle.dumps(Malicious()))
    (folder / "pickle.pt").write_bytes(pickle.dumps({"state_dict": Malicious()}, protocol=0))


def _write_plan(run: Path) -> None:
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    row = dict(model="botnet_nano", weights="", px=32, batch_size=2, images_per_s=10.0, epochs=1.0, seconds=3.0)
    plan = dict(
        command="botformer train classify --data classes", verb="classify", data="classes", found="6 images",
        minutes=None, expected_seconds=3.0, expected_end="2026-01-02T03:04:05",
        candidates=[row | {"is_enough": True, "chosen": True, "why": "the first", "remark": ""}], notes=["none"],
        tests=False, recipe=recipe,
    )  # fmt: skip
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")


def _write_evaluation(root: Path) -> None:
    from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
    from botformer.evaluate.options import EvaluateOptions
    from botformer.predict.bulk import BulkOptions, predict_files

    run = root / "run"
    evaluate_checkpoint(EvaluateOptions(run, str(root / "classes"), "validation", run / "evaluation", workers=0), "cpu")
    images = sorted((root / "scenes" / "val").glob("*.png"))
    for name in ("classifier", "detector"):
        network = botformer.predictor(root / "networks" / f"{name}.safetensors", "cpu", decoders=1)
        out, stopped = root / "predictions" / name, root / "stopped" / name
        predict_files(network, images, out, BulkOptions(draw=0))
        with suppress(InterruptedError):
            predict_files(network, images, stopped, BulkOptions(draw=0), _stop)
        shutil.copytree(stopped, out, dirs_exist_ok=True)


def _stop(fraction: float) -> None:
    raise InterruptedError


def _write_exported(folder: Path) -> None:
    """Of a classifier that gives the same whatever it sees."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir()
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["logits"])], "same", [pixels], [logits])
    onnx.save(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), folder / "model.onnx"
    )
    shape = {"dtype": "float32", "shape": [1, 3, 8, 8]}
    write_config(
        folder,
        {
            "format": "onnx", "precision": "float32", "task": "classification", "model_file": "model.onnx",
            "inputs": [{"name": "pixels", **shape}], "outputs": [{"name": "logits", **shape}],
            "class_names": list(CLASSES), "versions": {},
        },
    )  # fmt: skip
