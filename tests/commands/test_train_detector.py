"""Training a detector from the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file

from botformer import cli
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.training.checkpoint import checkpoint_folder

pytest.importorskip("faster_coco_eval")

SMALL = ["--images.size=64", "--images.test-size=128", "--run.batch-size=4", "--run.evaluate-every=100"]


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuclei") / "data"
    write_nuclei(folder)
    return folder


def train(nuclei, out, *more):
    assert cli.main(["train", "nuclei_mini", "--data", str(nuclei), "--out", str(out), *SMALL, *more]) == 0
    folder = checkpoint_folder(out)
    assert folder is not None
    return {name: load_file(folder / f"{name}.safetensors") for name in ("model", "optimizer")}


def test_a_run_that_was_stopped_ends_with_the_same_bits(nuclei, tmp_path):
    """Whatever the number of processes that read images."""
    whole = train(nuclei, tmp_path / "whole", "--run.max-steps=5", "--run.workers=1")
    train(nuclei, tmp_path / "halves", "--run.max-steps=2", "--run.workers=0")
    joined = train(nuclei, tmp_path / "halves", "--run.max-steps=5", "--run.workers=0")
    for part, tensors in whole.items():
        assert tensors.keys() == joined[part].keys()
        assert all(torch.equal(tensor, joined[part][name]) for name, tensor in tensors.items()), part


def test_the_learning_rate_follows_the_batch_and_the_log_says_so(nuclei, tmp_path, capsys):
    options = ["--run.max-steps=1", "--run.workers=0", "--optimizer.reference-batch=8", "--schedule.warmup-epochs=0"]
    train(nuclei, tmp_path / "run", *options)
    said = " ".join(capsys.readouterr().err.split())
    assert "learning rate 0.001: 0.002 is for a batch of 8, this one has 4" in said
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["lr"] == pytest.approx(0.001)


def test_a_run_that_needs_less_memory_from_now_on_is_continued(nuclei, tmp_path):
    """Recomputed blocks are no other network, although the model config has the option."""
    train(nuclei, tmp_path / "run", "--run.max-steps=1", "--run.workers=0")
    train(nuclei, tmp_path / "run", "--run.max-steps=2", "--run.workers=0", "--model.gradient-checkpointing")
    assert checkpoint_folder(tmp_path / "run").name == "step-00000002"
