from pathlib import Path

import pytest
import torch
from accelerate import Accelerator as AccelerateAccelerator
from accelerate import PartialState

from botformer.errors import InputError
from botformer.training import loop
from botformer.training.distributed import Accelerator, open_accelerator
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_device_that_is_not_there_is_an_error_and_not_a_fallback() -> None:
    with pytest.raises(InputError, match="device cuda is not there"):
        open_accelerator(toy_recipe(run={"device": "cuda"}).run)


def test_each_run_of_a_process_has_its_own_precision() -> None:
    layer, images = torch.nn.Linear(4, 2), torch.ones(1, 4)
    runs = [
        open_accelerator(toy_recipe(run={"precision": precision}).run) for precision in ("float32", "bf16", "float32")
    ]
    found = []
    for run in runs:
        with run.autocast():
            found.append(layer(images).dtype)
    assert found == [torch.float32, torch.bfloat16, torch.float32]
    assert layer(images).dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
def test_only_cuda_copies_while_the_program_goes_on(device: str) -> None:
    """On Apple's GPUs nothing waits for such a copy: losses, and what processes ask of each other, would be garbage."""
    assert Accelerator(torch.device(device), "float32", PartialState(cpu=True)).non_blocking == (device == "cuda")
    source = Path(loop.__file__).parents[1]
    assert not [path for path in source.rglob("*.py") if "non_blocking=True" in path.read_text(encoding="utf-8")]


def test_field_out_of_range_is_named_before_anything_starts() -> None:
    with pytest.raises(InputError, match=r"run\.threads is -1"):
        open_accelerator(toy_recipe(run={"threads": -1}).run)


def test_a_run_leaves_accelerate_s_own_state_alone_and_does_not_follow_it() -> None:
    bystander = AccelerateAccelerator(mixed_precision="bf16", cpu=True)
    run = open_accelerator(toy_recipe().run)
    assert bystander.mixed_precision == "bf16"
    with run.autocast():
        assert torch.nn.Linear(4, 2)(torch.ones(1, 4)).dtype == torch.float32


def test_fit_takes_the_accelerator_that_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(run={"max_steps": 1})
    accelerator = open_accelerator(recipe.run)

    def opened_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(loop, "open_accelerator", opened_again)
    monkeypatch.setattr("botformer.training.run_log.FileRunLog.draw", lambda self: None)
    loop.fit(toy_task(), ToyBatches(), toy_evaluation(), recipe, tmp_path, accelerator=accelerator)
