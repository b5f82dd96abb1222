"""/predict against the predictor itself."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from botformer.predict.predictor import Predictor

from .running_server import CLASSIFIER, DETECTOR, KEYPOINTS, form


def test_classes_are_those_of_the_predictor(server, photo):
    own = Predictor(CLASSIFIER, "cpu")(photo)
    answer = server.post("/predict?network=photos", photo).json
    assert answer["image"] == hashlib.sha256(photo).hexdigest()
    assert {key: answer[key] for key in ("network", "task", "name", "width", "height")} == {
        "network": "photos", "task": "classification", "name": "image", "width": 70, "height": 50,
    }  # fmt: skip
    assert [(each["label"], each["probability"]) for each in answer["top5"]] == own.top5
    np.testing.assert_allclose(answer["probabilities"], own.of_classes, atol=1e-6)


@pytest.mark.parametrize(("network", "source"), [("scenes", DETECTOR), ("poses", KEYPOINTS), ("nuclei", "nuclei")])
def test_objects_are_those_of_the_predictor(server, cells, network, source):
    predictor = Predictor(source, "cpu")
    own = predictor(cells).above(0.1)
    answer = server.post(f"/predict?network={network}&threshold=0.1&name=cells.png", cells).json
    assert (answer["task"], answer["name"], answer["width"], answer["height"]) == ("detection", "cells.png", 200, 150)
    found = answer["detections"]
    assert len(found) == len(own) > 0
    assert [each["label"] for each in found] == own.names
    ids = dict(zip(predictor.names, predictor.network.category_ids, strict=True))
    assert [each["category_id"] for each in found] == [ids[name] for name in own.names]
    np.testing.assert_allclose([each["score"] for each in found], own.scores, atol=1e-6)
    np.testing.assert_allclose([each["box_xyxy"] for each in found], own.boxes_xyxy, atol=0.006)
    if own.masks is None:
        assert not any("segmentation" in each for each in found)
    else:
        assert [each["segmentation"] for each in found] == own.masks
    if own.keypoints is None:
        assert not any("keypoints" in each for each in found)
    else:
        points = np.array([each["keypoints"] for each in found])
        np.testing.assert_allclose(points[..., :2], own.keypoints[..., :2], atol=0.006)
        np.testing.assert_allclose(points[..., 2], own.keypoints_scores, atol=1e-6)


@pytest.mark.parametrize(("network", "source"), [("photos", CLASSIFIER), ("scenes", DETECTOR), ("poses", KEYPOINTS)])
def test_cocos_results_are_those_of_the_predictor(server, photo, network, source):
    answer = server.post(f"/predict?network={network}&format=coco&image_id=7", photo).json
    assert answer == json.loads(json.dumps(Predictor(source, "cpu")(photo).to_coco(7)))
    assert answer


def test_a_form_and_a_turned_photograph(server):
    """Sizes and boxes are those of the upright image, and the form's file has a name."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "teal").save(out, "JPEG", exif=exif)
    answer = server.post_form("/predict?network=photos", [("anything", "a b.jpg", out.getvalue())]).json
    assert (answer["name"], answer["width"], answer["height"]) == ("a b.jpg", 40, 60)


def test_outlines_cover_their_masks_with_few_points(server, cells):
    found = server.post("/predict?network=nuclei&threshold=0.5&outlines=true", cells).json["detections"]
    assert len(found) > 5
    for each in found:
        flat = [[side for point in polygon for side in point] for polygon in each["outlines"]]
        drawn = coco_masks.merge(coco_masks.frPyObjects(flat, 150, 200))
        ((overlap,),) = coco_masks.iou([drawn], [each["segmentation"]], [0])
        area = coco_masks.area(each["segmentation"])
        assert overlap > (0.9 if area > 200 else 0.8), area
        assert sum(map(len, each["outlines"])) < 30


def test_what_is_wrong_with_a_request(server, photo):
    for path, body, status, words in (
        ("/predict?network=photos", b"", 400, "no body"),
        ("/predict?network=photos", b"%PDF-1.4 nothing to see", 415, "expected a JPEG, PNG"),
        ("/predict?network=photos", photo[:200], 422, "truncated"),
        ("/predict?network=phtos", photo, 404, "there are: photos, scenes, poses, nuclei"),
        ("/predict", photo, 422, "which network"),
        ("/predict?network=photos&threshold=2", photo, 422, "threshold"),
        ("/predict?network=photos&format=xml", photo, 422, "format"),
        ("/nothing", photo, 404, "/docs"),
    ):
        reply = server.post(path, body)
        assert reply.status == status
        assert words in reply.detail
        assert "/home" not in reply.detail
        assert "botformer/" not in reply.detail
    assert server.get("/predict").status == 405


def test_what_is_wrong_with_a_form(server, photo):
    two = [("a", "a.png", photo), ("b", "b.png", photo)]
    for parts, words in (
        ([("text", None, b"hello")], "0 files"), ([("a", "a.png", b"")], "empty"), (two, "has 2 files"),
        ([*two, ("c", "c.png", photo)], "Too many files"),
    ):  # fmt: skip
        reply = server.post_form("/predict?network=photos", parts)
        assert reply.status == 400
        assert words in reply.detail
    reply = server.post_form("/predict?network=photos", [("a", "a.png", photo), ("threshold", None, b"0.9")])
    assert (reply.status, reply.detail) == (
        422, "the form has 'threshold' beside the file; parameters stand in the address: ?threshold=",
    )  # fmt: skip
    body, _ = form(two)
    reply = server.post("/predict?network=photos", body, {"Content-Type": "multipart/form-data"})
    assert (reply.status, "boundary" in reply.detail) == (400, True)


def test_what_would_be_ignored_is_refused(server, photo):
    answer = server.post("/predict?network=photos&treshold=0.9", photo)
    assert (answer.status, answer.detail) == (
        422,
        "there is no parameter 'treshold'; there are network, format, outlines, threshold, name, image_id",
    )
    answer = server.post_form("/corrections?fromat=folders", [("annotations", None, b"{}")])
    assert (answer.status, answer.detail) == (422, "there is no parameter 'fromat'; there are format")


def test_health_and_the_page_answer_probes(server):
    assert [server.ask("HEAD", path).status for path in ("/", "/health")] == [200, 200]
