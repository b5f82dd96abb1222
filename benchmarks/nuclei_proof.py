"""R50 and BoT50 on real nuclei: one recipe, equal budgets, several seeds; and two baselines that ignore the image.

python benchmarks/nuclei_proof.py --data DIR [--out runs/nuclei_proof] [--seeds 0 1 2]

DIR is a COCO folder whose image records have a `stain`. Finished runs in --out are not repeated. Writes
results/nuclei_proof.json, which keeps the seeds it has beside those given.
"""

import argparse
import json
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from botformer.benchmark.receipt import receipt_origin, write_receipt
from botformer.data.detection.batches import detection_evaluation_batches
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import open_detection_datasets
from botformer.detection.evaluation.coco_eval import CocoEvaluator
from botformer.recipes.schema import DetectionImages
from botformer.rle import encode

RESULTS = Path(__file__).parents[1] / "results"
MODELS = ("resnet50", "botnet50")
NOTES = (
    "Random initial weights, about a thousand steps: a comparison at equal budget, not good detectors. commit: of a "
    "training's measurement; the machine of this receipt is that of the last one. The validation "
    "images were split off by a hash of their names; crops of one slide may be in both splits. Community AP is "
    "TP / (TP + FP + FN) at IoU 0.5, at the score threshold that has the best F1 on these images, which "
    "is optimistic. The constant predictor returns the same grid of discs of the training set's median size for every "
    "image; the random one draws number, positions, sizes and scores."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/nuclei_proof"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    receipt, origin = RESULTS / "nuclei_proof.json", receipt_origin()
    kept = [line for line in earlier_runs(receipt) if line["seed"] not in given.seeds]
    rows = []
    for model in MODELS:
        runs = [line for line in kept if line["predictor"] == model]
        runs += [measured(model, seed, given.data, given.out, origin) for seed in given.seeds]
        runs.sort(key=lambda line: line["seed"])
        rows += [*runs, *spread(model, runs)]
    train, validation = open_detection_datasets(given.data)
    statistics = ObjectStatistics(train)
    rows += [baseline(name, validation, predictor) for name, predictor in statistics.predictors().items()]
    seeds = sorted({line["seed"] for line in kept} | {*given.seeds})
    command = f"python benchmarks/nuclei_proof.py --data DIR --seeds {' '.join(map(str, seeds))}"
    title = "Nuclei (dsb2018): R50 and BoT50, one recipe, equal budgets"
    print(write_receipt(receipt, title, command, rows, seeds[0], NOTES, origin=origin).name)


def earlier_runs(receipt: Path) -> list[dict[str, Any]]:
    """The trainings of a receipt, each with the commit that it was measured at."""
    if not receipt.is_file():
        return []
    content = json.loads(receipt.read_text(encoding="utf-8"))
    return [{"commit": content["commit"][:10]} | line for line in content["figures"] if "steps" in line]


def measured(model: str, seed: int, data: str, out: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """The figures of one training run; trains and evaluates it unless that is done."""
    run, recipe = out / f"{model}_{seed}", f"nuclei_{model}"
    metrics = run / "evaluation" / "metrics.json"
    if not metrics.is_file():
        botformer("train", recipe, "--data", data, "--out", str(run), "--run.seed", str(seed))
        botformer("evaluate", str(run / "last"), "--data", data, "--by", "stain", "--out", str(metrics.parent))
    steps = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    of_run = {"predictor": model, "seed": seed, "commit": origin["commit"][:10], "steps": steps}
    return of_run | figures(json.loads(metrics.read_text(encoding="utf-8")))


def spread(model: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds; nothing for one seed."""
    names = [name for name, value in runs[0].items() if isinstance(value, float)]
    if len(runs) < 2:
        return []
    return [
        {"predictor": model, "seed": what} | {name: float(of([run[name] for run in runs])) for name in names}
        for what, of in (("mean", np.mean), ("deviation", lambda values: np.std(values, ddof=1)))
    ]


def botformer(*arguments: str) -> None:
    print("botformer " + shlex.join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "botformer.cli", *arguments], check=True)


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    stains = metrics["by"]["stain"]
    return {
        "box AP": metrics["box"]["AP"],
        "box AP50": metrics["box"]["AP50"],
        "mask AP": metrics["mask"]["AP"],
        "mask AP50": metrics["mask"]["AP50"],
        "community AP": metrics["mask"]["community_ap"]["0.5"],
        **{f"mask AP, {stain}": stains[stain]["mask"]["AP"] for stain in stains},
    }


class ObjectStatistics:
    """Number of objects per training image, and their sizes as fractions of the image's longer side."""

    def __init__(self, source: DetectionDataset) -> None:
        images = [source.image(index) for index in range(len(source))]
        self.counts = [len(image.annotations) for image in images]
        self.sides = [
            float(np.sqrt(annotation.box_xywh[2] * annotation.box_xywh[3])) / max(image.width, image.height)
            for image in images
            for annotation in image.annotations
        ]

    def predictors(self) -> dict[str, Callable[[int, int], dict[str, Any]]]:
        return {"constant": self.constant, "random": self.random}

    def constant(self, height: int, width: int) -> dict[str, Any]:
        """Discs of the median size on a grid with about the median number of cells."""
        across = round(np.sqrt(np.median(self.counts)))
        centres = [((row + 0.5) / across, (column + 0.5) / across) for row in range(across) for column in range(across)]
        return discs(height, width, centres, [float(np.median(self.sides))] * len(centres), [1.0] * len(centres))

    def random(self, height: int, width: int) -> dict[str, Any]:
        count = random.choice(self.counts)
        centres = [(random.random(), random.random()) for _ in range(count)]
        return discs(height, width, centres, random.choices(self.sides, k=count), [random.random() for _ in centres])


def discs(
    height: int, width: int, centres: list[tuple[float, float]], sides: list[float], scores: list[float]
) -> dict[str, Any]:
    """Detections in the detector's form. `centres` (y, x) and `sides` are fractions of the image."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    boxes, masks = [], []
    for (y, x), side in zip(centres, sides, strict=True):
        radius = side * max(height, width) / 2
        y, x = y * height, x * width
        boxes.append([x - radius, y - radius, x + radius, y + radius])
        masks.append(encode((rows - y) ** 2 + (columns - x) ** 2 <= radius**2))
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.long),
        "scores": torch.tensor(scores),
        "masks": masks,
    }


def baseline(name: str, source: DetectionDataset, predictor: Callable[[int, int], dict[str, Any]]) -> dict[str, Any]:
    """The figures of a predictor that ignores the image."""
    random.seed(0)
    categories = [(category.id, category.name) for category in source.categories]
    metrics = CocoEvaluator(categories, max_detections=300)
    for batch in detection_evaluation_batches(source, DetectionImages(size=64), 8, workers=0):
        sizes = [tuple(map(int, target["original_size"])) for target in batch["targets"]]
        metrics.update([predictor(*size) for size in sizes], batch)
    stains: dict[str, list[int]] = {}
    for index in range(len(source)):
        image = source.image(index)
        stains.setdefault(image.more["stain"], []).append(image.id)
    measured = metrics.compute()
    by_stain = {f"mask AP, {stain}": metrics.only(ids).compute()["mask_AP"] for stain, ids in sorted(stains.items())}
    return {
        "predictor": name,
        "box AP": measured["box_AP"],
        "box AP50": measured["box_AP50"],
        "mask AP": measured["mask_AP"],
        "mask AP50": measured["mask_AP50"],
        "community AP": metrics.community_ap("mask", metrics.best_f1("mask").threshold)[0.5],
        **by_stain,
    }


if __name__ == "__main__":
    main()
