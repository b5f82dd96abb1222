"""Tiles that a network was trained for, and --tta flip: evaluate and predict see images alike."""

import contextlib
import io
import json
import logging
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import botformer
from botformer import cli
from botformer.create import create_classification_task
from botformer.detection.evaluation.coco_eval import NUMBERS
from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Images, Model

pytest.importorskip("faster_coco_eval")


def saved(network, file, **images):
    """The network, trained on other images."""
    model, model_config = botformer.load(network)
    botformer.save(model, model_config | {"images": asdict(DetectionImages(size=96, **images))}, file)
    return file


def evaluate(network, data, out, *more):
    assert cli.main(["evaluate", str(network), "--data", str(data), "--out", str(out), "--workers=0", *more]) == 0
    return [json.loads((out / name).read_text(encoding="utf-8")) for name in ("metrics.json", "predictions.json")]


def predict(network, data, out, *more):
    annotations = ["--annotations", str(data / "annotations" / "instances_val.json")]
    given = ["predict", str(data / "val"), "--checkpoint", str(network), "--out", str(out)]
    assert cli.main([*given, *annotations, *more]) == 0
    return json.loads((out / "predictions.json").read_text(encoding="utf-8"))


def judged(data, results, most=100):
    """pycocotools' twelve numbers, with its limit of detections per image at `most`."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / "annotations" / "instances_val.json"))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, R, K, A, M), (T, K, A, M)

    def mean(values):
        return values[values > -1].mean() if (values > -1).any() else -1.0

    of_sizes = (1, 2, 3)
    return [
        *(mean(precision[ious, :, :, 0, -1]) for ious in (slice(None), 0, 5)),
        *(mean(precision[:, :, :, size, -1]) for size in of_sizes),
        *(mean(recall[:, :, 0, limit]) for limit in (0, 1, 2)),
        *(mean(recall[:, :, size, -1]) for size in of_sizes),
    ]


def assert_alike(one, other):
    """Batches of other sizes round in another way."""
    assert len(one) == len(other) > 50
    for record, again in zip(one, other, strict=True):
        assert (record["image_id"], record["category_id"]) == (again["image_id"], again["category_id"])
        assert record["score"] == pytest.approx(again["score"], abs=1e-4)
        assert record["bbox"] == pytest.approx(again["bbox"], abs=0.05)


def test_a_network_sees_images_in_the_tiles_that_it_was_trained_for(network, data, tmp_path, caplog):
    tiled = saved(network, tmp_path / "tiled.safetensors", tile=64)
    with caplog.at_level(logging.INFO):
        metrics, results = evaluate(tiled, data, tmp_path / "evaluated")
    assert metrics["tile"] == 64
    assert "--tile 0 switches it off" in caplog.text
    assert_alike(results, sorted(predict(tiled, data, tmp_path / "predicted"), key=lambda r: r["image_id"]))
    assert metrics["max_detections"] > 100
    expected = judged(data, results, metrics["max_detections"])
    assert [metrics["box"][name] for name in NUMBERS] == pytest.approx(expected, abs=1e-12)
    whole_metrics, whole = evaluate(tiled, data, tmp_path / "whole", "--tile=0")
    assert whole_metrics["tile"] == 0
    assert whole != results
    assert whole == evaluate(network, data, tmp_path / "without")[1]


def test_flips_are_measured_as_pycocotools_does_and_predicted_alike(network, data, tmp_path):
    metrics, results = evaluate(network, data, tmp_path / "evaluated", "--tta=flip", "--batch-size=3")
    assert metrics["tta"] == "flip"
    assert [metrics["box"][name] for name in NUMBERS] == pytest.approx(judged(data, results), abs=1e-12)
    assert_alike(results, sorted(predict(network, data, tmp_path / "p", "--tta=flip"), key=lambda r: r["image_id"]))
    for file in (data / "val").iterdir():  # the data in a mirror: the same detections, mirrored
        mirrored = tmp_path / "mirrored" / file.name
        mirrored.parent.mkdir(exist_ok=True)
        Image.fromarray(np.array(Image.open(file))[:, ::-1]).save(mirrored)
    given = ["predict", str(tmp_path / "mirrored"), "--checkpoint", str(network), "--out", str(tmp_path / "m")]
    annotations = str(data / "annotations" / "instances_val.json")
    assert cli.main([*given, "--annotations", annotations, "--tta=flip"]) == 0
    widths = {
        record["id"]: record["width"]
        for record in json.loads((data / "annotations" / "instances_val.json").read_text())["images"]
    }
    mirrored = json.loads((tmp_path / "m" / "predictions.json").read_text())
    for record in mirrored:
        x, y, w, h = record["bbox"]
        record["bbox"] = [widths[record["image_id"]] - x - w, y, w, h]
    assert_alike(results, sorted(mirrored, key=lambda record: record["image_id"]))


def test_flips_are_left_out_where_training_had_none(network, data, tmp_path, caplog):
    unflipped = saved(network, tmp_path / "unflipped.safetensors", hflip=False)
    metrics, results = evaluate(unflipped, data, tmp_path / "flip", "--tta=flip")
    assert "--tta flip is left out" in caplog.text
    assert metrics["tta"] == "none"
    assert results == evaluate(network, data, tmp_path / "none")[1]


def test_tiles_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="cannot be joined"):
        DetectionRecipe(detector="keypoint_rcnn", images=DetectionImages(tile=300))
    with pytest.raises(InputError, match="images.tile is 63; expected 0"):
        DetectionImages(tile=63)


def test_a_classifier_averages_the_probabilities_of_both(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for number in range(12):
        file = tmp_path / "data" / "validation" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(file)
    recipe = ClassificationRecipe(
        model=Model("botnet_nano", zero_gamma=False), images=Images(size=32, evaluation_crop=1.0)
    )
    task = create_classification_task(recipe, ["a", "b"]).eval()
    botformer.save(task.model, task.model_config(), tmp_path / "c.safetensors")
    _, plain = evaluate(tmp_path / "c.safetensors", tmp_path / "data", tmp_path / "plain")
    metrics, both = evaluate(tmp_path / "c.safetensors", tmp_path / "data", tmp_path / "flip", "--tta=flip")
    right = 0
    for record in both:
        pixels = torch.from_numpy(np.array(Image.open(tmp_path / "data" / "validation" / record["file_name"]))).permute(
            2, 0, 1
        )
        with torch.no_grad():
            one, other = (
                task.model(task.model.preprocess(image[None])).double().softmax(1)[0]
                for image in (pixels, pixels.flip(-1))
            )
        wanted = (one + other) / 2
        assert dict(record["top5"]) == pytest.approx({"a": wanted[0].item(), "b": wanted[1].item()}, abs=1e-5)
        right += int("ab"[int(wanted.argmax())] == record["label"])
    assert metrics["top1"] == pytest.approx(right / 12)
    assert metrics["tta"] == "flip"
    assert plain != both
    unchanged = task.model_config() | {"images": asdict(replace(recipe.images, augmentation="none"))}
    botformer.save(task.model, unchanged, tmp_path / "unflipped.safetensors")
    left_out, same = evaluate(tmp_path / "unflipped.safetensors", tmp_path / "data", tmp_path / "left", "--tta=flip")
    assert left_out["tta"] == "none"
    assert same == plain
