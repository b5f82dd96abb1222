"""Random images with objects and detections of them, and pycocotools' judgement."""

import contextlib
import io
import json

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORIES = [(0, "zero"), (3, "three"), (17, "seventeen"), (90, "never seen")]


def runs(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def blob(rng, height, width, box):
    """An ellipse in box xywh with a ragged edge."""
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width] + 0.5
    return ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1 + 0.2 * (
        rng.random((height, width)) - 0.5
    )


def random_scenes(seed, images=12, objects=7):
    """Predictions and a batch, as a detector and the data hand them over: two images empty, some objects unseen,
    some seen twice or as another kind, scores that repeat, crowds, small, medium and large ones."""
    rng = np.random.default_rng(seed)
    predictions, targets = [], []
    number = 0
    for image_id in rng.permutation(1000)[:images].tolist():
        height, width = rng.integers(130, 220, 2).tolist()
        truth, found = [], []
        for _ in range(0 if image_id % 6 == 0 else rng.integers(1, objects)):
            side = rng.choice([9, 25, 60, 120])
            box = [*(rng.random(2) * [width - side, height - side]), side, side * rng.uniform(0.6, 1)]
            category = int(rng.choice(3))
            truth.append((box, category, blob(rng, height, width, box), int(rng.random() < 0.15)))
            for _ in range(rng.choice(3, p=[0.2, 0.6, 0.2])):
                moved = np.array(box) + rng.normal(0, 0.06, 4) * side
                found.append((moved, category if rng.random() < 0.85 else int(rng.choice(3))))
        for _ in range(rng.integers(0, 4)):
            found.append((np.array([*(rng.random(2) * 100), *(rng.random(2) * 40 + 5)]), int(rng.choice(4))))
        records = []
        for box, category, mask, crowd in truth:
            record = {"id": number, "image_id": image_id, "category_id": CATEGORIES[category][0], "iscrowd": crowd}
            shape = {"segmentation": runs(mask), "area": float(mask.sum())}
            if rng.random() < 0.3:
                x, y, w, h = box
                shape = {"segmentation": [[x, y, x + w, y + h / 9, x + w * 0.9, y + h]], "area": float(w * h / 2)}
            records.append(record | {"bbox": [float(side) for side in box]} | shape)
            number += 1
        boxes = torch.tensor(np.array([box for box, _ in found]).reshape(-1, 4), dtype=torch.float32)
        boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clamp(min=1)
        masks = [blob(rng, height, width, [*box[:2], *(box[2:] - box[:2])]) for box in boxes.numpy()]
        predictions.append(
            {
                "boxes": boxes,
                "labels": torch.tensor([category + 1 for _, category in found], dtype=torch.int64),
                "scores": torch.tensor(rng.random(len(found)).round(1 if seed % 2 else 6), dtype=torch.float32),
                "masks": [runs(mask) for mask in masks],
            }
        )
        targets.append({"image_id": image_id, "original_size": (height, width), "ground_truth": json.dumps(records)})
    return predictions, {"targets": targets}


def dataset(batch):
    """What the annotation file of a batch would hold. Ids are counted from 1: pycocotools takes 0 for "no match"."""
    annotations = [record for target in batch["targets"] for record in json.loads(target["ground_truth"])]
    return {
        "images": [
            {"id": target["image_id"], "height": target["original_size"][0], "width": target["original_size"][1]}
            for target in batch["targets"]
        ],
        "annotations": [record | {"id": number} for number, record in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
    }


def judged_by_pycocotools(truth, results, iou_type, max_detections=100):
    """The evaluation, done, of an annotation file's content and results.json's."""
    if iou_type == "segm":
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), iou_type)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
        if max_detections == 100:
            evaluation.summarize()
    return evaluation
