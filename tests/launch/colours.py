"""Images that a network learns to tell apart within a few steps, and a run on them that takes seconds."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
BATCH = 12
"""Divisible by 1, 2 and 3 processes."""


def write_colours(folder: Path) -> Path:
    """Three classes, 20 images each to train on and 4 to validate on."""
    random = np.random.default_rng(0)
    for split, images in (("train", 20), ("validation", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = random.integers(0, 90, (32, 32, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def train_command(data: Path, out: Path, steps: int) -> list[str]:
    """Arguments of botformer: a checkpoint every five steps, an evaluation at the end."""
    fields = {"batch-size": BATCH, "workers": 0, "checkpoint-every": 1, "evaluate-every": 1000, "max-steps": steps}
    run = [f"--run.{name}={value}" for name, value in fields.items()]
    return ["train", "digits", f"--data={data}", f"--out={out}", "--images.size=32", "--schedule.epochs=4000", *run]


def environment() -> dict[str, str]:
    """Of a process that finds the package and the tests, and is alone on its core."""
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
