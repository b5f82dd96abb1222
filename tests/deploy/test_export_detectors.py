import ast
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from botformer.deploy import detector_script, optimize
from botformer.deploy.export import export
from botformer.deploy.read_detections import read_detections
from botformer.deploy.run_script import run_script
from botformer.deploy.runtimes import open_exported
from botformer.deploy.task_config import task_config
from botformer.deploy.to_torch import write_torch
from botformer.detection.masks import paste_window
from botformer.detection.padding import PaddedImages, pad_images, shrink_to_fit
from botformer.errors import InputError
from botformer.rle import decode_counts
from tests.detection.scenes import SMALL, small_detector, two_scenes

CANVAS = (65, 97)


def sharp_detector(kind, **settings):
    """Its attention looks at single places, which the small weights of a new one do not, and two thirds of its anchors
    score exactly the same, as those of a network that was trained for minutes do."""
    network = small_detector(kind, settings=replace(SMALL, rpn_pre_nms_top_n_test=200, **settings))
    nn.init.zeros_(network.rpn.logits.weight[1:])
    for name, parameter in network.named_parameters():
        if "qkv" in name or "cls_score.weight" in name:
            nn.init.normal_(parameter, std=0.3 if "qkv" in name else 0.05)
    return network.eval()


@pytest.fixture(scope="module")
def detector():
    return sharp_detector("mask_rcnn", max_detections=30, score_threshold=0.0)


@pytest.fixture(scope="module", params=["openvino", "torch"])  # OpenVINO's is read from the ONNX file
def folder(request, detector, tmp_path_factory):
    """Compared with PyTorch while it was written, on an image without objects too."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(request.param, request.param))
    folder = tmp_path_factory.mktemp("exported") / request.param
    return export(request.param, detector, folder, size=CANVAS, images=two_scenes()[0])


def test_detections_are_pytorchs(folder, detector):
    runtime = open_exported(folder)
    for image in two_scenes()[0]:
        padded = pad_images([image], CANVAS)
        size = (image.shape[1] * 3, image.shape[2] * 3)  # of the file that the image was made of
        (expected,) = detector.padded_detections(padded, [size])
        outputs = runtime(pixels=padded.pixels.numpy(), sizes=np.array(padded.sizes))
        (found,) = read_detections(outputs, padded.sizes, [size])
        assert len(expected["labels"]) == 30
        torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=0.01)
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-4)
        assert torch.equal(found["labels"], expected["labels"])
        differing = sum((pixels(a) != pixels(b)).mean() for a, b in zip(found["masks"], expected["masks"], strict=True))
        assert differing < 0.01


def test_run_py_finds_the_same_in_the_file(folder, detector, tmp_path):
    file = tmp_path / "two scènes.png"
    image = Image.fromarray((two_scenes()[0][1] * 255).byte().permute(1, 2, 0).numpy()).resize((97, 65))
    image.save(file)
    run = subprocess.run([sys.executable, folder / "run.py", file], capture_output=True, text=True, check=True)
    answer = json.loads(run.stdout)
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    (expected,) = detector.padded_detections(PaddedImages(exact, [CANVAS]), [CANVAS])
    assert answer["size"] == list(CANVAS)
    assert len(answer["objects"]) == 30
    boxes = torch.tensor([one["box_xyxy"] for one in answer["objects"]])
    torch.testing.assert_close(boxes, expected["boxes"], rtol=0, atol=0.01)
    assert [one["label"] for one in answer["objects"]] == expected["labels"].tolist()
    same = [
        np.mean(pixels(one["mask"]) == pixels(mask))
        for one, mask in zip(answer["objects"], expected["masks"], strict=True)
    ]
    assert min(same) > 0.999


def pixels(encoded):
    counts = decode_counts(encoded["counts"])
    return np.repeat(np.arange(len(counts)) % 2, counts)


@pytest.mark.parametrize(
    ("kind", "canvas"), [("faster_rcnn", (128, 64)), ("mask_rcnn", CANVAS), ("keypoint_rcnn", (96, 131))]
)
def test_in_bfloat16_layers_round_and_coordinates_do_not(kind, canvas, tmp_path):
    """It finds what `optimize` finds in bfloat16, by another RoIAlign and suppression."""
    detector = sharp_detector(kind, max_detections=30, score_threshold=0.0)
    exportable = detector.exportable(size=canvas)
    write_torch(exportable, "bfloat16", tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    weights = program.state_dict
    assert {weights[name].dtype for name in weights if name.endswith("weight")} == {torch.bfloat16}
    padded = pad_images([shrink_to_fit(two_scenes()[0][0], canvas)], canvas)
    with torch.no_grad():
        results = program.module()(padded.pixels, torch.tensor(padded.sizes))
    found = dict(zip(exportable.output_names, (values.numpy() for values in results), strict=True))
    assert {values.dtype for name, values in found.items() if name != "labels"} == {np.dtype(np.float32)}
    boxes = torch.from_numpy(found["boxes"])
    assert (boxes.bfloat16().float() != boxes).float().mean() > 0.8  # a step there is up to half a pixel
    (result,) = optimize(detector, dtype=torch.bfloat16).detect_on_canvas(padded)
    expected = {"boxes": result.detections.boxes_xyxy, "scores": result.detections.scores}
    expected["labels"] = result.detections.labels
    if result.masks is not None:
        expected["masks"] = result.masks
    if result.keypoints is not None:
        expected["keypoints"] = torch.cat([result.keypoints[0][..., :2], result.keypoints[1][..., None]], -1)
    arrays = {name: values[None].float().numpy() for name, values in expected.items()}
    differences = exportable.differences(arrays, found)
    # A processor without instructions for bfloat16 rounds the sums of a graph and of the network in other places.
    limits = exportable.limits["float32" if torch.cpu._is_avx512_bf16_supported() else "float16"]
    assert all(value <= limits[name] for name, value in differences.items()), differences


def test_key_points_in_a_batch(tmp_path):
    """In ONNX Runtime; the others run masks."""
    pytest.importorskip("onnxruntime")
    network = sharp_detector("keypoint_rcnn", max_detections=20, score_threshold=0.0)
    canvas = (64, 64)
    runtime = open_exported(export("onnx", network, tmp_path / "keypoints", size=canvas, batch=2))
    padded, exportable = pad_images(two_scenes()[0], canvas), network.exportable(size=canvas, batch=2)
    inputs = padded.pixels, torch.tensor(padded.sizes)
    outputs = runtime(**{name: x.numpy() for name, x in zip(exportable.input_names, inputs, strict=True)})
    expected = dict(zip(exportable.output_names, (x.numpy() for x in exportable.reference(*inputs)), strict=True))
    assert (expected["scores"] > 0).all()
    differences = exportable.differences(expected, outputs)
    limits = exportable.limits["float32"]
    assert all(value <= limits[name] for name, value in differences.items()), differences
    for found in read_detections(outputs, padded.sizes, padded.sizes):
        assert found["keypoints"].shape == (20, 3, 3)


@pytest.mark.parametrize(
    ("format_name", "precision"), [("executorch", "float32"), ("onnx", "bfloat16"), ("torch", "float16")]
)
def test_what_does_not_work_says_why(format_name, precision, detector, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(format_name, format_name))
    with pytest.raises(InputError, match="refused: (ExecuTorch has|ONNX Runtime has|PyTorch computes)"):
        export(format_name, detector, tmp_path / "refused", precision=precision)
    assert not (tmp_path / "refused").exists()


def test_a_network_that_sees_tiles_elsewhere_says_so(detector):
    model_config = {"categories": [[1, "a"], [2, "b"]], "images": {"tile": 512}}
    config = task_config(detector.exportable(size=CANVAS), model_config)
    assert "tiles of 512 px" in config["notes"][0]
    script = run_script(config | {"format": "onnx", "precision": "float32", "task": "detection"})
    assert "tiles of 512 px" in ast.get_docstring(ast.parse(script))
    assert "notes" not in task_config(detector.exportable(size=CANVAS), model_config | {"images": {"tile": 0}})


def test_masks_pasted_with_numpy_are_those_of_the_detector():
    """Sizes of 5 to 60 px, boxes inside, across and beside the image, thinner than a pixel, without an extent."""
    written = {"np": np}
    exec(detector_script.DETECTION, written)
    generator = np.random.default_rng(0)
    for case in range(200):
        size = tuple(int(side) for side in generator.integers(5, 60, 2))
        low, extent = generator.uniform(-10, 50, 2), generator.uniform(0, 40, 2) * (case % 10 > 0)
        box = np.float32([*low, *(low + extent)]).astype(np.float64)
        mask = generator.uniform(0, 1, (28, 28)).astype(np.float32)
        window, (top, left) = paste_window(torch.from_numpy(mask).double(), torch.from_numpy(box), size)
        expected = np.zeros(size, bool)
        expected[top : top + window.shape[0], left : left + window.shape[1]] = window.numpy() >= 0.5
        found = written["pasted"](mask, box, size)
        assert found.shape == size
        assert (found != expected).mean() == 0, (size, box)
