import json
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from botformer.detection.evaluation.coco_eval import NUMBERS, CocoEvaluator
from botformer.errors import InputError

from .coco_scenes import CATEGORIES, dataset, judged_by_pycocotools, random_scenes, runs

pytest.importorskip("faster_coco_eval")

IOU_TYPE = {"box": "bbox", "mask": "segm"}


def measured(predictions, batch, **options):
    metrics = CocoEvaluator(CATEGORIES, **options)
    metrics.update(predictions, batch)
    return metrics


def slices(predictions, batch, parts):
    """The images dealt to so many processes."""
    for part in range(parts):
        yield predictions[part::parts], {"targets": batch["targets"][part::parts]}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_the_twelve_numbers_are_pycocotools(seed, kind):
    predictions, batch = random_scenes(seed)
    metrics = measured(predictions, batch)
    numbers = metrics.compute()
    expected = judged_by_pycocotools(dataset(batch), metrics.results(), IOU_TYPE[kind]).stats
    for name, value in zip(NUMBERS, expected, strict=True):
        assert abs(numbers[f"{kind}_{name}"] - value) < 1e-12, name
    assert 0.2 < numbers[f"{kind}_AP50"] < 0.9
    assert len(set(expected.round(6))) > 8  # numbers that could be mistaken for each other would prove little
    assert numbers["images"] == len(predictions)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_per_class_and_curves_are_pycocotools(kind):
    predictions, batch = random_scenes(1)
    metrics = measured(predictions, batch)
    judged = judged_by_pycocotools(dataset(batch), metrics.results(), IOU_TYPE[kind])
    precision = judged.eval["precision"][:, :, :, 0, -1]
    rows = metrics.per_class(kind)
    assert [(row["id"], row["name"]) for row in rows] == CATEGORIES
    for place, row in enumerate(rows[:3]):
        assert row["AP"] == pytest.approx(precision[:, :, place].mean(), abs=1e-12)
        assert row["AP50"] == pytest.approx(precision[0, :, place].mean(), abs=1e-12)
        assert row["AP75"] == pytest.approx(precision[5, :, place].mean(), abs=1e-12)
        of_class = [r for r in dataset(batch)["annotations"] if r["category_id"] == row["id"] and not r["iscrowd"]]
        assert row["objects"] == len(of_class)
    assert (rows[3]["AP"], rows[3]["AP50"], rows[3]["objects"]) == (-1, -1, 0)
    for iou, name in ((0.5, "AP50"), (0.75, "AP75")):
        recall, curve = metrics.precision_recall(kind, iou)
        assert np.allclose(recall, np.linspace(0, 1, 101))
        assert np.array_equal(curve, precision[0 if iou == 0.5 else 5, :, :3].mean(1))
        assert curve.mean() == pytest.approx(metrics.compute()[f"{kind}_{name}"])
    with pytest.raises(InputError, match="not at 0.33"):
        metrics.precision_recall(kind, 0.33)


def test_more_detections_than_coco_counts():
    """A hundred objects and twenty in one image, all found."""
    boxes = torch.tensor([[x, y, x + 6.0, y + 5.0] for x in range(0, 120, 10) for y in range(0, 100, 10)])
    count = len(boxes)
    records = [
        {"id": n, "image_id": 5, "category_id": 3, "bbox": [x, y, 6, 5], "area": 30, "iscrowd": 0}
        for n, (x, y) in enumerate(boxes[:, :2].tolist())
    ]
    found = {"boxes": boxes, "labels": torch.full((count,), 2), "scores": torch.linspace(1, 0.1, count)}
    batch = {"targets": [{"image_id": 5, "original_size": (100, 130), "ground_truth": json.dumps(records)}]}
    hundred = measured([found], batch, kinds=("box",)).compute()
    assert hundred["box_AR100"] == pytest.approx(100 / count)
    more = measured([found], batch, kinds=("box",), max_detections=300)
    assert more.compute()["box_AR100"] == more.compute()["box_AP"] == 1
    judged = judged_by_pycocotools(dataset(batch), more.results(), "bbox", 300)
    assert judged.eval["recall"][0, 1, 0, -1] == 1
    with pytest.raises(InputError, match="max_detections"):
        CocoEvaluator(CATEGORIES, max_detections=10)


def test_of_an_image_in_tiles_all_detections_count():
    """Each tile may have as many as the network gives of one image."""
    size, count = 1000, 400
    corners = [(50.0 * (place % 20), 50.0 * (place // 20)) for place in range(count)]
    truth = [
        {"id": n, "image_id": 1, "category_id": 0, "bbox": [x, y, 20, 20], "area": 400.0, "iscrowd": 0}
        for n, (x, y) in enumerate(corners)
    ]
    found = {
        "boxes": torch.tensor([[x, y, x + 20, y + 20] for x, y in corners]),
        "scores": torch.linspace(0.9, 0.2, count),
        "labels": torch.ones(count, dtype=torch.long),
    }
    target = {"image_id": 1, "original_size": (size, size), "ground_truth": json.dumps(truth)}
    whole, tiled = (CocoEvaluator([(0, "thing")], ("box",)) for _ in range(2))
    whole.update([found], {"targets": [target]})
    tiled.update([found], {"targets": [target | {"tile_px": 500}]})
    assert whole.compute()["box_AP"] == pytest.approx(26 / 101)  # 100 of the 400
    other = CocoEvaluator([(0, "thing")], ("box",))  # of another process
    other.merge([tiled.state()])
    for evaluator in (tiled, other, tiled.only([1])):
        assert evaluator.max_detections == 400
        assert evaluator.compute()["box_AP"] == 1
        assert evaluator.best_f1("box").f1 == 1


@pytest.mark.parametrize("parts", [2, 5])
def test_processes_together_measure_what_one_does(parts):
    predictions, batch = random_scenes(2)
    alone = measured(predictions, batch)
    states = [measured(*share).state() for share in slices(predictions, batch, parts)]
    states.append(states[0])  # an image that fills up the last batch, seen twice
    together = CocoEvaluator(CATEGORIES)
    together.merge(json.loads(json.dumps(states), object_hook=with_integer_keys))  # plain data
    assert together.compute() == alone.compute()
    assert together.best_f1("mask") == alone.best_f1("mask")
    assert sorted(map(str, together.results())) == sorted(map(str, alone.results()))


def with_integer_keys(record):
    return {int(key) if key.isdigit() else key: value for key, value in record.items()}


def test_batches_one_after_the_other_measure_what_one_does():
    predictions, batch = random_scenes(3)
    one = CocoEvaluator(CATEGORIES)
    for share in slices(predictions, batch, 4):
        one.update(*share)
        one.compute()
    assert one.compute() == measured(predictions, batch).compute()


def test_a_part_of_the_images_is_measured_alone():
    predictions, batch = random_scenes(4)
    (first, targets), _ = slices(predictions, batch, 2)
    part = measured(predictions, batch).only([target["image_id"] for target in targets["targets"]])
    assert part.compute() == measured(first, targets).compute()


def test_results_have_cocos_form_and_original_ids():
    predictions, batch = random_scenes(0)
    results = measured(predictions, batch).results()
    assert {result["category_id"] for result in results} <= {number for number, _ in CATEGORIES}
    assert len({result["category_id"] for result in results}) >= 3
    by_image = {target["image_id"]: found for found, target in zip(predictions, batch["targets"], strict=True)}
    ordered = [result["image_id"] for result in results]
    assert ordered == sorted(ordered)
    for image_id, found in by_image.items():
        mine = [result for result in results if result["image_id"] == image_id]
        assert [list(result) for result in mine] == [
            ["image_id", "category_id", "bbox", "score", "segmentation"]
        ] * len(found["boxes"])
        assert [result["score"] for result in mine] == found["scores"].tolist()
        for result, (x1, y1, x2, y2) in zip(mine, found["boxes"].tolist(), strict=True):
            assert result["bbox"] == [x1, y1, x2 - x1, y2 - y1]


def test_nothing_found_and_nothing_there():
    predictions, batch = random_scenes(5)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    blind = measured([nothing | {"masks": []} for _ in predictions], batch)
    numbers = blind.compute()
    assert numbers["box_AP"] == numbers["mask_AP"] == numbers["mask_AR100"] == 0
    assert blind.best_f1("box") == (1.0, 0.0, 0.0, 0.0)
    assert blind.results() == []
    for target in batch["targets"]:
        target["ground_truth"] = "[]"
    empty = measured(predictions, batch)
    assert set(empty.compute().values()) == {-1, len(predictions)}
    assert [row["AP"] for row in empty.per_class("box")] == [-1] * 4
    assert np.array_equal(empty.precision_recall("mask")[1], np.zeros(101))
    assert empty.community_ap("mask", 0.0) == dict.fromkeys((0.5, 0.6, 0.7, 0.8, 0.9), 0.0)
    neither = measured([nothing | {"masks": []} for _ in predictions], batch)
    assert set(neither.community_ap("mask", 0.0).values()) == {-1}


def test_perfect_detections_are_perfect():
    predictions, batch = random_scenes(6)
    for found, target in zip(predictions, batch["targets"], strict=True):
        records = [
            {"id": 0, "image_id": target["image_id"], "category_id": CATEGORIES[label - 1][0], "iscrowd": 0, "area": 1}
            | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": mask}
            for label, (x1, y1, x2, y2), mask in zip(
                found["labels"].tolist(), found["boxes"].tolist(), found["masks"], strict=True
            )
        ]
        target["ground_truth"] = json.dumps(records)
    metrics = measured(predictions, batch)
    assert metrics.compute()["mask_AP"] == metrics.compute()["box_AP"] == 1
    least = min(float(found["scores"].min()) for found in predictions if len(found["scores"]))
    best = metrics.best_f1("mask")
    assert best == (pytest.approx(least), 1, 1, 1)
    assert set(metrics.community_ap("mask", best.threshold).values()) == {1.0}
    assert set(metrics.per_image("mask", best.threshold).values()) == {1.0}


def test_an_object_without_a_mask_counts_neither_way_for_masks():
    square = runs(np.pad(np.ones((20, 20)), ((5, 25), (5, 25))))
    other = runs(np.pad(np.ones((10, 10)), ((32, 8), (32, 8))))
    bare = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    shaped = bare | {"id": 2, "bbox": [32, 32, 10, 10], "area": 100, "segmentation": other}
    batch = {
        "targets": [{"image_id": 1, "original_size": (50, 50), "ground_truth": json.dumps([bare, shaped])}],
    }
    found = {
        "boxes": torch.tensor([[5.0, 5, 25, 25], [32, 32, 42, 42]]),
        "labels": torch.tensor([2, 2]),
        "scores": torch.tensor([0.9, 0.8]),
        "masks": [square, other],
    }
    metrics = measured([found], batch)
    assert metrics.compute()["mask_AP"] == metrics.compute()["box_AP"] == 1
    assert (metrics.per_class("mask")[1]["objects"], metrics.per_class("box")[1]["objects"]) == (1, 2)
    assert metrics.community_ap("mask", 0.5)[0.5] == 1


# Real annotations


@pytest.mark.parametrize(
    ("archive", "file", "some"),
    [
        ("coco_sample.zip", "instances_val2017.json", 60),
        ("coco_sample.zip", "instances_train2017.json", 60),
        ("dsb2018.zip", "instances_val.json", 25),
    ],
)
def test_on_real_annotations_the_numbers_are_pycocotools(real_data, archive, file, some):
    """Detections are the annotations themselves, moved, mixed up, left out and doubled."""
    if not (real_data / archive).is_file():
        pytest.skip(f"{real_data / archive} is not there")
    with ZipFile(real_data / archive) as packed:
        data = json.loads(packed.read(f"annotations/{file}"))
    rng = np.random.default_rng(0)
    images = {record["id"]: record for record in data["images"][:some]}
    data |= {"images": list(images.values())}
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] in images]
    categories = [(record["id"], record["name"]) for record in data["categories"]]
    label = {number: place for place, (number, _) in enumerate(categories, 1)}
    metrics = CocoEvaluator(categories)
    for image_id, image in images.items():
        truth = [record for record in data["annotations"] if record["image_id"] == image_id]
        height, width = image["height"], image["width"]
        boxes, labels, masks = [], [], []
        for record in truth:
            for _ in range(rng.choice(3, p=[0.15, 0.7, 0.15])):
                x, y, w, h = record["bbox"]
                dx, dy = rng.normal(0, 0.05, 2) * [w, h]
                boxes.append([x + dx, y + dy, x + w + dx, y + h + dy])
                labels.append(label[record["category_id"]] if rng.random() < 0.9 else 1)
                mask = np.zeros((height, width))
                left, top = max(0, round(x + dx)), max(0, round(y + dy))
                mask[top : round(y + h + dy), left : round(x + w + dx)] = 1
                masks.append(runs(mask))
        found = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "scores": torch.tensor(rng.random(len(boxes)), dtype=torch.float32),
            "masks": masks,
        }
        target = {"image_id": image_id, "original_size": (height, width), "ground_truth": json.dumps(truth)}
        metrics.update([found], {"targets": [target]})
    numbers = metrics.compute()
    for kind, iou_type in IOU_TYPE.items():
        expected = judged_by_pycocotools(data, metrics.results(), iou_type).stats
        for name, value in zip(NUMBERS, expected, strict=True):
            assert abs(numbers[f"{kind}_{name}"] - value) < 1e-12, (kind, name)
        assert numbers[f"{kind}_AP50"] > 0.1


IDS = {
    "beyond the integers of doubles": lambda number: 2**60 + number,
    "beyond 64 bits": lambda number: 10**30 + number,
    "negative": lambda number: number - 500,
    "names": lambda number: f"scan {number:04d}",
}


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_image_ids_of_any_kind_give_the_numbers_of_small_ones(ids, kind):
    """pycocotools judges the same images under the small ids; the results keep their own."""
    predictions, batch = random_scenes(1)
    metrics = measured(predictions, batch)
    renamed = []
    for target in batch["targets"]:
        image_id = IDS[ids](target["image_id"])
        truth = [record | {"image_id": image_id} for record in json.loads(target["ground_truth"])]
        renamed.append(target | {"image_id": image_id, "ground_truth": json.dumps(truth)})
    of_any_kind = measured(predictions, {"targets": renamed})
    expected = judged_by_pycocotools(dataset(batch), metrics.results(), IOU_TYPE[kind]).stats
    numbers = of_any_kind.compute()
    for name, value in zip(NUMBERS, expected, strict=True):
        assert abs(numbers[f"{kind}_{name}"] - value) < 1e-12, name
    before = [result | {"image_id": IDS[ids](result["image_id"])} for result in metrics.results()]
    assert of_any_kind.results() == before
    assert set(of_any_kind.per_image(kind, 0.5)) == {target["image_id"] for target in renamed}


def test_category_ids_of_any_size_and_sign():
    predictions, batch = random_scenes(1)
    other = [(-7, "zero"), (2**53 + 1, "three"), (2**53 + 2, "seventeen"), (10**25, "never seen")]
    new = {old: number for (old, _), (number, _) in zip(CATEGORIES, other, strict=True)}
    targets = []
    for target in batch["targets"]:
        truth = [record | {"category_id": new[record["category_id"]]} for record in json.loads(target["ground_truth"])]
        targets.append(target | {"ground_truth": json.dumps(truth)})
    metrics = CocoEvaluator(other)
    metrics.update(predictions, {"targets": targets})
    assert metrics.compute() == measured(predictions, batch).compute()
    assert [row["id"] for row in metrics.per_class("box")] == [number for number, _ in other]
