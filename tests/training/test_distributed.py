import pytest
import torch

from botformer.errors import InputError
from botformer.training.distributed import open_run
from tests.training.toy import toy_recipe


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_device_that_is_not_there_is_an_error_and_not_a_fallback() -> None:
    with pytest.raises(InputError, match=r"run\.device cuda"):
        open_run(toy_recipe(run={"device": "cuda"}))


def test_each_run_of_a_process_has_its_own_precision() -> None:
    layer, images = torch.nn.Linear(4, 2), torch.ones(1, 4)
    runs = [open_run(toy_recipe(run={"precision": precision})) for precision in ("float32", "bf16", "float32")]
    found = []
    for run in runs:
        with run.autocast():
            found.append(layer(images).dtype)
    assert found == [torch.float32, torch.bfloat16, torch.float32]
    assert layer(images).dtype == torch.float32


def test_field_out_of_range_is_named_before_anything_starts() -> None:
    with pytest.raises(InputError, match=r"run\.threads is -1"):
        open_run(toy_recipe(run={"threads": -1}))
