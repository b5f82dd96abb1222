"""Can a key point detector fit a few COCO photographs? If not, the pipeline has a bug: an overfit sanity check.

python benchmarks/keypoints_overfit.py --data DIR [--images 4] [--steps 300] [--out runs/keypoints_overfit]

Takes the first images of the training split of DIR (COCO's person_keypoints_train*.json) with one to four persons who
have key points and no crowd, trains on them without flips or scaling, and measures on the same ones. Writes
results/keypoints_overfit.json.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from botformer.benchmark.receipt import write_receipt
from botformer.create import create_detection_task
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.coco_reader import coco_annotations, open_coco
from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import open_detection_dataset
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import DetectionImages, DetectionRecipe, Model, Optimizer, Run, Schedule
from botformer.training.loop import fit

RESULTS = Path(__file__).parents[1] / "results"
RECIPE = DetectionRecipe(
    detector="keypoint_rcnn",
    model=Model(name="botnet_mini", zero_gamma=False),
    settings=Settings(
        levels=("p2", "p3", "p4"), fpn_channels=64, norm_momentum=0.1, anchor_sizes=(40.0, 80.0, 160.0),
        rpn_pre_nms_top_n=300, rpn_post_nms_top_n=200, roi_samples=64, box_channels=128,
        keypoint_convolutions=4, keypoint_channels=64,
    ),
    images=DetectionImages(size=224, scale_jitter=(1.0, 1.0), hflip=False),
    optimizer=Optimizer("adamw", learning_rate=3e-3, weight_decay=0.0, clip_norm=5.0),
    run=replace(Run(), precision="float32", workers=0),
)  # fmt: skip
NOTES = (
    "Measured on the training images themselves: evidence that key points, flips, heat maps, losses and scoring fit "
    "together, and nothing else."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/keypoints_overfit"))
    given = parser.parse_args()
    source = write_subset(open_detection_dataset(given.data, "train", keypoints=True), given.out, given.images)
    run = replace(
        RECIPE.run, batch_size=given.images, evaluate_every=given.steps, checkpoint_every=given.steps
    )  # an epoch is one step
    recipe = replace(RECIPE, run=run, schedule=Schedule(epochs=given.steps, warmup_epochs=given.steps / 20))
    torch.manual_seed(0)
    task: Any = create_detection_task(recipe, source.categories, source.keypoint_names, source.skeleton)
    start = perf_counter()
    metrics = fit(
        task,
        detection_training_batches(source, recipe.images, given.images, seed=0, workers=0),
        detection_evaluation_batches(source, recipe.images, given.images, workers=0),
        recipe,
        given.out / "run",
    )
    seconds = round(perf_counter() - start)
    rows = [
        {"images": len(source), "objects": source.objects, "steps": given.steps, "seconds": seconds, "what": kind}
        | {name: metrics[f"{kind}_{name}"] for name in ("AP", "AP50", "AP75")}
        for kind in ("box", "keypoints")
    ]
    command = f"python benchmarks/keypoints_overfit.py --data DIR --images {given.images} --steps {given.steps}"
    title = "Key points of a few COCO photographs: overfit sanity check (training images, not a result)"
    write_receipt(RESULTS / "keypoints_overfit.json", title, command, rows, 0, NOTES)


def write_subset(source: DetectionDataset, out: Path, count: int) -> DetectionDataset:
    """The first `count` images that fit, as an annotation file of their own; the images stay where they are."""
    records = map(source.image, range(len(source)))
    chosen = [
        record
        for record in records
        if 1 <= sum(found.num_keypoints > 0 for found in record.annotations) <= 4
        and len(record.annotations) <= 4
        and not any(found.crowd for found in record.annotations)
    ][:count]
    content = {
        "images": [
            {"id": record.id, "file_name": record.file, "width": record.width, "height": record.height}
            for record in chosen
        ],
        "annotations": [found for record in chosen for found in coco_annotations(record, source.categories)],
        "categories": [category._asdict() | coco_layout(source.layout) for category in source.categories],
    }
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    file = out / "person_keypoints_train.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return open_coco(file, source.folder, keypoints=True)


if __name__ == "__main__":
    main()
