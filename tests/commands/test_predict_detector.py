"""botformer predict with detectors."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn import functional as F

import botformer
from botformer import cli
from botformer.backbone.mhsa import MHSA2d
from botformer.create import create_classification_task
from botformer.data.image_io import decode as read
from botformer.detection.evaluation.coco_eval import NUMBERS
from botformer.detection.sliced_inference import Tiling
from botformer.plots import draw_detections
from botformer.predict import detector
from botformer.predict.bulk import predict_files
from botformer.predict.detector import attention_of
from botformer.predict.prediction_records import BulkOptions
from botformer.predict.predictor import predictor
from botformer.recipes.schema import ClassificationRecipe, Images, Model
from botformer.rle import decode
from botformer.weights import SHIPPED
from tests.data.detection.coco_files import annotation, content, write
from tests.data.detection.coco_files import image as image_record

from .detection_scenes import KNOWN, ODD, SIZES, rewrite, save_detector


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Larger than the canvas of 96 px, and than a tile of 64."""
    file = tmp_path_factory.mktemp("image") / "large.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (100, 150, 3)).astype(np.uint8)).save(file)
    return file


def annotations_of(data):
    return data / "annotations" / "instances_val.json"


def predict(network, out, *arguments):
    return cli.main(["predict", *map(str, arguments), "--checkpoint", str(network), "--out", str(out)])


def said(out, name="predictions.json"):
    return json.loads((out / name).read_text(encoding="utf-8"))


def judged_by_pycocotools(annotations, results, iou_type):
    if iou_type == "segm":  # else it takes the size of the box, even for masks
        results = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
        evaluation = COCOeval(coco, coco.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def test_predictions_scored_by_pycocotools_are_what_evaluate_says(network, data, tmp_path):
    """One looks at images one by one, the other in batches of three."""
    pytest.importorskip("faster_coco_eval")
    annotations = annotations_of(data)
    assert predict(network, tmp_path / "predicted", data / "val", "--annotations", annotations) == 0
    evaluated = ["evaluate", str(network), "--data", str(data), "--out", str(tmp_path / "evaluated")]
    assert cli.main([*evaluated, "--workers=0", "--batch-size=3"]) == 0
    metrics = said(tmp_path / "evaluated", "metrics.json")
    for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
        ours = judged_by_pycocotools(annotations, said(tmp_path / "predicted"), iou_type)
        assert ours == pytest.approx([metrics[kind][name] for name in NUMBERS], abs=1e-12)
        assert 0.01 < metrics[kind]["AP"] < 0.99


def test_a_photograph_four_times_as_large_as_the_canvas_is_predicted_as_it_is_evaluated(network, tmp_path):
    """JPEG is decoded smaller then, which changes the pixels."""
    pytest.importorskip("faster_coco_eval")
    record = image_record(1, "1.jpg", 400, 380)
    write(tmp_path, content([record], [annotation(1, 1, [10, 10, 90, 90], area=8100)]), "instances_val.json", "val")
    annotations = annotations_of(tmp_path)
    assert predict(network, tmp_path / "predicted", tmp_path / "val", "--annotations", annotations) == 0
    evaluated = ["evaluate", str(network), "--data", str(tmp_path), "--out", str(tmp_path / "evaluated")]
    assert cli.main([*evaluated, "--workers=0"]) == 0
    assert len(said(tmp_path / "predicted")) > 5
    assert said(tmp_path / "predicted") == said(tmp_path / "evaluated")


def test_files_without_annotations_are_numbered_and_described(network, data, tmp_path):
    """Two of the same name among them, and one whose name is not ASCII."""
    (tmp_path / "more").mkdir()
    shutil.copy(data / "val" / "11.png", tmp_path / "more" / "12.png")
    files = [data / "val" / ODD, data / "val" / "12.png", tmp_path / "more"]
    assert predict(network, tmp_path / "out", *files) == 0
    told = said(tmp_path / "out", "images.json")
    assert told["categories"] == [{"id": number, "name": name} for number, name in KNOWN]
    assert told["unreadable"] == []
    images = [files[0], files[1], tmp_path / "more" / "12.png"]
    assert [(i["id"], i["file_name"], (i["width"], i["height"])) for i in told["images"]] == [
        (number, file.as_posix(), size)
        for number, file, size in zip((1, 2, 3), images, (SIZES[5], SIZES[1], SIZES[0]), strict=True)
    ]
    drawings = [image["drawing"] for image in told["images"]]
    assert drawings == ["größe 6.prediction.png", "12.prediction.png", "12.prediction-2.png"]
    assert all((tmp_path / "out" / drawing).stat().st_size > 5000 for drawing in drawings)
    sizes = {image["id"]: [image["height"], image["width"]] for image in told["images"]}
    results = said(tmp_path / "out")
    assert {result["image_id"] for result in results} == {1, 2, 3}
    assert {result["category_id"] for result in results} <= {number for number, _ in KNOWN}
    assert all(result["segmentation"]["size"] == sizes[result["image_id"]] for result in results)


def test_the_threshold_is_for_drawings_and_the_screen_alone(network, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    drawn = []
    monkeypatch.setattr(draw_detections, "draw_detections", lambda shown, out: drawn.append(shown))
    counts = []
    for threshold in ("0", "0.1", "0.4"):
        assert predict(network, tmp_path / threshold, data / "val" / "13.png", "--threshold", threshold) == 0
        scores = [result["score"] for result in said(tmp_path / threshold)]
        counts.append(sum(score >= float(threshold) for score in scores))
        assert len(drawn[-1].names) == len(drawn[-1].masks) == counts[-1]
        assert (drawn[-1].scores >= float(threshold)).all()
        printed = " ".join(capsys.readouterr().out.split())
        assert all(f"{drawn[-1].names.count(name)} × {name}" in printed for name in set(drawn[-1].names))
        assert f"{max(scores):.3f}" in printed
    assert len({(tmp_path / threshold / "predictions.json").read_text() for threshold in ("0", "0.1", "0.4")}) == 1
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(("largest", "factor"), [(150, 1), (149, 2), (40, 4)])
def test_masks_are_drawn_where_they_are_also_on_a_smaller_image(largest, factor, network, image, monkeypatch):
    monkeypatch.setattr(detector, "_LARGEST_DRAWN_PX", largest)
    found = predictor(network)(image)
    chosen = range(0, len(found.masks), 7)
    shown = found.network.to_plot(found, chosen, found.image.decode())
    assert shown.size == (-(-100 // factor), -(-150 // factor))
    np.testing.assert_allclose(shown.boxes * factor, found.boxes_xyxy[list(chosen)], rtol=1e-6)
    drawn = 0
    for mask, index in zip(shown.masks, chosen, strict=True):
        whole = decode(found.masks[index])
        (h, w), (height, width) = mask.shape, whole.shape
        rows = np.minimum(np.arange(h) * factor + factor // 2, height - 1)
        columns = np.minimum(np.arange(w) * factor + factor // 2, width - 1)
        assert np.array_equal(mask, whole[rows][:, columns])
        drawn += mask.sum()
    assert drawn > 100


def test_an_image_no_larger_than_a_tile_gives_the_same_as_without(network, data, tmp_path):
    file = data / "val" / "13.png"
    assert max(SIZES[2]) == 130
    assert predict(network, tmp_path / "whole", file) == 0
    assert predict(network, tmp_path / "tile", file, "--tile", 130) == 0
    assert (tmp_path / "tile" / "predictions.json").read_text() == (tmp_path / "whole" / "predictions.json").read_text()


def test_tiles_are_seen_as_images_of_their_own(network, image, tmp_path):
    tiling = Tiling((100, 150), 64)
    assert len(tiling.tiles) == 6
    detect = predictor(network)
    found = []
    for number, tile in enumerate(tiling.tiles):
        file = tmp_path / f"{number}.png"
        Image.open(image).crop(tile).save(file)
        part = detect(file)
        tensors = {"boxes": part.boxes_xyxy, "labels": part.labels, "scores": part.scores}
        found.append({key: torch.from_numpy(value) for key, value in tensors.items()} | {"masks": part.masks})
    expected = tiling.merge(found)
    assert predict(network, tmp_path / "out", image, "--tile", 64) == 0
    results = said(tmp_path / "out")
    # Several tiles at once, or one: on some processors sums are taken in another order.
    assert [result["score"] for result in results] == pytest.approx(expected["scores"].tolist(), abs=1e-5)
    for result, mask in zip(results, expected["masks"], strict=True):
        assert (decode(result["segmentation"]) != decode(mask)).mean() < 1e-3
    assert 20 < len(results) < sum(len(part["scores"]) for part in found)


def test_boxes_alone_go_through_everything(image, tmp_path):
    network = save_detector(tmp_path / "boxes.safetensors", "faster_rcnn")
    assert predict(network, tmp_path / "out", image, "--tile", 64) == 0
    assert predict(network, tmp_path / "whole", image, "--attention") == 0
    results = said(tmp_path / "out")
    assert results
    assert all("segmentation" not in result for result in results)
    assert (tmp_path / "whole" / "large.attention.png").stat().st_size > 5000


def test_attention_is_what_the_layer_computed_with(network, data):
    """Its output at the query is the values weighted by it, head by head: padding gets nothing."""
    file = data / "val" / "17.png"  # 110x40 px: more than half of the canvas is padding
    model, _ = botformer.load(network)
    pixels = read(file, file.name)
    calls = []
    layers = [module for module in model.modules() if isinstance(module, MHSA2d)]
    hooks = [layer.register_forward_hook(lambda *call: calls.append(call)) for layer in layers]
    maps = attention_of(model, pixels, (60, 10, 100, 30))
    for hook in hooks:
        hook.remove()
    assert len(maps) == len(layers) > 0
    for (name, weights), (layer, (x, padding), output) in zip(maps, calls, strict=True):
        assert name.startswith("layer4.")
        assert weights.shape == (35, 96)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        stride = 96 // x.shape[2]
        assert padding.any()
        cell = int(20 / 110 * 96) // stride, int(80 / 110 * 96) // stride
        used = layer.attention_from(x, cell) * ~padding[:, None]
        used /= used.sum((2, 3), keepdim=True)
        value = layer.qkv(x)[:, -x.shape[1] :].unflatten(1, (layer.heads, -1))
        at_query = torch.einsum("bnhw,bndhw->bnd", used, value).flatten(1)
        torch.testing.assert_close(at_query, output[:, :, *cell], atol=1e-4, rtol=1e-4)
        image_only = used.mean(1, keepdim=True)[:, :, ~padding[0].all(1)][..., ~padding[0].all(0)]
        pixelwise = F.interpolate(image_only, scale_factor=stride, mode="bilinear")[0, 0, :35]
        np.testing.assert_allclose(weights, (pixelwise / pixelwise.sum()).detach(), atol=1e-6)


def test_the_attention_of_the_detection_that_was_asked_for_is_drawn(network, data, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(draw_detections, "draw_detection_attention", lambda *call: drawn.append(call))
    file = data / "val" / "13.png"
    for number in (0, 5):
        more = ["--detection", number] if number else []
        assert predict(network, tmp_path / "out", file, "--attention", *more) == 0
        shown, index, maps, place = drawn.pop()
        result = said(tmp_path / "out")[number]
        assert place == tmp_path / "out" / "13.attention.png"
        x, y, w, h = result["bbox"]
        np.testing.assert_allclose(shown.boxes[index], [x, y, x + w, y + h], rtol=1e-5)
        assert shown.scores[index] == pytest.approx(result["score"])
        assert maps
    assert predict(network, tmp_path / "out", file, "--attention", "--detection", 5000) == 0
    assert not drawn
    assert "no detection 5000" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("columns", ["80", "60"])
def test_a_long_file_name_stays_on_one_line_of_the_table(network, image, tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    file = shutil.copy(image, tmp_path / f"{'x' * 110}_slide.png")
    assert predict(network, tmp_path / "out", file, "--threshold", 0) == 0
    rows = capsys.readouterr().out.splitlines()[1:-1]
    (row,) = (row for row in rows if "_slide.png" in row)
    assert 24 <= len(row.split()[0]) < len(str(file))
    assert max(map(len, rows)) <= int(columns)


def test_nothing_found_is_said_and_drawn(image, tmp_path, capsys):
    network = save_detector(tmp_path / "blind.safetensors", score_threshold=1.0)
    for more in ([], ["--tile", 64], ["--attention"]):
        assert predict(network, tmp_path / "out", image, *more) == 0
        assert said(tmp_path / "out") == []
        assert len(said(tmp_path / "out", "images.json")["images"]) == 1
        assert "nothing" in capsys.readouterr().out
        assert (tmp_path / "out" / "large.prediction.png").is_file()
    assert not (tmp_path / "out" / "large.attention.png").exists()


def test_unreadable_images_are_listed_and_the_others_done(network, copy, tmp_path, capsys):
    (copy / "val" / "12.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rewrite(
        annotations_of(copy),
        images=[
            record | {"width": record["width"] + (record["id"] == 14)}
            for record in json.loads(annotations_of(copy).read_text())["images"]
        ],
    )
    assert predict(network, tmp_path / "out", copy / "val", "--annotations", annotations_of(copy)) == 2
    printed = capsys.readouterr().err
    assert f"2 of {len(SIZES)} images could not be read" in printed
    assert "64x64 pixels upright, its record (image id 14) says 65x64" in printed
    told = said(tmp_path / "out", "images.json")
    assert sorted(image["id"] for image in told["images"]) == [11, 13, 15, 16, 17]
    assert {entry["file_name"].rpartition("/")[2] for entry in told["unreadable"]} == {"12.png", "14.png"}
    assert all(entry["reason"] for entry in told["unreadable"])
    assert {result["image_id"] for result in said(tmp_path / "out")} == {11, 13, 15, 16, 17}


def test_drawings_of_an_earlier_time_are_no_images(network, copy):
    out = copy / "val" / "predictions"
    for _ in range(2):
        assert predict(network, out, copy / "val") == 0
        assert len(said(out, "images.json")["images"]) == len(SIZES)


def test_without_a_checkpoint_the_shipped_network_looks(network, image, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SHIPPED, "nuclei", network)
    assert cli.main(["predict", str(image)]) == 0
    assert "network: nuclei, which comes with botformer (mask_rcnn botnet_nano" in capsys.readouterr().out
    assert said(tmp_path / "runs" / "predictions" / "nuclei")
    monkeypatch.setitem(SHIPPED, "nuclei", tmp_path / "gone.safetensors")
    assert cli.main(["predict", str(image)]) == 2
    printed = capsys.readouterr().err
    assert "the network 'nuclei' should come with botformer, but its file" in printed


def test_a_file_s_predictions_lie_under_its_name(network, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", str(image), "--checkpoint", str(network)]) == 0
    assert (tmp_path / "runs" / "predictions" / "random" / "predictions.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--query", "0.5", "0.5"], "is a detector, and --query is for classifiers"),
        (["--query", "2", "0.5"], "--query takes two fractions"),
        (["--threshold", "1.5"], "--threshold is a score between 0 and 1"),
        (["--tile", "8"], "is 8; expected 0 (no tiles) or at least 64 pixels"),
        (["--tile", "-1"], "is -1; expected from 0"),
        (["--detection", "1"], "give --attention too"),
        (["--attention", "--detection", "-1"], "--detection counts from the best"),
        (["--attention", "--tile", "64"], "leave --tile or --attention out"),
        (["--annotations", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_options_that_make_no_sense_get_a_message(arguments, words, network, image, tmp_path, capsys):
    assert predict(network, tmp_path / "out", image, *arguments) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_places_that_hold_nothing_get_a_message(network, image, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(network, tmp_path / "out", tmp_path / "empty") == 2
    assert "empty holds no images" in capsys.readouterr().err
    assert predict(tmp_path / "empty", tmp_path / "out", image) == 2
    assert "empty has no checkpoint yet" in capsys.readouterr().err
    assert predict("nowhere", tmp_path / "out", image) == 2
    printed = capsys.readouterr().err
    assert "nowhere" in printed
    assert "expected the --out folder of a training run" in printed


def test_annotations_that_do_not_fit_get_a_message(network, copy, image, tmp_path, capsys):
    annotations = annotations_of(copy)

    def refused(*files, out=tmp_path / "out"):
        assert predict(network, out, *files, "--annotations", annotations) == 2
        return capsys.readouterr().err

    assert "does not name" in refused(image)
    (copy / "again").mkdir()
    shutil.copy(copy / "val" / "11.png", copy / "again")
    assert "several files are 11.png" in refused(copy / "val", copy / "again")
    shutil.copy(annotations, annotations.with_name("images.json"))
    before = annotations.read_bytes()
    annotations = annotations.with_name("images.json")
    assert "would be overwritten" in refused(copy / "val", out=annotations.parent)
    assert annotations.read_bytes() == before
    rewrite(annotations, categories=[{"id": 0, "name": "star"}, {"id": 7, "name": "cell"}, {"id": 90, "name": "moon"}])
    assert "has 3 (0 star, 90 moon, 7 cell); each of the latter must be one of the former" in refused(copy / "val")


def test_a_network_without_attention_says_so(image, tmp_path, capsys, network, monkeypatch):
    loaded = botformer.load(network)
    for block in loaded.model.backbone.layer4:
        block.conv2 = torch.nn.Identity()
    with pytest.raises(Exception, match="has no attention layers to draw"):
        predict_files(predictor(loaded), [image], tmp_path, BulkOptions(attention=True))


@pytest.mark.parametrize(
    "arguments", [["--threshold", "0.4"], ["--tile", "64"], ["--attention"], ["--annotations", "some.json"]]
)
def test_what_is_for_detectors_is_refused_with_a_classifier(arguments, image, tmp_path, capsys):
    recipe = ClassificationRecipe(model=Model("botnet_nano"), images=Images(size=32))
    task = create_classification_task(recipe, ["a", "b"])
    botformer.save(task.model, task.model_config(), tmp_path / "classes.safetensors")
    assert predict(tmp_path / "classes.safetensors", tmp_path / "out", image, *arguments) == 2
    assert f"is a classifier, and {arguments[0]} is for detectors" in capsys.readouterr().err
    assert predict(tmp_path / "classes.safetensors", tmp_path / "out", image, "--query", "0.2", "0.3") == 0
    assert len(said(tmp_path / "out")) == 1


def test_the_limit_of_an_image_s_size_can_be_moved(network, image, tmp_path, capsys):
    arguments = ["predict", str(image), "--checkpoint", str(network), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--max-megapixels", "0.001"]) == 2
    assert "more than 0.001 megapixels" in capsys.readouterr().err
    assert cli.main([*arguments, "--max-megapixels", "1000"]) == 0
