"""What --engine ray costs on one machine beside the plain engine, with the start apart, and whether it pays there.

python benchmarks/ray_overhead.py [--images 200] [--rounds 3] [--model botnet50] [--checkpoint RUN]

`botformer predict` in a process of its own, on so many images and on ten times as many, by both engines in turns, each
going first in every second round. Time is taken as start + images / speed, of the medians at both numbers. Without
--checkpoint: a network of random weights at 224 px, which is as fast as a trained one. Writes
results/ray_overhead_cpu.json.
"""

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import botformer
from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

RESULTS = Path(__file__).parents[1] / "results"
TIMES = 10
ENGINES = ("plain", "ray")
NOTES = (
    "seconds: of the whole command, the median. start_s and images_per_s: of the line through both numbers of images. "
    "pays_from_images: where the lines cross; null: they do not, as Ray is not faster there."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="botnet50")
    parser.add_argument("--checkpoint")
    parser.add_argument("--out", type=Path, default=RESULTS / "ray_overhead_cpu.json")
    given = parser.parse_args()
    numbers = (given.images, TIMES * given.images)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = given.checkpoint or write_network(given.model, Path(folder) / "network.safetensors")
        lists = write_images(numbers, Path(folder))
        seconds = {(engine, number): [] for engine in ENGINES for number in numbers}
        for number in numbers:
            for turn in range(given.rounds):
                for engine in ENGINES[:: 1 if turn % 2 else -1]:
                    seconds[engine, number].append(run(engine, lists[number], checkpoint, Path(folder)))
                    print(f"{number} images, {engine}: {seconds[engine, number][-1]:.1f} s", flush=True)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    figures = {engine: line(medians, engine, numbers) for engine in ENGINES}
    pays_from = crossing(figures["plain"], figures["ray"])
    rows = [
        {
            "engine": engine,
            "model": given.model if given.checkpoint is None else Path(given.checkpoint).name,
            "cores": cores(),
            "rounds": given.rounds,
            **{f"seconds_{number}": round(medians[engine, number], 2) for number in numbers},
            **{f"seconds_{number}_all": [round(each, 2) for each in seconds[engine, number]] for number in numbers},
            "start_s": round(start, 2),
            "images_per_s": round(per_second, 2),
            "pays_from_images": pays_from if engine == "ray" else None,
        }
        for engine, (start, per_second) in figures.items()
    ]
    title = f"botformer predict on one machine, plain and --engine ray, {numbers[0]} and {numbers[1]} images"
    # Folders of this machine are no part of a result.
    arguments = [Path(argument).name if "/" in argument else argument for argument in sys.argv[1:]]
    print(
        write_receipt(
            given.out, title, shlex.join(["python", "benchmarks/ray_overhead.py", *arguments]), rows, 0, NOTES
        )
    )
    print(advice(figures, pays_from))


def write_network(model: str, file: Path) -> str:
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(10)]
    network = botformer.create_model(model, num_classes=len(names))
    botformer.save(network, botformer.model_config(network, names), file)
    return str(file)


def write_images(numbers: tuple[int, ...], folder: Path) -> dict[int, Path]:
    """A list of files for each number of images."""
    rng = np.random.default_rng(0)
    files = [folder / f"{number:06}.jpg" for number in range(max(numbers))]
    for file in files:
        coarse = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(file)
    lists = {number: folder / f"{number}.txt" for number in numbers}
    for number, listing in lists.items():
        listing.write_text("".join(f"{file}\n" for file in files[:number]), encoding="utf-8")
    return lists


def run(engine: str, listing: Path, checkpoint: str, folder: Path) -> float:
    command = [sys.executable, "-m", "botformer.cli", "predict", str(listing), "--checkpoint", checkpoint]
    command += ["--out", str(folder / "out"), "--engine", engine, "--device", "cpu"]
    command += ["--draw", "0"] if engine == "plain" else []
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def line(medians: dict[tuple[str, int], float], engine: str, numbers: tuple[int, int]) -> tuple[float, float]:
    """Seconds of the start, and images per second."""
    few, many = numbers
    per_second = (many - few) / (medians[engine, many] - medians[engine, few])
    return medians[engine, few] - few / per_second, per_second


def crossing(plain: tuple[float, float], ray: tuple[float, float]) -> int | None:
    """From how many images on Ray is done sooner; None: never."""
    gained_per_image = 1 / plain[1] - 1 / ray[1]
    return max(0, round((ray[0] - plain[0]) / gained_per_image)) if gained_per_image > 0 else None


def advice(figures: dict[str, tuple[float, float]], pays_from: int | None) -> str:
    later = figures["ray"][0] - figures["plain"][0]
    speeds = ", ".join(f"{engine} {per_second:.1f} images/s" for engine, (_, per_second) in figures.items())
    below = "" if pays_from is None else f"below about {pays_from} images "
    return (
        f"Ray starts {later:.1f} s later than the plain engine; then {speeds}: "
        f"on one machine {below}the plain engine is faster"
    )


if __name__ == "__main__":
    main()
