import pytest
import torch
import torch.nn.functional as F

from botformer.benchmark.memory import peak_bytes

CPU = torch.device("cpu")
N = 2**16  # float32 numbers


def test_the_peak_is_what_is_allocated_at_one_time_and_not_the_sum():
    def call():
        for _ in range(3):
            a = torch.empty(N)
            b = torch.empty(2 * N)
            del a, b

    assert peak_bytes(call, CPU) == 4 * 3 * N


def test_what_was_allocated_before_does_not_count():
    before = torch.ones(N)
    assert peak_bytes(lambda: before.mul_(2), CPU) < 1000


def test_scratch_inside_an_operator_counts():
    q = torch.randn(1, 1, 512, 64)
    weights = 4 * 512 * 512
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert peak_bytes(lambda: F.scaled_dot_product_attention(q, q, q), CPU) >= weights


def test_the_backward_pass_counts():
    x = torch.ones(N, requires_grad=True)
    assert peak_bytes(lambda: torch.autograd.grad(x.exp().exp().sum(), x), CPU) >= 4 * 3 * N


def test_an_error_in_the_call_ends_the_recording():
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0, CPU)
    assert peak_bytes(lambda: torch.empty(N), CPU) == 4 * N
