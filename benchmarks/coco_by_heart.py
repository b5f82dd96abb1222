"""Can a BoTNet Mask R-CNN learn a few COCO images by heart? If not, the pipeline has a bug.

python benchmarks/coco_by_heart.py --data DIR [--images 8] [--out runs/coco_by_heart] [-- botformer train options]

Takes the first images of the training split that have one to five objects and no crowd, trains on them, and measures
on the same ones. Writes results/coco_by_heart.json.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from botformer.benchmark.receipt import write_receipt

RESULTS = Path(__file__).parents[1] / "results"
NOTES = (
    "Measured on the training images themselves, the first ones by file name that have one to five objects and no "
    "crowd: evidence that data, losses, boxes, masks and scoring fit together, and nothing else."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/coco_by_heart"))
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    subset, run = given.out / "data", given.out / "run"
    write_subset(given.data, subset, given.images)
    train = ["train", "overfit", "--data", str(subset), "--out", str(run), *options]
    for arguments in (train, ["evaluate", str(run / "last"), "--data", str(subset), "--out", str(run / "evaluation")]):
        subprocess.run([sys.executable, "-m", "botformer.cli", *arguments], check=True)
    measured = json.loads((run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    rows = [
        {"images": measured["images"], "objects": measured["objects"], "what": kind}
        | {name: measured[kind][name] for name in ("AP", "AP50", "AP75")}
        for kind in ("box", "mask")
    ]
    command = f"python benchmarks/coco_by_heart.py --data DIR --images {given.images} -- {shlex.join(options)}"
    title = "COCO images with one to five objects learnt by heart (training images, not a result)"
    write_receipt(RESULTS / "coco_by_heart.json", title, command.removesuffix(" -- "), rows, 0, NOTES)


def write_subset(data: Path, out: Path, count: int) -> None:
    """The first `count` images that fit as a COCO folder whose two splits are the same."""
    content = json.loads((data / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    of_image: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    chosen = [
        image
        for image in sorted(content["images"], key=lambda image: image["file_name"])
        if 1 <= len(of_image.get(image["id"], [])) <= 5
        and not any(annotation["iscrowd"] for annotation in of_image[image["id"]])
    ][:count]
    ids = {image["id"] for image in chosen}
    content |= {"images": chosen, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (out / split).mkdir(exist_ok=True)
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
        for image in chosen:
            shutil.copy(data / "train2017" / image["file_name"], out / split)


if __name__ == "__main__":
    main()
