import pytest
import torch

from botformer.attention import products
from botformer.attention.products import product

ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def rows(*shape):
    return torch.randn(*shape)


def columns(*shape):
    return torch.randn(*shape[:-2], shape[-1], shape[-2]).mT


def gaps(*shape):
    """Row by row, as a view of a wider tensor."""
    return torch.randn(*shape[:-1], 3 * shape[-1])[..., : shape[-1]]


@pytest.mark.parametrize("worth", [0, 2**62], ids=["one call per matrix", "one call"])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("layout_b", [rows, columns, gaps])
@pytest.mark.parametrize("layout_a", [rows, columns, gaps])
def test_a_product_is_as_accurate_as_pytorchs_own(layout_a, layout_b, heads, worth, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(products, "CALL_PER_MATRIX_FROM", worth)
    a, b = layout_a(heads, 70, 40), layout_b(heads, 40, 90)
    exact = a.double() @ b.double()
    ours, usual = (product(a, b) - exact).abs().max(), (a @ b - exact).abs().max()
    assert ours <= 2 * usual + 1e-7


@pytest.mark.parametrize("layout_b", [rows, columns, gaps])
def test_a_product_has_the_layout_of_its_first_factor(layout_b):
    b = layout_b(2, 5, 6)
    assert product(rows(2, 4, 5), b).is_contiguous()
    assert product(columns(2, 4, 5), b).mT.is_contiguous()


@pytest.mark.skipif(not ONEDNN, reason="measured on x86-64 alone")
def test_only_large_float32_products_go_to_onednn_where_it_is_available(monkeypatch):
    def calls(a, b):
        with torch.profiler.profile() as seen:
            product(a, b)
        return sum(event.name == "mkldnn::_linear_pointwise" for event in seen.events() or ())

    large = rows(2, 256, 256)
    assert calls(large, large) == 2
    assert calls(large[:1], large[:1]) == 1
    assert calls(large[:, :9], large) == 0
    assert calls(large.double(), large.double()) == 0
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert calls(large, large) == 0
