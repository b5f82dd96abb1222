"""A key point detector from the command line: train, evaluate, predict."""

import contextlib
import io
import json

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from botformer import cli
from botformer.data.synthetic.keypoint_scenes import LAYOUT, SCENE_PX, write_keypoint_scenes
from botformer.detection.evaluation.coco_eval import KEYPOINT_NUMBERS

pytest.importorskip("faster_coco_eval")

SMALL = [
    "--images.size=64", "--images.test-size=64", "--run.batch-size=2", "--run.workers=0", "--run.max-steps=2",
    "--run.evaluate-every=100", "--settings.keypoint-convolutions=1", "--settings.keypoint-channels=16",
    "--settings.score-threshold=0", "--settings.max-detections=20", "--run.device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def darts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darts") / "data"
    write_keypoint_scenes(folder, train=4, validation=3)
    return folder


@pytest.fixture(scope="module")
def run(darts, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    arguments = ["train", "nuclei_mini", "--data", str(darts), "--out", str(out), "--detector", "keypoint_rcnn"]
    assert cli.main([*arguments, *SMALL, "--keypoint-sigmas", *["1"] * 5]) == 0
    return out


def test_evaluate_measures_what_pycocotools_does(run, darts, tmp_path, capsys):
    assert cli.main(["evaluate", str(run), "--data", str(darts), "--out", str(tmp_path), "--workers=0"]) == 0
    numbers = json.loads((tmp_path / "metrics.json").read_text())["keypoints"]
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert all(len(result["keypoints"]) == 15 for result in results)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(darts / "annotations" / "person_keypoints_val.json"))
        bare = [{key: value for key, value in result.items() if key != "bbox"} for result in results]
        judged = COCOeval(truth, truth.loadRes(bare), "keypoints")
        judged.params.kpt_oks_sigmas = judged.params.kpt_oks_sigmas[:5] * 0 + 1
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    for name, expected in zip(KEYPOINT_NUMBERS, judged.stats, strict=True):
        assert abs(numbers[name] - expected) < 1e-12, name
    assert numbers["AR"] > 0
    assert "keypoints" in capsys.readouterr().out
    assert Image.open(tmp_path / "best_and_worst.png").size[0] > 300


def test_predict_writes_cocos_form(run, darts, tmp_path):
    assert cli.main(["predict", str(darts / "val"), "--checkpoint", str(run), "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert results
    for result in results:
        x, y, v = (result["keypoints"][place::3] for place in range(3))
        left, top, width, height = result["bbox"]
        assert len(x) == 5
        assert set(v) == {1}
        assert left - 1 <= min(x) <= max(x) <= left + width
        assert top - 1 <= min(y) <= max(y) <= top + height
        assert max(*x, *y) < SCENE_PX
    (category,) = json.loads((tmp_path / "images.json").read_text())["categories"]
    assert category["keypoints"] == list(LAYOUT.names)
    assert category["skeleton"] == [[a + 1, b + 1] for a, b in LAYOUT.skeleton]
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_tiles_are_refused(run, darts, tmp_path, capsys):
    arguments = ["predict", str(darts / "val"), "--checkpoint", str(run), "--out", str(tmp_path / "out"), "--tile=64"]
    assert cli.main(arguments) == 2
    assert "leave --tile out" in " ".join(capsys.readouterr().err.split())


def test_data_without_labelled_points_gets_a_message(darts, tmp_path, capsys):
    write_keypoint_scenes(tmp_path / "data", train=4, validation=3)
    file = tmp_path / "data" / "annotations" / "person_keypoints_val.json"
    data = json.loads(file.read_text())
    for record in data["annotations"]:
        record |= {"keypoints": [0] * 15, "num_keypoints": 0}
    file.write_text(json.dumps(data))
    arguments = ["train", "nuclei_mini", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--detector=keypoint_rcnn", *SMALL]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "none of its objects has a labelled one" in said
    assert cli.main([*arguments, "--detector=keypoint_rcnn", "--settings.keypoints=7", *SMALL]) == 2


def test_other_points_than_the_networks_are_refused(run, darts, tmp_path, capsys):
    write_keypoint_scenes(tmp_path / "data", train=4, validation=3)
    file = tmp_path / "data" / "annotations" / "person_keypoints_val.json"
    data = json.loads(file.read_text())
    data["categories"][0]["keypoints"] = list(reversed(LAYOUT.names))
    file.write_text(json.dumps(data))
    assert cli.main(["evaluate", str(run), "--data", str(tmp_path / "data"), "--workers=0"]) == 2
    assert "must be the same ones in the same order" in " ".join(capsys.readouterr().err.split())
