"""What `auto` takes on a CUDA device: a table that was measured, or what it takes without one."""

import json

import pytest
import torch

from botformer.attention import backends, cuda_choice
from botformer.attention.cuda_choice import fastest_by_positions


class CudaMap:
    """Of a tensor on a CUDA device, what the choice looks at."""

    is_cuda, device = True, torch.device("cuda", 0)

    def __init__(self, H, W, D=128, dtype=torch.bfloat16, requires_grad=False):
        self.shape, self.dtype, self.requires_grad = torch.Size((1, 4, H, W, D)), dtype, requires_grad
        self.stride = torch.empty(self.shape, device="meta").stride


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A card of 9.0 on which small maps are fastest with "sdpa", and larger ones with "triton" in training."""
    row = dict(dtype="bfloat16", head=128)
    rows = [
        row | {"height": 14, "width": 14, "pass": "both", "backend": "sdpa"},
        row | {"height": 64, "width": 64, "pass": "both", "backend": "triton"},
        row | {"height": 64, "width": 64, "pass": "forward", "backend": "definition"},
    ]
    file = tmp_path / "cuda_backends.json"
    file.write_text(json.dumps({"9.0": {"card": "made up", "rows": rows}}))
    monkeypatch.setattr(cuda_choice, "CHOICE_FILE", file)
    fastest_by_positions.cache_clear()
    monkeypatch.setattr(backends, "_announced", set())
    monkeypatch.setattr(backends, "_compute_capability", lambda index: (9, 0))
    yield
    fastest_by_positions.cache_clear()


def chosen(x, name="auto"):
    return backends.choose(name, x, x).name


def test_a_map_takes_the_backend_of_the_measured_map_that_is_nearest_in_positions(table):
    taken = {
        size: chosen(CudaMap(*size, requires_grad=True)) for size in [(1, 1), (14, 14), (28, 30), (32, 32), (99, 99)]
    }
    assert taken == {(1, 1): "sdpa", (14, 14): "sdpa", (28, 30): "sdpa", (32, 32): "triton", (99, 99): "triton"}


def test_without_gradients_the_forward_pass_decides(table):
    assert chosen(CudaMap(14, 14)) == "definition"
    with torch.no_grad():
        assert chosen(CudaMap(14, 14, requires_grad=True)) == "definition"


def test_float16_follows_bfloat16_and_what_was_not_measured_runs_as_before(table, monkeypatch):
    assert chosen(CudaMap(64, 64, dtype=torch.float16, requires_grad=True)) == "triton"
    assert chosen(CudaMap(64, 64, D=32, requires_grad=True)) == "triton"
    assert chosen(CudaMap(64, 64, dtype=torch.float32, requires_grad=True)) == "sdpa"
    monkeypatch.setattr(backends, "_compute_capability", lambda index: (8, 0))
    assert chosen(CudaMap(64, 64, requires_grad=True)) == "sdpa"


def test_a_restriction_and_a_backend_that_cannot_run_come_before_the_table(table, monkeypatch):
    assert chosen(CudaMap(64, 64, requires_grad=True), "-triton") == "sdpa"
    assert chosen(CudaMap(64, 64, D=256, requires_grad=True)) == "sdpa"  # too wide for the fused kernels
    assert chosen(CudaMap(1024, 2048, requires_grad=True)) == "sdpa"  # offsets of more than 32 bits
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "sdpa")
    assert chosen(CudaMap(64, 64, requires_grad=True)) == "sdpa"


def test_the_table_in_the_package_names_backends():
    for card in json.loads(cuda_choice.CHOICE_FILE.read_text()).values():
        assert {row["backend"] for row in card["rows"]} <= backends.BACKENDS.keys()
