"""Key point AP equals pycocotools', on random and on awkward data."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from botformer.detection.evaluation.coco_eval import KEYPOINT_NUMBERS, CocoEvaluator
from botformer.detection.evaluation.oks import DEFAULT_SIGMA, keypoint_sigmas, object_keypoint_similarity
from botformer.errors import InputError

pytest.importorskip("faster_coco_eval")

PERSON = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
]
CATEGORIES = [(1, "person"), (4, "robot"), (90, "never seen")]


def random_scenes(seed, count=17, images=14):
    """Predictions and a batch: image ids out of order, empty images, objects missed, found twice or as another kind,
    crowds, objects without labelled points, scores that repeat, all sizes, and more detections than COCO counts."""
    rng = np.random.default_rng(seed)
    predictions, targets, number = [], [], 1
    for image_id in rng.permutation(1000)[:images].tolist():
        records, boxes, labels, points = [], [], [], []
        for _ in range(0 if image_id % 7 == 0 else rng.integers(1, 7)):
            side = rng.choice([20.0, 50.0, 80.0, 150.0])
            corner, size = rng.random(2) * 200, side * rng.uniform(0.6, 1, 2)
            truth = np.concatenate([corner + rng.random((count, 2)) * size, rng.integers(0, 3, (count, 1))], 1)
            if rng.random() < 0.2:
                truth[:] = 0
            kind, crowd = int(rng.choice(2)), int(rng.random() < 0.15)
            record = {"id": number, "image_id": image_id, "category_id": CATEGORIES[kind][0], "iscrowd": crowd}
            record |= {"bbox": [*corner.tolist(), *size.tolist()], "area": float(size.prod() * rng.uniform(0.4, 1))}
            labelled = int((truth[:, 2] > 0).sum())
            if rng.random() < 0.05:
                labelled = 0  # says the file
            records.append(record | {"keypoints": truth.flatten().tolist(), "num_keypoints": labelled})
            number += 1
            for _ in range(rng.choice(4, p=[0.15, 0.55, 0.2, 0.1])):
                near = truth[:, :2] if labelled else corner + rng.random((count, 2)) * size * 2
                spread = side * rng.choice([0.0, 0.02, 0.06, 0.2])
                points.append(near + rng.normal(0, 1, (count, 2)) * spread)
                boxes.append([*corner, *(corner + size)])
                labels.append(kind + 1 if rng.random() < 0.85 else int(rng.choice(3)) + 1)
        for _ in range(30 if image_id % 5 == 0 else 2):
            points.append(rng.random((count, 2)) * 250)
            boxes.append([10, 10, 60, 60])
            labels.append(int(rng.choice(3)) + 1)
        found = np.array(points) + 0.5  # in the coordinates of boxes
        predictions.append(
            {
                "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
                "labels": torch.tensor(labels),
                "scores": torch.tensor(rng.random(len(labels)).round(1 if seed % 2 else 6), dtype=torch.float32),
                "keypoints": torch.tensor(
                    np.concatenate([found, np.ones((*found.shape[:2], 1))], 2), dtype=torch.float32
                ),
            }
        )
        targets.append({"image_id": image_id, "original_size": (300, 300), "ground_truth": json.dumps(records)})
    return predictions, {"targets": targets}


def names_of(count):
    return PERSON if count == 17 else [f"point {n}" for n in range(count)]


def measured(predictions, batch, count=17, sigmas=()):
    metrics = CocoEvaluator(CATEGORIES, ("box", "keypoints"), 100, names_of(count), sigmas)
    metrics.update(predictions, batch)
    return metrics


def judged(batch, results, sigmas=None):
    """By pycocotools: an evaluation of COCO's own form of results, which has no boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": target["image_id"], "height": 300, "width": 300} for target in batch["targets"]],
            "annotations": [record for target in batch["targets"] for record in json.loads(target["ground_truth"])],
            "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
        }
        coco.createIndex()
        bare = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
        evaluation = COCOeval(coco, coco.loadRes(bare), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(6))
def test_the_ten_numbers_are_pycocotools(seed):
    predictions, batch = random_scenes(seed)
    metrics = measured(predictions, batch)
    numbers = metrics.compute()
    expected = judged(batch, metrics.results()).stats
    for name, value in zip(KEYPOINT_NUMBERS, expected, strict=True):
        assert abs(numbers[f"keypoints_{name}"] - value) < 1e-12, name
    assert 0.1 < numbers["keypoints_AP50"] < 0.95
    assert len(set(expected.round(6))) > 7
    assert "box_AP" in numbers
    assert "keypoints_APs" not in numbers


@pytest.mark.parametrize("sigmas", [(), (0.02, 0.1, 0.3, 0.05)])
def test_other_points_have_the_sigmas_given_or_the_default(sigmas):
    predictions, batch = random_scenes(2, count=4)
    metrics = measured(predictions, batch, 4, sigmas)
    expected = judged(batch, metrics.results(), sigmas or [DEFAULT_SIGMA] * 4).stats
    numbers = metrics.compute()
    for name, value in zip(KEYPOINT_NUMBERS, expected, strict=True):
        assert abs(numbers[f"keypoints_{name}"] - value) < 1e-12, name


def test_per_class_numbers_are_pycocotools():
    predictions, batch = random_scenes(3)
    metrics = measured(predictions, batch)
    precision = judged(batch, metrics.results()).eval["precision"][:, :, :, 0, -1]
    rows = metrics.per_class("keypoints")
    assert [(row["id"], row["name"]) for row in rows] == CATEGORIES
    for place, row in enumerate(rows[:2]):
        assert row["AP"] == pytest.approx(precision[:, :, place].mean(), abs=1e-12)
        records = [record for target in batch["targets"] for record in json.loads(target["ground_truth"])]
        mine = [record for record in records if record["category_id"] == row["id"]]
        assert row["objects"] == sum(bool(r["num_keypoints"]) and not r["iscrowd"] for r in mine) < len(mine)
    assert (rows[2]["AP"], rows[2]["objects"]) == (-1, 0)


def test_similarity_is_pycocotools():
    predictions, batch = random_scenes(4)
    metrics = measured(predictions, batch)
    evaluation = judged(batch, metrics.results())
    seen = 0
    for (image_id, category_id), expected in evaluation.ious.items():
        if not len(expected):
            continue
        found = [r for r in metrics.results() if (r["image_id"], r["category_id"]) == (image_id, category_id)]
        found = sorted(found, key=lambda record: -record["score"])[:20]
        (target,) = (target for target in batch["targets"] if target["image_id"] == image_id)
        truth = [r for r in json.loads(target["ground_truth"]) if r["category_id"] == category_id]
        ours = object_keypoint_similarity(found, truth, keypoint_sigmas(PERSON))
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15)
        seen += ours.size
    assert seen > 50


def test_cocos_sigmas_are_for_cocos_names():
    with contextlib.redirect_stdout(io.StringIO()):
        cocos = COCOeval(iouType="keypoints").params.kpt_oks_sigmas
    np.testing.assert_allclose(keypoint_sigmas(PERSON), cocos, rtol=1e-15)
    assert keypoint_sigmas(PERSON[::-1]).tolist() == [DEFAULT_SIGMA] * 17
    with pytest.raises(InputError, match="one above 0 for each of the 2"):
        keypoint_sigmas(["a", "b"], [0.1])
    with pytest.raises(InputError, match="keypoint_names"):
        CocoEvaluator(CATEGORIES, ("keypoints",))


def test_perfect_points_are_all_found_and_the_threshold_says_so():
    _, batch = random_scenes(0)
    found = []
    for target in batch["targets"]:
        records = [r for r in json.loads(target["ground_truth"]) if r["num_keypoints"] and not r["iscrowd"]]
        points = np.array([r["keypoints"] for r in records]).reshape(-1, 17, 3) + (0.5, 0.5, 0)
        boxes = np.array([r["bbox"] for r in records]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [1 if r["category_id"] == 1 else 2 for r in records]
        found.append(
            {
                "boxes": torch.tensor(boxes),
                "labels": torch.tensor(labels, dtype=torch.int64),
                "scores": torch.ones(len(records)),
                "keypoints": torch.tensor(points),
            }
        )
    metrics = measured(found, batch)
    assert metrics.compute()["keypoints_AP"] == metrics.best_f1("keypoints").f1 == 1
    assert metrics.community_ap("keypoints", 0.5)[0.5] == 1


def test_nothing_there_and_nothing_found():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    empty["keypoints"] = torch.zeros(0, 17, 3)
    target = {"image_id": 3, "original_size": (9, 9), "ground_truth": "[]"}
    metrics = measured([empty], {"targets": [target]})
    assert metrics.compute()["keypoints_AP"] == -1
    assert metrics.results() == []


def test_more_objects_than_coco_counts_are_said_and_counted_in_f1(caplog):
    """40 of 40 are found: COCO's AP counts 20 of the detections; the threshold and F1 count them all."""
    side, count = 20.0, 3
    corners = np.array([[30.0 * (n % 8), 30.0 * (n // 8)] for n in range(40)])
    points = corners[:, None] + np.array([[2.0, 3.0], [10.0, 4.0], [15.0, 18.0]])
    records = [
        {"id": n + 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "area": side**2, "num_keypoints": count}
        | {"bbox": [*corner.tolist(), side, side], "keypoints": [v for x, y in own.tolist() for v in (x, y, 2)]}
        for n, (corner, own) in enumerate(zip(corners, points, strict=True))
    ]
    found = {
        "boxes": torch.tensor(np.concatenate([corners, corners + side], 1), dtype=torch.float32),
        "labels": torch.ones(40, dtype=torch.int64),
        "scores": torch.linspace(0.99, 0.6, 40),
        "keypoints": torch.tensor(np.concatenate([points + 0.5, np.ones((40, count, 1))], 2), dtype=torch.float32),
    }
    target = {"image_id": 7, "original_size": (300, 300), "ground_truth": json.dumps(records)}
    metrics = measured([found], {"targets": [target]}, count)
    assert metrics.compute()["keypoints_AP"] == pytest.approx(51 / 101)
    assert "1 images have more than 20 objects with key points of one class, up to 40" in caplog.text
    best = metrics.best_f1("keypoints")
    assert best.f1 == 1
    assert best.threshold == pytest.approx(0.6)
    assert metrics.per_image("keypoints", 0.5) == {7: 1}
