"""run.py of an exported folder: a short program that needs the runtime, Pillow and NumPy, and nothing of botformer.

Put together from a head, the lines of the format (they define `network(**arrays)`), and those of the task.
"""

from collections.abc import Mapping
from string import Template
from textwrap import fill
from typing import Any, NamedTuple

from botformer.deploy.detector_script import DETECTION
from botformer.deploy.formats import FormatName
from botformer.deploy.openvino_buckets import HINTS
from botformer.exportable import ExportTask


class _Runtime(NamedTuple):
    packages: str
    imports: str
    opened: str


_RUNTIMES: dict[FormatName, _Runtime] = {
    "torch": _Runtime(
        "torch",
        "import torch\n",
        """graph = torch.export.load(HERE / "model.pt2").module()


def network(**inputs):
    with torch.inference_mode():
        results = graph(*(torch.from_numpy(inputs[row["name"]]) for row in CONFIG["inputs"]))
    return {row["name"]: result.numpy() for row, result in zip(CONFIG["outputs"], results)}
""",
    ),
    "onnx": _Runtime(
        "onnxruntime",
        """os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # importing onnxruntime would report to its makers
import onnxruntime  # noqa: E402
""",
        """session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])


def network(**inputs):
    names = [row["name"] for row in CONFIG["outputs"]]
    return dict(zip(names, session.run(names, inputs)))
""",
    ),
    "openvino": _Runtime(
        "openvino",
        """sys.modules["openvino_telemetry"] = None  # importing openvino would report to its makers
import openvino  # noqa: E402
""",
        """core = openvino.Core()
model = core.read_model(HERE / "model.xml")
if "preprocessing" in CONFIG:  # one square per call: a graph of fixed sizes is faster
    batch, channels = CONFIG["inputs"][0]["shape"][:2]
    side = CONFIG["preprocessing"]["size"]
    model.reshape({"pixels": [batch if isinstance(batch, int) else 1, channels, side, side]})
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "$hint"})


def network(**inputs):
    results = compiled(inputs)
    return {row["name"]: results[row["name"]] for row in CONFIG["outputs"]}
""",
    ),
    "executorch": _Runtime(
        "executorch",
        "import torch\nfrom executorch.runtime import Runtime\n",
        """method = Runtime.get().load_program(HERE / "model.pte").load_method("forward")


def network(**inputs):
    results = method.execute([torch.from_numpy(inputs[row["name"]]) for row in CONFIG["inputs"]])
    return {row["name"]: result.numpy() for row, result in zip(CONFIG["outputs"], results)}
""",
    ),
}

_HEAD = '''#!/usr/bin/env python3
"""$title: python run.py IMAGE...   (pip install $packages pillow numpy)

One line of JSON per image on standard output; an image that cannot be read is a line with "error", and the exit status
is 2 then. Written by botformer export; config.json says what goes in and out.
$notes"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

${imports}
HERE = Path(__file__).resolve().parent
CONFIG = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
$opened

def upright_rgb(image):
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # grey of 16 bits, or floats from 0 to 1, or whatever there is from black to white
        values, white = np.asarray(image).astype(np.float64), 1.0 if image.mode == "F" else 65535.0
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            raise ValueError("holds values that are not finite")
        low, high = (0.0, white) if low >= 0 and high <= white else (low, high)
        image = Image.fromarray(((values - low) / ((high - low) or 1.0) * 255 + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def upright_size(image):
    """(width, height) as it is to be seen; Pillow turns TIFF files by itself."""
    turned = image.format != "TIFF" and image.getexif().get(274, 1) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size


def decoded(image, shrink):
    """Upright in RGB, and by how much a JPEG file (of several pictures: MPO) was decoded smaller: where that is enough,
    but not with a rest that is turned."""
    exact = image.getexif().get(274, 1) > 1
    steps = [n for n in (8, 4, 2) if n <= shrink and not (exact and (image.width % n or image.height % n))]
    n = steps[0] if steps and image.format in ("JPEG", "MPO") else 1
    if n > 1:
        image.draft(None, (image.width // n, image.height // n))
    return upright_rgb(image), n


def as_batch(image):
    """(batch, 3, height, width) floats in 0..1; a graph of a fixed batch gets the image as often."""
    batch = CONFIG["inputs"][0]["shape"][0]
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    return np.repeat(pixels, batch, axis=0) if isinstance(batch, int) else np.ascontiguousarray(pixels)

'''

_TAIL = """

if len(sys.argv) < 2:
    sys.exit("usage: python run.py IMAGE...")
sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # what JSON is, wherever this is written to
failed = False
for name in sys.argv[1:]:
    try:
        line = answer(name)
    except Exception as error:  # decoders raise nearly anything when fed with garbage; the other images go on
        line, failed = {"error": f"{type(error).__name__}: {error}"}, True
    print(json.dumps({"file_name": name} | line, ensure_ascii=False), flush=True)
sys.exit(2 if failed else 0)
"""

_CLASSIFICATION = '''
def prepared(file):
    """The middle of the image, resized, or with "letterbox" all of it on grey: a square."""
    want, image = CONFIG["preprocessing"], Image.open(file)
    size, (width, height) = want["size"], upright_size(image)
    if want["fit"] == "letterbox":
        new, box = [max(1, round(side * size / max(width, height))) for side in (width, height)], [0, 0, width, height]
    else:
        shorter, new = int(size / want["evaluation_crop"]), [size, size]
        scaled = [int(shorter * side / min(width, height)) for side in (width, height)]
        first, scale = [round((side - size) / 2) for side in scaled], (width / scaled[0], height / scaled[1])
        box = [(first[i % 2] + size * (i > 1)) * scale[i % 2] for i in range(4)]
    shrink = min((box[2] - box[0]) / new[0], (box[3] - box[1]) / new[1], *image.size)
    image, n = decoded(image, shrink)
    box = [min(max(side / n, 0), image.size[i % 2]) for i, side in enumerate(box)]
    whole = [image.size[i] * new[i] / (box[i + 2] - box[i]) for i in (0, 1)]
    if all(abs(side - round(side)) < 1e-6 and side <= 2 * new[i] for i, side in enumerate(whole)):
        left, top = (round(box[i] * new[i] / (box[i + 2] - box[i])) for i in (0, 1))
        image = image.resize([round(side) for side in whole], Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + new[0], top + new[1]))
    else:  # the whole would be long, or not of whole pixels
        image = image.resize(new, Image.Resampling.BICUBIC, box)
    square = Image.new("RGB", (size, size), tuple(want["margin"]))
    square.paste(image, ((size - new[0]) // 2, (size - new[1]) // 2))
    return square


def answer(file):
    logits = network(pixels=as_batch(prepared(file)))["logits"][0].astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = np.argsort(-probabilities, kind="stable")[:5]
    return {"top5": [[CONFIG["class_names"][i], float(probabilities[i])] for i in best]}
'''

_FEATURES = '''
written = set()


def answer(file):
    """The maps go into NAME.npz beside where this is run, NAME-2.npz where another image has that name."""
    image, side = upright_rgb(Image.open(file)), CONFIG["inputs"][0]["shape"][2:]
    if isinstance(side[0], int):
        image = image.resize((side[1], side[0]), Image.Resampling.BICUBIC)
    maps, number, out = network(pixels=as_batch(image)), 1, f"{Path(file).stem}.npz"
    while out in written:
        number += 1
        out = f"{Path(file).stem}-{number}.npz"
    written.add(out)
    np.savez(out, **maps)
    return {"saved": out, "shapes": {name: list(values.shape) for name, values in maps.items()}}
'''

_TASKS: dict[ExportTask, tuple[str, str]] = {
    "classification": ("Classify images", _CLASSIFICATION),
    "features": ("Feature maps of images", _FEATURES),
    "detection": ("Detect objects on images", DETECTION),
}


def run_script(config: Mapping[str, Any]) -> str:
    """The text of run.py for an exported network."""
    runtime = _RUNTIMES[config["format"]]
    title, task = _TASKS[config["task"]]
    opened = Template(runtime.opened).substitute(hint=HINTS[config["precision"]])
    packages, imports = runtime.packages, runtime.imports
    if (config["format"], config["task"]) == ("torch", "detection"):
        packages, imports = f"{packages} torchvision", f"{imports}import torchvision  # noqa: F401  (its operators)\n"
    if (config["format"], config["precision"]) == ("torch", "int8"):
        packages = f"{packages} torchao"
        imports += "import torchao.quantization.pt2e  # noqa: F401  (operators that round)\n"
    head = Template(_HEAD).substitute(
        title=title,
        packages=packages,
        imports=imports,
        opened=opened.rstrip("\n") + "\n",
        notes="".join(f"\n{fill(note, 110)}\n" for note in config.get("notes", ())),
    )
    return head + task + _TAIL
