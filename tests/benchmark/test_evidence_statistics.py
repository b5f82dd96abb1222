"""Evidence in small: its average precision is pycocotools', its intervals hold the truth as often as they say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

from botformer.detection.evaluation.coco_eval import CocoEvaluator
from tests.detection.evaluation.coco_scenes import dataset, judged_by_pycocotools, random_scenes

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from evidence_rows import CIFAR10, NUCLEI, ROWS, Effect, Row
from evidence_statistics import (
    AveragePrecision,
    TopOne,
    Validation,
    half_width,
    image_counts,
    interval,
    measured_effects,
    validation,
)

CATEGORY = {"id": 1, "name": "thing"}


def scenes(seed):
    """An annotation file's content and results.json's, of one category."""
    predictions, batch = random_scenes(seed)
    truth = dataset(batch)
    evaluator = CocoEvaluator([(number, str(number)) for number in range(100)])
    evaluator.update(predictions, batch)
    results = [result | {"category_id": 1} for result in evaluator.results()]
    truth["annotations"] = [record | {"category_id": 1} for record in truth["annotations"]]
    return truth | {"categories": [CATEGORY]}, results


def repeated(truth, results, counts):
    """The same with every image as often as it counts, under ids of their own."""
    content = {"images": [], "annotations": [], "categories": [CATEGORY]}
    found = []
    ids = sorted(image["id"] for image in truth["images"])
    for image_id, count in zip(ids, counts, strict=True):
        for _ in range(count):
            new = len(content["images"]) + 1
            (image,) = [each for each in truth["images"] if each["id"] == image_id]
            content["images"].append(image | {"id": new})
            content["annotations"] += [
                record | {"image_id": new} for record in truth["annotations"] if record["image_id"] == image_id
            ]
            found += [result | {"image_id": new} for result in results if result["image_id"] == image_id]
    content["annotations"] = [record | {"id": number} for number, record in enumerate(content["annotations"], 1)]
    return content, found


@pytest.mark.parametrize("seed", [0, 2, 4])
@pytest.mark.parametrize(("kind", "iou_type"), [("mask", "segm"), ("box", "bbox")])
def test_average_precision_of_a_resample_is_pycocotools_of_the_images_that_often(tmp_path, seed, kind, iou_type):
    truth, results = scenes(seed)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "predictions.json").write_text(json.dumps(results))
    scores = AveragePrecision(tmp_path / "predictions.json", tmp_path / "truth.json", 100)
    counts = image_counts(len(truth["images"]), resamples=3)
    ours = {number: scores.of(f"{kind}_{number}", counts) for number in ("AP", "APs", "APm", "APl")}
    assert counts[0].tolist() == [1] * len(truth["images"])
    for place, row in enumerate(counts):
        stats = judged_by_pycocotools(*repeated(truth, results, row), iou_type).stats
        for number, expected in zip(ours, (stats[0], *stats[3:6]), strict=True):
            got = ours[number][place]
            assert got == pytest.approx(100 * expected, abs=1e-9) or (expected == -1 and np.isnan(got))


def test_top_one_is_the_percentage_of_right_answers(tmp_path):
    records = [
        {"file_name": name, "label": "cat", "top5": [[first, 0.9], ["cat", 0.1]]}
        for name, first in (("b", "cat"), ("a", "dog"), ("c", "cat"), ("d", "dog"))
    ]
    (tmp_path / "predictions.json").write_text(json.dumps(records))
    scores = TopOne(tmp_path / "predictions.json")
    assert scores.images == ["a", "b", "c", "d"]
    assert scores.of("top1", np.array([[1, 1, 1, 1], [0, 3, 1, 0], [2, 1, 0, 1]])).tolist() == [50, 100, 25]


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_seeds", [0.0, 0.05, 0.2], ids=["images alone", "both", "mostly seeds"])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(seeds, of_seeds):
    """Two networks that are equally good in truth: a threshold on how hard an image is, which both share, on what a
    seed's order of images does to both, on what it makes of each network, and on chance."""
    random = np.random.default_rng(11)
    counts = image_counts(300, resamples=200)
    held = []
    for _ in range(400):
        hard = random.normal(size=300)
        groups = []
        order = 0.1 * random.normal(size=(seeds, 1))
        for _network in range(2):
            shift = order + of_seeds * random.normal(size=(seeds, 1))
            right = hard + 0.7 * random.normal(size=(seeds, 300)) + shift > -1
            groups.append(100 * (right @ counts.T) / counts.sum(1))
        found = interval(groups, [1, -1])
        held.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(held) <= 0.995


@pytest.mark.parametrize("freedom", [2, 4, 9])
@pytest.mark.parametrize("of_seeds", [0.0, 1e-6, 0.3, 1.0, 30.0])
@pytest.mark.parametrize("of_images", [0.0, 1e-6, 1.0])
def test_an_interval_is_that_of_the_sum_of_its_errors(freedom, of_seeds, of_images):
    half = half_width(of_seeds, freedom, of_images)
    seeds, images = of_seeds * t.ppf(0.975, freedom), of_images * norm.ppf(0.975)
    assert half >= max(seeds, images) * (1 - 1e-4)
    if min(seeds, images) == 0:
        assert half == pytest.approx(max(seeds, images), rel=1e-4)
    random = np.random.default_rng(5)
    sums = of_seeds * random.standard_t(freedom, size=400_000) + of_images * random.normal(size=400_000)
    assert np.mean(np.abs(sums) <= half) == pytest.approx(0.95 if half else 1.0, abs=0.002)


def test_a_true_difference_is_found_and_its_sign_is_that_of_the_claim():
    random = np.random.default_rng(0)
    better, worse = (centre + random.normal(size=(3, 201)) * 0.1 for centre in (80.0, 78.0))
    found = interval([better, worse], [1, -1])
    assert found.low < found.effect < found.high
    assert found.effect == pytest.approx(better[:, 0].mean() - worse[:, 0].mean())
    assert found.verdict(3) == "holds in small"
    assert interval([worse, better], [1, -1]).verdict(3) == "does not hold"
    assert interval([better, better], [1, -1]).verdict(3) == "cannot be decided with 3 seeds"


def test_effects_need_three_seeds_of_all_their_networks(tmp_path):
    def run(seed, right):
        folder = tmp_path / f"{right}_{seed}"
        folder.mkdir()
        generator = np.random.default_rng(seed)
        records = [
            {"file_name": str(i), "label": "a", "top5": [["a" if generator.random() < right else "b", 1.0]]}
            for i in range(50)
        ]
        (folder / "predictions.json").write_text(json.dumps(records))
        return validation(CIFAR10, folder, tmp_path / "none", ["top1"])

    row = Row("name", "claim", "setting", (Effect("BoT - R", ("CIFAR BoT",), ("CIFAR R",)),))
    runs = {"CIFAR BoT": {s: run(s, 0.9) for s in range(4)}, "CIFAR R": {s: run(s, 0.5) for s in range(3)}}
    (line,) = measured_effects(row, runs)
    assert (line["seeds"], line["images"], line["metric"], line["verdict"]) == (3, 50, "top1", "holds in small")
    del runs["CIFAR R"][0]
    assert not measured_effects(row, runs)
    assert not measured_effects(ROWS["detection"], runs)
    assert NUCLEI.metric == "mask_AP"


def test_trainings_that_were_validated_on_other_images_are_not_compared():
    runs = {
        arm: {seed: Validation(f"5 {images}", {"top1": np.zeros(2001)}) for seed in range(3)}
        for arm, images in (("CIFAR BoT", "one"), ("CIFAR R", "another"))
    }
    row = Row("name", "claim", "setting", (Effect("BoT - R", ("CIFAR BoT",), ("CIFAR R",)),))
    with pytest.raises(ValueError, match="^BoT - R: its trainings were validated on different images$"):
        measured_effects(row, runs)
