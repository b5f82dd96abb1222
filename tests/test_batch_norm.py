"""One BatchNorm for backbone, pyramid and heads."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from botformer.batch_norm import make_norm
from botformer.recipes.detector_settings import Settings
from botformer.recipes.model_options import ModelOptions

MAPS = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [ModelOptions(), Settings(norm_epsilon=1e-5, norm_momentum=0.1)])
def test_the_default_is_pytorchs(options):
    ours, peer = make_norm(3, options), nn.BatchNorm2d(3)
    assert torch.equal(ours(MAPS), peer(MAPS))
    assert all(torch.equal(value, peer.state_dict()[name]) for name, value in ours.state_dict().items())


def test_epsilon_momentum_and_scale_are_those_given():
    norm = make_norm(3, Settings(norm_epsilon=0.5, norm_momentum=0.25), gamma=2.0)
    mean, variance = MAPS.mean((0, 2, 3)), MAPS.var((0, 2, 3), correction=0)
    expected = 2 * (MAPS - mean[:, None, None]) / (variance[:, None, None] + 0.5).sqrt()
    torch.testing.assert_close(norm(MAPS), expected)
    torch.testing.assert_close(norm.running_mean, 0.25 * mean)


@pytest.mark.parametrize(
    ("normalization", "kind"), [("batch", nn.BatchNorm2d), ("sync", nn.SyncBatchNorm), ("frozen", FrozenBatchNorm2d)]
)
def test_the_mode_chooses_the_module_and_draws_no_random_numbers(normalization, kind):
    before = torch.get_rng_state()
    norm = make_norm(3, ModelOptions(normalization=normalization, norm_epsilon=1e-3), gamma=0.0)
    assert type(norm) is kind
    assert norm.eps == 1e-3
    assert norm.weight.eq(normalization == "frozen").all()  # what is frozen at 0 would hold back what is before it
    assert torch.equal(torch.get_rng_state(), before)
    assert bool(list(norm.parameters())) == (normalization != "frozen")
