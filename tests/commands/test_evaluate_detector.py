"""botformer evaluate with detectors."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import botformer
from botformer import cli
from botformer.commands.evaluate import Arguments
from botformer.create import create_classification_task
from botformer.detection.evaluation.coco_eval import NUMBERS
from botformer.plots import draw_detections
from botformer.recipes.schema import ClassificationRecipe, Images, Model

from .detection_scenes import KNOWN, ODD, SIZES, rewrite, save_detector

pytest.importorskip("faster_coco_eval")

FILES = ["best_and_worst.png", "metrics.json", "precision_recall.png", "predictions.json"]
IOU_TYPE = {"box": "bbox", "mask": "segm"}


def annotations_of(data):
    return data / "annotations" / "instances_val.json"


def evaluate(network, data, out, *more):
    return cli.main(["evaluate", str(network), "--data", str(data), "--out", str(out), "--workers=0", *more])


def metrics_in(out):
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def evaluated(network, data, tmp_path_factory):
    """The folder of an evaluation by stain, what it wrote to the screen, and the pairs of images that it drew."""
    out, screen, drawn = tmp_path_factory.mktemp("evaluated"), io.StringIO(), []
    draw = draw_detections.draw_pairs
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setenv("COLUMNS", "200")
        patch.setattr(draw_detections, "draw_pairs", lambda pairs, file: (drawn.extend(pairs), draw(pairs, file)))
        assert evaluate(network, data, out, "--by=stain") == 0
    return out, screen.getvalue(), drawn


def judged_by_pycocotools(data, out, kind, image_ids=None):
    """The twelve numbers of predictions.json against the data set's own file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations_of(data)))
        results = json.loads((out / "predictions.json").read_text())
        if kind == "mask":
            results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
        evaluation = COCOeval(truth, truth.loadRes(results), IOU_TYPE[kind])
        evaluation.params.imgIds = image_ids or evaluation.params.imgIds
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_metrics_are_what_pycocotools_says_of_results_and_annotations(evaluated, data, kind):
    out, _, _ = evaluated
    metrics, judged = metrics_in(out), judged_by_pycocotools(data, out, kind)
    for name, value in zip(NUMBERS, judged.stats, strict=True):
        assert abs(metrics[kind][name] - value) < 1e-12, name
    assert metrics[kind]["AP50"] > 0.05  # something was found
    for row, (number, name), precision in zip(
        metrics[kind]["per_class"], KNOWN, np.moveaxis(judged.eval["precision"], 2, 0), strict=True
    ):
        assert (row["id"], row["name"]) == (number, name)
        precision = precision[:, :, 0, -1]
        assert row["AP"] == pytest.approx(precision[precision > -1].mean() if row["objects"] else -1, abs=1e-12)


def test_results_load_into_pycocotools_as_they_are(evaluated, data):
    out, _, _ = evaluated
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations_of(data)))
        found = truth.loadRes(str(out / "predictions.json"))
    assert len(found.anns) == metrics_in(out)["detections"] > 0
    assert {found.annToMask(record).shape for record in found.anns.values()} <= {
        (height, width) for width, height in SIZES
    }


def test_counts_leave_out_crowds(evaluated):
    metrics = metrics_in(evaluated[0])
    assert metrics["images"] == len(SIZES)
    assert metrics["objects"] == 6 * 6 - 1
    assert metrics["max_detections"] == 100
    assert metrics["skipped"] == {"images": {}, "annotations": []}


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_f1_and_the_community_s_ap_are_of_the_same_threshold(evaluated, kind):
    metrics = metrics_in(evaluated[0])[kind]
    f1, precision, recall = (metrics["best_f1"][name] for name in ("f1", "precision", "recall"))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert metrics["community_ap"]["0.5"] == pytest.approx(f1 / (2 - f1))  # TP / (TP + FP + FN), of 2 TP / (...)
    fractions = [metrics["community_ap"][iou] for iou in ("0.5", "0.6", "0.7", "0.8", "0.9")]
    assert fractions == sorted(fractions, reverse=True)
    assert "these very images" in metrics_in(evaluated[0])["threshold_chosen_on"]


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_groups_are_measured_alone(evaluated, data, kind):
    out, _, _ = evaluated
    groups = metrics_in(out)["by"]["stain"]
    ids = {"(none)": [12], "colour": [11, 13, 15, 17], "grey": [14, 16]}
    assert list(groups) == list(ids)
    for value, group in groups.items():
        judged = judged_by_pycocotools(data, out, kind, ids[value])
        for name, number in zip(NUMBERS, judged.stats, strict=True):
            assert abs(group[kind][name] - number) < 1e-12, (value, name)
        assert group["images"] == len(ids[value])
    assert [group["objects"] for group in groups.values()] == [6, 18, 11]
    for count in ("objects", "detections"):
        assert sum(group[count] for group in groups.values()) == metrics_in(out)[count]


def test_best_and_worst_images_show_truth_beside_what_passes_the_threshold(evaluated, data):
    out, _, drawn = evaluated
    titles = [title for title, _, _ in drawn]
    assert [title.split(":")[0] for title in titles] == ["best"] * 3 + ["worst"] * 3
    fractions = [float(title.split()[1]) for title in titles]
    assert fractions[:3] == sorted(fractions[:3], reverse=True)
    assert fractions[3:] == sorted(fractions[3:])
    assert min(fractions[:3]) >= max(fractions[3:])
    assert fractions[0] > fractions[3]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations_of(data)))
        found = truth.loadRes(str(out / "predictions.json"))
    threshold = metrics_in(out)["mask"]["best_f1"]["threshold"]
    ids = {record["file_name"]: record["id"] for record in truth.imgs.values()}
    names = {number: record["name"] for number, record in truth.cats.items()}
    for title, real, prediction in drawn:
        (image_id,) = (number for name, number in ids.items() if f"· {name}" in title)
        records = truth.loadAnns(truth.getAnnIds(image_id, iscrowd=False))
        detected = [record for record in found.imgToAnns[image_id] if record["score"] >= threshold]
        assert len(detected) < len(found.imgToAnns[image_id])
        assert ("· 1 ignored, not drawn" in title) == (image_id == 14)
        for shown, expected, coco in ((real, records, truth), (prediction, detected, found)):
            assert list(shown.names) == [names[record["category_id"]] for record in expected]
            for box, mask, record in zip(shown.boxes, shown.masks, expected, strict=True):
                x, y, w, h = record["bbox"]
                assert box.tolist() == pytest.approx([x, y, x + w, y + h])
                assert np.array_equal(mask, coco.annToMask(record).astype(bool))
        assert prediction.scores.tolist() == [record["score"] for record in detected]
        assert real.scores is None


def test_the_screen_says_the_numbers_and_where_the_files_are(evaluated):
    out, screen, _ = evaluated
    assert sorted(file.name for file in out.iterdir()) == FILES
    for name in ("best_and_worst.png", "precision_recall.png"):
        assert Image.open(out / name).size[0] > 600
    metrics = metrics_in(out)
    assert "7 images with 35 objects" in screen
    for kind in ("box", "mask"):
        row = next(line.split() for line in screen.splitlines() if line.split()[:1] == [kind])
        names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
        expected = [metrics[kind][name] for name in names]
        assert row[1:] == ["-" if value == -1 else f"{value:.3f}" for value in expected]
        assert row[6] == "-"  # no disc is large
    lowest = min((row for row in metrics["mask"]["per_class"] if row["AP"] >= 0), key=lambda row: row["AP"])
    assert f"lowest mask AP: {lowest['name']} {lowest['AP']:.3f}" in screen
    assert f"{metrics['mask']['best_f1']['threshold']:.3f}" in screen
    assert "colour" in screen
    assert str(out) in screen


def test_a_detector_of_boxes_alone_has_no_mask_numbers(data, tmp_path, capsys):
    network = save_detector(tmp_path / "boxes.safetensors", "faster_rcnn")
    assert evaluate(network, data, tmp_path / "out") == 0
    metrics = metrics_in(tmp_path / "out")
    judged = judged_by_pycocotools(data, tmp_path / "out", "box")
    assert abs(metrics["box"]["AP"] - judged.stats[0]) < 1e-12
    assert "mask" not in metrics
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES
    assert "mask" not in capsys.readouterr().out


def test_a_file_in_place_of_the_results_is_said_before_measuring(network, data, tmp_path, capsys, monkeypatch):
    (tmp_path / "afile").write_text("mine")
    monkeypatch.setattr("botformer.evaluate.detector.measure", None)
    assert evaluate(network, data, tmp_path / "afile") == 2
    assert "afile is a file; the results need a folder" in capsys.readouterr().err
    assert (tmp_path / "afile").read_text() == "mine"


def test_nothing_found_gives_zeros(data, tmp_path, capsys):
    network = save_detector(tmp_path / "blind.safetensors", score_threshold=1.0)
    assert evaluate(network, data, tmp_path / "out") == 0
    metrics = metrics_in(tmp_path / "out")
    assert metrics["detections"] == metrics["mask"]["AP"] == metrics["mask"]["community_ap"]["0.5"] == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == []
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES


def test_images_without_objects_give_no_average_precision(network, copy, tmp_path, capsys):
    rewrite(annotations_of(copy), annotations=[])
    assert evaluate(network, copy, tmp_path / "out") == 0
    metrics = metrics_in(tmp_path / "out")
    assert metrics["objects"] == 0
    assert metrics["mask"]["AP"] == metrics["box"]["AR100"] == -1
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["mask"])
    assert row[1:] == ["-"] * 7


def test_what_is_left_out_is_counted_and_listed(network, copy, tmp_path, capsys):
    annotations = json.loads(annotations_of(copy).read_text())["annotations"]
    annotations[3]["bbox"] = [float("nan"), 0, 5, 5]
    rewrite(annotations_of(copy), annotations=annotations)
    (copy / "val" / ODD).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert evaluate(network, copy, tmp_path / "out", "--by=stain") == 0
    metrics = metrics_in(tmp_path / "out")
    assert metrics["images"] == len(SIZES) - 1
    assert metrics["by"]["stain"]["grey"]["images"] == 1
    assert list(metrics["skipped"]["images"]) == [ODD]
    (problem,) = metrics["skipped"]["annotations"]
    assert (problem["image_id"], problem["annotation_id"]) == (11, 4)
    assert "nan" in problem["reason"]
    screen = capsys.readouterr().out
    assert "1 images were left out" in screen
    assert "1 annotations were left out" in screen


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 90, "name": "toothbrush"}, {"id": 0, "name": "other"}, {"id": 7, "name": "cell"}],
        [{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}],
    ],
    ids=["name", "twice"],
)
def test_other_categories_than_the_checkpoint_s_are_named(network, copy, tmp_path, capsys, categories):
    rewrite(annotations_of(copy), annotations=[], categories=categories)
    assert evaluate(network, copy, tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "random.safetensors knows 3 categories" in printed
    assert f"has {len(categories)} (" in printed
    for record in categories:
        assert f"{record['id']} {record['name']}" in printed
    for number, name in KNOWN:
        assert f"{number} {name}" in printed
    assert "rename it in the annotations (in COCO's, 'categories'" in printed
    assert not (tmp_path / "out").exists()


def test_a_key_that_no_image_has_is_named_with_those_there_are(network, data, tmp_path, capsys):
    assert evaluate(network, data, tmp_path / "out", "--by=colour") == 2
    printed = capsys.readouterr().err
    assert "--by colour" in printed
    assert "the keys there: stain" in printed


def test_a_detector_does_not_take_class_folders(network, colours, tmp_path, capsys):
    assert evaluate(network, colours, tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "is a detector, but" in printed
    assert "annotations/instances_train*.json" in printed


def test_a_classifier_does_not_take_objects_with_boxes(data, colours, tmp_path, capsys):
    recipe = ClassificationRecipe(model=Model("botnet_nano"), images=Images(size=32))
    task = create_classification_task(recipe, ["blue", "green", "red"])
    botformer.save(task.model, task.model_config(), tmp_path / "classifier.safetensors")
    assert evaluate(tmp_path / "classifier.safetensors", data, tmp_path / "out") == 2
    assert "is a classifier, but" in capsys.readouterr().err
    assert evaluate(tmp_path / "classifier.safetensors", colours, tmp_path / "out", "--by=stain") == 2
    assert "--by is for detectors" in capsys.readouterr().err
    assert evaluate(tmp_path / "classifier.safetensors", colours, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["images"] == 9


def test_results_go_beside_a_run_and_into_runs_for_a_file_or_a_name(network, tmp_path):
    (tmp_path / "run").mkdir()
    assert Arguments(tmp_path / "run", "data").folder == tmp_path / "run" / "evaluation"
    assert str(Arguments(network, "data").folder) == "runs/evaluation/random"


def test_predictions_are_not_replaced(network, data, tmp_path, capsys):
    (tmp_path / "images.json").write_text("{}")
    assert evaluate(network, data, tmp_path) == 2
    assert "holds what predict wrote, which would be lost" in capsys.readouterr().err
