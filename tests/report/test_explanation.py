"""botformer explain: what is explained, and the page of it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer.commands.explain import main
from botformer.create.from_checkpoint import Loaded
from botformer.errors import InputError
from botformer.explain import see
from botformer.report.explanation import ExplainedClass, ExplainedDetection, ExplainOptions, explain
from botformer.report.explanation_page import layer_title, ranked_classes, write_explanation_page

from ..explain.tiny_networks import POSITIONS
from .pages import Page

NAMES = ["apfel", "birne", "kürbis"]


def photograph(folder, height=70, width=90, name="ein Bild ä.png"):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
    return folder / name


def classifier(row="botnet_nano", **options):
    torch.manual_seed(0)
    model = botformer.create_model(row, 3, 32, zero_gamma=False, **options).eval()
    return Loaded(model, botformer.model_config(model, NAMES))


def detector(kind="mask_rcnn", backbone="botnet_nano", score_threshold=0.0, **options):
    torch.manual_seed(0)
    model = botformer.create_detector(
        kind, backbone, 2, 64, fpn_channels=16, box_channels=32, mask_channels=8, mask_convolutions=1,
        keypoint_channels=8, keypoint_convolutions=1, anchor_scale=3.0, roi_canonical_cells=4.0, max_detections=20,
        score_threshold=score_threshold, backbone_options=options,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(model.box_head.predictor.cls_score.weight, std=0.5)
    names = ["kreis", "ring"]
    if kind == "keypoint_rcnn":
        plain = botformer.model_config(
            botformer.create_detector("faster_rcnn", "botnet_nano", 2, 64), names
        )  # which is all that explaining needs
        return Loaded(model, plain | {"detector": kind})
    return Loaded(model, botformer.model_config(model, names))


def page_of(explanation, folder):
    out = folder / "page.html"
    write_explanation_page(explanation, "ein Bild ä.png", "runs/x", "botformer explain <&>", out)
    return Page(out)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_classifier_of_every_position_kind(position, tmp_path):
    loaded = classifier(position=position)
    explanation = explain(loaded, photograph(tmp_path), ExplainOptions())
    subject = explanation.subject
    assert isinstance(subject, ExplainedClass)
    assert explanation.probabilities is not None
    best = int(explanation.probabilities.argmax())
    assert (subject.name, subject.probability) == (NAMES[best], explanation.probabilities[best])
    assert len(explanation.heads) == 1
    assert (explanation.without is None) == (position == "none")
    page = page_of(explanation, tmp_path)
    assert f"What speaks for {NAMES[best]}" in page.text
    for words, kinds in {
        "The same heads by content alone": {"relative", "absolute", "blog"},
        "The same heads by position alone": {"relative", "absolute", "blog"},
        "they attend by content alone": {"none"},
        "they have no keys": {"position_only"},
        "every head looks everywhere alike": {"position_only"},
        "Position tables": {"relative", "absolute", "blog", "position_only"},
        "each point is an offset": {"relative", "position_only"},
        "each point is a position": {"absolute", "blog"},
        "no position tables: nothing would change": {"none"},
    }.items():
        assert (words in page.text) == (position in kinds), words
    # The image and two maps, a bar for each; the heads by each term, and a bar; the tables.
    assert page.images > 10


def test_a_network_of_several_layers(tmp_path):
    explanation = explain(
        classifier("botnet50_cifar"), photograph(tmp_path), ExplainOptions(class_name="kürbis", pixel_yx=(40, 41))
    )
    assert [len(layer.attention) for layer in explanation.heads] == [4, 4, 4]
    assert explanation.query_words == "the pixel that was asked for"
    np.testing.assert_allclose(explanation.seen.in_image(*explanation.query_yx), (40.5, 41.5))
    page = page_of(explanation, tmp_path)
    assert "c5, block 3 (layer4.2.conv2)" in page.text
    assert "What speaks for kürbis" in page.text


def test_a_network_without_attention_has_grad_cam_alone_and_says_so(tmp_path):
    explanation = explain(classifier("resnet_nano"), photograph(tmp_path), ExplainOptions())
    assert explanation.rollout is None
    assert (explanation.heads, explanation.positions, explanation.without) == ([], [], None)
    page = page_of(explanation, tmp_path)
    assert "This network has no attention layers" in page.text
    assert "Grad-CAM of" in page.text
    assert "attention rollout" not in page.text
    assert "Every head" not in page.text


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize("backbone", ["botnet_nano", "resnet_nano"])
def test_every_kind_of_detector(kind, backbone, tmp_path):
    loaded = detector(kind, backbone)
    explanation = explain(loaded, photograph(tmp_path), ExplainOptions(detection=3))
    subject = explanation.subject
    assert isinstance(subject, ExplainedDetection)
    x1, y1, x2, y2 = subject.box_xyxy
    assert explanation.query_yx == ((y1 + y2) / 2, (x1 + x2) / 2)
    with torch.no_grad():
        (found,) = loaded.model([explanation.seen.pixels / 255])
    np.testing.assert_allclose(subject.box_xyxy, found["boxes"][3], atol=1e-4)
    np.testing.assert_allclose(subject.score, found["scores"][3], atol=1e-6)
    page = page_of(explanation, tmp_path)
    assert f"Detection 3: {subject.name}" in page.text
    assert f"Grad-CAM, enlarged, on {subject.cam.level}" in page.text
    assert ("attention rollout" in page.text) == (backbone == "botnet_nano")


def test_a_class_of_a_detector_is_its_best_detection(tmp_path):
    loaded, image = detector(), photograph(tmp_path)
    scores = loaded.model.box_head.predictor.cls_score
    with torch.no_grad():
        scores.weight[1], scores.bias[1] = scores.weight[2], scores.bias[2] - 1e-3  # a little less than the other one
        (found,) = loaded.model([see(loaded.model_config, image).pixels / 255])
    labels = found["labels"].tolist()
    assert set(labels) == {1, 2}
    for label, name in ((1, "kreis"), (2, "ring")):
        subject = explain(loaded, image, ExplainOptions(class_name=name)).subject
        assert (subject.number, subject.name) == (labels.index(label), name)
        assert abs(subject.score - found["scores"][subject.number]) < 1e-5


def test_a_pixel_of_a_detector_needs_no_detection(tmp_path):
    explanation = explain(detector(score_threshold=0.9999), photograph(tmp_path), ExplainOptions(pixel_yx=(0, 89)))
    assert explanation.subject is None
    assert explanation.rollout is not None
    assert "No detection is explained" in page_of(explanation, tmp_path).text


def test_an_image_on_which_nothing_is_detected(tmp_path):
    loaded, image = detector(score_threshold=0.9999), photograph(tmp_path)
    explanation = explain(loaded, image, ExplainOptions())
    assert explanation.subject is None
    assert "nothing is detected" in explanation.query_words
    assert "What the ring's position is made of" in page_of(explanation, tmp_path).text
    with pytest.raises(InputError, match="there is no detection 0; detected: nothing; use --pixel"):
        explain(loaded, image, ExplainOptions(detection=0))
    with pytest.raises(InputError, match="no ring is detected on the image; detected: nothing"):
        explain(loaded, image, ExplainOptions(class_name="ring"))


def test_a_detector_without_attention_on_which_nothing_is_detected(tmp_path):
    loaded = detector(backbone="resnet_nano", score_threshold=0.9999)
    assert "Grad-CAM alone" in page_of(explain(loaded, photograph(tmp_path), ExplainOptions()), tmp_path).text


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (64, 65), (500, 333)])
@pytest.mark.parametrize("make", [classifier, detector])
def test_images_of_any_size(size, make, tmp_path):
    explanation = explain(make(), photograph(tmp_path, *size), ExplainOptions())
    for layer in explanation.heads:
        np.testing.assert_allclose(layer.attention.sum((1, 2)), 1, atol=1e-5)
    page_of(explanation, tmp_path)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (classifier, ExplainOptions(class_name="kurbis"), "unknown class 'kurbis'; did you mean kürbis"),
        (classifier, ExplainOptions(detection=1), "is a classifier, and --detection is for detectors"),
        (classifier, ExplainOptions(pixel_yx=(70, 1)), "pixel 70 1 .* outside the image, which is 90x70 px"),
        (detector, ExplainOptions(class_name="krei"), "unknown class 'krei'; did you mean kreis"),
        (detector, ExplainOptions(detection=20), "no detection 20; detected: .* --detection counts from 0.* to 19"),
        (detector, ExplainOptions(pixel_yx=(3, 90)), "outside the image"),
    ],
)
def test_what_does_not_exist_is_said(make, options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        explain(make(), photograph(tmp_path), options)


def test_the_program_on_the_page_runs(tmp_path, monkeypatch):
    """It gives the numbers of the page."""
    monkeypatch.chdir(tmp_path)
    for name, loaded in (("c.safetensors", classifier()), ("d.safetensors", detector())):
        botformer.save(*loaded, tmp_path / name)
        image = photograph(tmp_path)
        main([str(image), "--checkpoint", name, "--out", "page.html", "--device", "cpu"])
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        command, program = re.findall(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)
        assert command.startswith("botformer explain ")
        names: dict = {}
        exec(program.replace("&#x27;", "'"), names)
        explanation = explain(loaded, image, ExplainOptions())
        for one, other in zip(names["heads"], explanation.heads, strict=True):
            np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)
        np.testing.assert_allclose(names["flow"].values, explanation.rollout.values, atol=1e-6)
        cam = names["cam"] if name.startswith("c") else names["cam"].cam
        expected = explanation.subject.cam if name.startswith("c") else explanation.subject.cam.cam
        np.testing.assert_allclose(cam.values, expected.values, rtol=1e-3, atol=1e-6)


def test_layers_in_words():
    assert layer_title("layer4.1.conv2") == "c5, block 2 (layer4.1.conv2)"
    assert layer_title("backbone.layer3.inserted_attention.conv2") == (
        "c4, inserted attention (layer3.inserted_attention.conv2)"
    )
    assert layer_title("something") == "something"


def test_classes_are_the_best_of_both():
    from botformer.explain import PositionEffect

    before = np.array([0.5, 0.2, 0.1, 0.09, 0.06, 0.05, 0.0])
    after = np.array([0.0, 0.2, 0.1, 0.09, 0.06, 0.05, 0.5])
    assert ranked_classes(PositionEffect(before, after)) == [0, 1, 2, 3, 4, 6]


def test_the_query_is_where_grad_cam_is_brightest(tmp_path):
    explanation = explain(classifier(), photograph(tmp_path), ExplainOptions())
    cam = explanation.subject.cam
    cell = tuple(int(place // cam.stride_px) for place in explanation.query_yx)
    assert cam.values[cell] == cam.values.max()
    assert see(classifier().model_config, photograph(tmp_path)).image.shape == (32, 32, 3)
