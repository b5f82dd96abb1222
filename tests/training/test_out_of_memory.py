"""What a run says that finds no memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import botformer
from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Images, Model, Run
from botformer.training.checkpoint import checkpoint_folder
from botformer.training.loop import fit
from botformer.training.out_of_memory import evaluation_memory_advice, memory_advice, step_explained
from botformer.training.resume import MAY_DIFFER
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task

RECIPE = ClassificationRecipe(images=Images(size=224), run=Run(batch_size=64, accumulation=2, precision="float32"))


def test_a_run_out_of_memory_names_what_helps(tmp_path: Path) -> None:
    task = toy_task()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    task.model.register_forward_pre_hook(fail)
    with pytest.raises(InputError, match=r"with 8 images at a time .*Tried to allocate 20.00 GiB.*\) ?") as raised:
        fit(task, ToyBatches(), toy_evaluation(), toy_recipe(), tmp_path)
    assert "run.accumulation 2, now 1: 50%, 4 images at a time" in str(raised.value)


def test_advice_is_by_how_much_and_about_what_the_run_does_not_use_yet() -> None:
    advice = "\n".join(memory_advice(RECIPE, processes=4))
    for said in (
        "model.gradient_checkpointing true",
        "run.accumulation 4, now 2: 50%, 4 images at a time",
        "8 processes (torchrun), now 4",
        "run.precision bf16, now float32: half",
        "images.size 160, now 224: 51%",
        "run.batch_size 32, now 64",
    ):
        assert said in advice
    assert {line.split()[0] for line in advice.splitlines() if "another --out" in line} == {
        line.split()[0] for line in advice.splitlines() if line.split()[0] not in {*MAY_DIFFER, "8"}
    }
    least = replace(
        RECIPE,
        model=Model(gradient_checkpointing=True),
        images=Images(size=32),
        run=replace(RECIPE.run, batch_size=2, precision="bf16"),
    )
    assert memory_advice(least, processes=1) == [
        "nothing more: every option is used; take a smaller network, or a device with more memory"
    ]


def test_an_evaluation_out_of_memory_leaves_its_checkpoint_and_says_what_helps(tmp_path: Path) -> None:
    task = toy_task()

    def fail(module: torch.nn.Module, *_: object) -> None:
        if not module.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    task.model.register_forward_pre_hook(fail)
    recipe = toy_recipe(run={"max_steps": 4})
    with pytest.raises(InputError, match=r"evaluation of 8 images .*\n.*run.accumulation 2, now 1: 50%"):
        fit(task, ToyBatches(), toy_evaluation(), recipe, tmp_path)
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert folder.name == "step-00000004"


def test_advice_about_evaluations() -> None:
    assert evaluation_memory_advice(replace(RECIPE, run=replace(RECIPE.run, batch_size=4096, accumulation=1))) == [
        "run.accumulation 32, now 1: 50%, 128 images at a time; training steps are divided likewise, where BatchNorm "
        "sees fewer images at a time"
    ]
    detector = DetectionRecipe(images=DetectionImages(size=512, test_size=1024), run=Run(batch_size=1))
    (said,) = evaluation_memory_advice(detector)
    assert said.startswith("images.test_size 704, now 1024: 47%")


def test_memory_of_the_host_counts_and_other_errors_pass() -> None:
    with pytest.raises(InputError, match="run.accumulation"), step_explained(RECIPE, 1):
        torch.empty(2**60, dtype=torch.uint8)  # the allocator's own words
    with pytest.raises(InputError, match="MemoryError"), step_explained(RECIPE, 1):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes"), step_explained(RECIPE, 1):
        raise RuntimeError("shapes")


def kept_bytes(gradient_checkpointing: bool) -> int:
    """What botnet50 keeps of an image for the backward pass: what autograd saves, or the inputs of the blocks."""
    torch.manual_seed(0)
    model = botformer.create_model("botnet50", 10, 96, gradient_checkpointing=gradient_checkpointing)
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    if gradient_checkpointing:
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:
                block.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]), None)[1])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(2, 3, 96, 96))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_gradient_checkpointing_keeps_about_a_third() -> None:
    assert kept_bytes(True) / kept_bytes(False) == pytest.approx(1 / 3, abs=0.07)
