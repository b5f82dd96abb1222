import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from botformer.detection.evaluation.coco_eval import CocoEvaluator
from botformer.detection.evaluation.f1_score import Matches, best_f1, detection_accuracy

from .coco_scenes import CATEGORIES, dataset, judged_by_pycocotools, random_scenes, runs

pytest.importorskip("faster_coco_eval")


def matches(ious, scores=None, in_crowd=None):
    ious = np.array(ious, dtype=float)
    return Matches(
        np.linspace(1, 0.1, len(ious)) if scores is None else np.array(scores),
        ious,
        np.zeros(len(ious)) if in_crowd is None else np.array(in_crowd),
    )


def test_the_best_detection_takes_first_what_it_overlaps_most():
    part = matches([[0.6, 0.7], [0.1, 0.8], [0.65, 0.1], [0.9, 0.9]])
    assert part.taken(0.5).tolist() == [1, -1, 0, -1]
    assert part.taken(0.66).tolist() == [1, -1, -1, 0]


def test_detections_in_a_crowd_count_neither_way_unless_they_have_an_object():
    part = matches([[0.7], [0.2], [0.2]], in_crowd=[0.9, 0.9, 0.3])
    assert part.taken(0.5).tolist() == [0, -2, -1]
    assert detection_accuracy([part], 0.5, 0.0) == 1 / 2


@pytest.mark.parametrize("seed", range(5))
def test_greedy_matching_finds_as_many_as_the_optimal_where_objects_do_not_overlap(seed):
    """Nuclei as a label image has them; predictions that overlap each other; scipy's assignment as the judge."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 30, (8, 8)).repeat(6, 0).repeat(6, 1)  # patches: objects cannot overlap
    objects = [labels == number for number in range(1, 30) if (labels == number).any()]
    found = [mask & (rng.random(mask.shape) > rng.uniform(0, 0.5)) for mask in objects for _ in range(rng.integers(3))]
    truth = [{"segmentation": runs(mask), "iscrowd": 0} for mask in objects]
    rpn_output = [{"segmentation": runs(mask), "score": float(rng.random())} for mask in found]
    part = Matches.of(truth, rpn_output, "mask", (48, 48), 100)
    intersections = np.array([[(a & b).sum() / (a | b).sum() for b in objects] for a in found])
    order = np.argsort([-guess["score"] for guess in rpn_output], kind="stable")
    assert np.allclose(part.ious, intersections[order])
    for iou in (0.5 + 1e-9, 0.6, 0.7, 0.8, 0.9):
        rows, columns = linear_sum_assignment(-(intersections >= iou).astype(float))
        hits = (intersections[rows, columns] >= iou).sum()
        assert detection_accuracy([part], iou, 0.0) == hits / (len(found) + len(objects) - hits)
    assert 0.2 < detection_accuracy([part], 0.5, 0.0) < 0.9


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(4))
def test_best_f1_is_the_best_of_all_thresholds_judged_by_pycocotools(kind, seed):
    """For every score there is: the true and false ones of a results.json cut off there, by pycocotools' matching."""
    predictions, batch = random_scenes(seed)
    metrics = CocoEvaluator(CATEGORIES)
    metrics.update(predictions, batch)
    results = metrics.results()
    expected = {}
    for threshold in sorted({result["score"] for result in results})[:: 1 if seed % 2 else 4]:
        kept = [result for result in results if result["score"] >= threshold]
        judged = judged_by_pycocotools(dataset(batch), kept, {"box": "bbox", "mask": "segm"}[kind])
        parts = [part for part in judged.evalImgs if part and part["aRng"] == [0, 1e10]]
        hits = sum(((part["dtMatches"][0] > 0) & ~part["dtIgnore"][0].astype(bool)).sum() for part in parts)
        counted = sum((~part["dtIgnore"][0].astype(bool)).sum() for part in parts)
        objects = sum((np.array(part["gtIgnore"]) == 0).sum() for part in parts)
        expected[threshold] = (2 * hits / (counted + objects), hits / counted, hits / objects)
        share = metrics.community_ap(kind, threshold)[0.5]
        assert share == pytest.approx(hits / (counted + objects - hits))
    best = metrics.best_f1(kind)
    assert best.f1 >= max(f1 for f1, _, _ in expected.values()) - 1e-12
    if seed % 2:
        assert (best.f1, best.precision, best.recall) == pytest.approx(expected[best.threshold])
    assert 0.3 < best.f1 < 0.95


def test_equal_scores_count_together():
    part = matches([[0.9, 0], [0, 0], [0, 0], [0, 0.9]], scores=[0.8, 0.5, 0.5, 0.5])
    best = best_f1([part], 0.5)
    assert best == (0.8, pytest.approx(2 / 3), 1.0, 0.5)  # below it: F1 of 2/3 as well, at four detections


def test_shares_are_counted_over_all_images_together():
    good, poor = matches([[0.9]]), matches([[0.1, 0.2, 0.0]])
    assert detection_accuracy([good, poor], 0.5, 0.0) == 1 / 5
    assert detection_accuracy([good, poor], 0.5, 1.1) == 0
    assert detection_accuracy([], 0.5, 0.0) == 1
    assert detection_accuracy([good, poor], 0.95, 0.0) == 0


def test_by_image_tells_good_images_from_bad_ones():
    predictions, batch = random_scenes(1)
    metrics = CocoEvaluator(CATEGORIES)
    metrics.update(predictions, batch)
    per_image = metrics.per_image("mask", 0.0)
    assert per_image.keys() == {target["image_id"] for target in batch["targets"]}
    assert max(per_image.values()) - min(per_image.values()) > 0.3
    for image_id, share in per_image.items():
        alone = metrics.only([image_id])
        empty = not sum(row["objects"] for row in alone.per_class("mask")) and share == 1
        assert alone.community_ap("mask", 0.0)[0.5] == (-1 if empty else share)
