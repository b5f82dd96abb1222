import pytest
import torch
from torch.nn.functional import interpolate

from botformer.attention import resize_absolute_table, resize_table
from botformer.errors import InputError


@pytest.mark.parametrize("policy", ["interpolate", "offset"])
@pytest.mark.parametrize("size", [1, 2, 7, 14, 33])
def test_the_built_size_is_the_identity_to_the_bit(policy, size):
    table = torch.randn(2 * size - 1, 8)
    assert torch.equal(resize_table(table, size, policy), table)
    assert torch.equal(resize_absolute_table(table, 2 * size - 1, policy), table)


@pytest.mark.parametrize(("built", "size"), [(14, 7), (14, 20), (7, 33), (5, 1), (1, 4), (14, 15)])
def test_interpolation_equals_torch_with_half_pixel_centres(built, size):
    table = torch.randn(2 * built - 1, 8, dtype=torch.float64)
    expected = interpolate(table.T[None], size=2 * size - 1, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(resize_table(table, size), expected)


@pytest.mark.parametrize("policy", ["interpolate", "offset"])
@pytest.mark.parametrize(("built", "size"), [(14, 7), (7, 14), (3, 10)])
def test_offset_zero_stays_in_the_centre(policy, built, size):
    table = torch.randn(2 * built - 1, 8)
    assert torch.equal(resize_table(table, size, policy)[size - 1], table[built - 1])


def test_offset_keeps_the_entry_of_each_offset_and_the_end_beyond():
    table = torch.arange(-3.0, 4.0)[:, None]  # entry = offset, for a map of 4
    assert resize_table(table, 6, "offset").flatten().tolist() == [-3, -3, -3, -2, -1, 0, 1, 2, 3, 3, 3]
    assert resize_table(table, 2, "offset").flatten().tolist() == [-1, 0, 1]
    assert resize_absolute_table(table, 9, "offset").flatten().tolist() == [-3, -2, -1, 0, 1, 2, 3, 3, 3]


def test_gradients_reach_the_table():
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: resize_table(t, 5), table)
    assert torch.autograd.gradcheck(lambda t: resize_table(t, 5, "offset"), table)


def test_one_graph_serves_every_size():
    class Fit(torch.nn.Module):
        def forward(self, table, image):
            return resize_table(table, image.shape[0])

    size = torch.export.Dim("size", min=1, max=1024)
    program = torch.export.export(Fit(), (torch.randn(27, 4), torch.zeros(20)), dynamic_shapes=(None, {0: size}))
    table = torch.randn(27, 4)
    for n in (2, 14, 31):
        assert torch.equal(program.module()(table, torch.zeros(n)), resize_table(table, n))


def test_an_unknown_policy_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean interpolate"):
        resize_table(torch.zeros(3, 1), 2, "interpolat")
