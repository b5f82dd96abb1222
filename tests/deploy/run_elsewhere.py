"""Exported folders in environments that hold a runtime, NumPy and Pillow: make export-check.

For a detector, the package's network for nuclei, and a classifier, in each runtime: `run.py` gives what the predictor
gives. The environments are made with uv from the package index.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

import botformer
from botformer.data.synthetic.nuclei_crops import read_nuclei

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
CLASSES = ["a", "b", "c", "d", "e", "f"]


def main(uv: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    image = folder / "cells.png"
    Image.fromarray(read_nuclei()[0][:300, :400]).save(image)
    torch.manual_seed(0)
    model = botformer.create_model("botnet_nano", 6, image_size=64)
    botformer.save(model, botformer.model_config(model, CLASSES), folder / "classes.safetensors")
    for format_name, package in RUNTIMES.items():
        python = folder / package / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / package], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, package, "pillow", "numpy"], check=True)
        for hidden in ("torch", "botformer"):
            assert subprocess.run([python, "-c", f"import {hidden}"], stderr=subprocess.DEVNULL).returncode, hidden
        for name, checkpoint in (("nuclei", "nuclei"), ("classes", folder / "classes.safetensors")):
            out = folder / f"{name}-{format_name}"
            export = ["export", str(checkpoint), "--format", format_name, "--out", str(out)]
            subprocess.run(
                [Path(sys.executable).with_name("botformer"), *export], check=True, stdout=subprocess.DEVNULL
            )
            environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home")}
            ran = subprocess.run([python, out / "run.py", image], capture_output=True, env=environment, check=True)
            compare(json.loads(ran.stdout), botformer.predictor(checkpoint)(image))
            print(f"{package}: {name} as in PyTorch", flush=True)
        assert not (folder / "home").exists(), "a runtime left something in the home directory"


def compare(answer: dict, expected) -> None:
    if "top5" in answer:
        probabilities = dict(zip(expected.labels, expected.probabilities, strict=True))
        assert all(abs(probabilities[name] - value) < 0.01 for name, value in answer["top5"])
        return
    assert len(answer["objects"]) == len(expected) > 20
    for mine, box, score in zip(answer["objects"], expected.boxes_xyxy, expected.scores, strict=True):
        assert max(abs(a - b) for a, b in zip(mine["box_xyxy"], box, strict=True)) < 0.5
        assert abs(mine["score"] - score) < 1e-3


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
