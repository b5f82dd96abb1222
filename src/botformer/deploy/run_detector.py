"""Detect objects with an exported network: python run.py IMAGE... Needs the runtime, NumPy and Pillow; prints JSON."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
LEAST_SCORE = 0.5


def open_model(file):
    """The model as a function of arrays."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda **inputs: session.run(None, inputs)
    if file.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(file, "CPU")
        return lambda **inputs: list(compiled(inputs).values())
    import torch
    import torchvision  # noqa: F401  (its operators)

    graph = torch.export.load(file).module()
    return lambda **inputs: [result.detach().numpy() for result in graph(*map(torch.from_numpy, inputs.values()))]


def prepare(image, canvas):
    """As large as the canvas (height, width) allows, in its top left corner: pixels and sizes, as the model takes."""
    scale = min(canvas[0] / image.height, canvas[1] / image.width)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.zeros((1, 3, *canvas), np.float32)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    pixels[0, :, :height, :width] = resized.transpose(2, 0, 1) / 255
    return {"pixels": pixels, "sizes": np.array([[height, width]], np.int64)}


def paste(mask, box, size):
    """Probabilities (M, M) over a box -> bool (height, width): bilinear between the cells' middles, 0 around them."""
    x1, y1, x2, y2 = (float(side) for side in box)
    grid, inside = [], []
    for low, high, length in ((y1, y2, size[0]), (x1, x2, size[1])):
        at = (np.arange(length) + 0.5 - low) / max(high - low, 1e-6) * len(mask) - 0.5
        grid.append(np.clip(at + 1, 0, len(mask) + 1))  # with a margin of zeros
        pixels = np.arange(length)
        inside.append((pixels >= np.floor(low)) & (pixels < np.ceil(high)))
    padded = np.pad(mask.astype(np.float64), 1)
    for axis, at in enumerate(grid):
        first = np.minimum(at.astype(int), len(mask))
        weight = (at - first).reshape(-1, 1) if axis == 0 else at - first
        padded = padded.take(first, axis) * (1 - weight) + padded.take(first + 1, axis) * weight
    return (padded >= 0.5) & inside[0][:, None] & inside[1]


def detections(image, run, config):
    """The objects on an RGB image, best first, in its pixels."""
    inputs = prepare(image, config["settings"]["canvas"])
    found = dict(zip((output["name"] for output in config["outputs"]), run(**inputs), strict=True))
    scale = np.array([image.width, image.height]) / inputs["sizes"][0, ::-1]
    names = [name for _, name in (config["model_config"] or {}).get("categories", [])]
    for index in np.flatnonzero(found["scores"][0] >= LEAST_SCORE):
        label, box = int(found["labels"][0, index]), found["boxes"][0, index] * np.tile(scale, 2)
        record = {"label": label, "name": names[label - 1] if names else str(label)}
        record |= {"score": round(float(found["scores"][0, index]), 4), "box_xyxy": box.round(2).tolist()}
        if "masks" in found:
            mask = paste(found["masks"][0, index], box, (image.height, image.width))
            record["mask_pixels"] = int(mask.sum())
        if "keypoints" in found:
            record["keypoints_xy"] = (found["keypoints"][0, index, :, :2] * scale).round(2).tolist()
        yield record


if __name__ == "__main__":
    config = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
    run = open_model(next(file for file in HERE.iterdir() if file.suffix in (".onnx", ".xml", ".pt2")))
    for path in sys.argv[1:]:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        print(json.dumps({"file": path, "objects": list(detections(image, run, config))}, ensure_ascii=False))
