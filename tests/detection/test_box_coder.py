"""The same numbers, to the bit, as torchvision's private coder and sampler."""

import pytest
import torch
from torchvision.models.detection import _utils as private

from botformer.detection.balanced_sampling import balanced_sample
from botformer.detection.box_coder import BoxCoder


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = 500 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 1e-3 + 300 * torch.rand(count, 2, generator=generator) ** 3], 1)


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (0.1, 0.3, 0.7, 3.3)])
def test_boxes_are_encoded_and_decoded_as_by_torchvision(count, weights):
    ours, peer = BoxCoder(weights), private.BoxCoder(weights)
    references, targets = boxes(count, 1), boxes(count, 2)
    offsets = ours.encode(targets, references)
    assert torch.equal(offsets, peer.encode_single(targets, references))
    assert torch.equal(ours.decode(offsets, references), peer.decode_single(offsets, references))
    growth = (targets[:, 2:] - targets[:, :2]) / (references[:, 2:] - references[:, :2])
    within = (growth < 60).all(1)  # beyond, decoding gives a smaller box
    torch.testing.assert_close(ours.decode(offsets, references)[within], targets[within], rtol=1e-3, atol=1e-3)


def test_offsets_of_any_size_stay_finite_as_in_torchvision():
    offsets = 100 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    references = boxes(500, 3)
    decoded = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode(offsets, references)
    assert torch.equal(decoded, private.BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(offsets, references))
    assert decoded.isfinite().all()


def test_gradients_are_torchvisions():
    gradients = []
    for decode in (BoxCoder((10.0, 10.0, 5.0, 5.0)).decode, private.BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single):
        offsets = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        decode(offsets, boxes(50, 4)).square().mean().backward()
        gradients.append(offsets.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("samples", "fraction"), [(256, 0.5), (64, 0.25), (10, 1.0), (10, 0.0)])
@pytest.mark.parametrize("positives", [0, 3, 200])
def test_the_sample_is_the_one_torchvision_draws(samples, fraction, positives):
    labels = torch.zeros(700)
    labels[torch.randperm(700, generator=torch.Generator().manual_seed(positives))[:positives]] = 1
    labels[::5] = -1
    torch.manual_seed(4)
    (positive,), (negative,) = private.BalancedPositiveNegativeSampler(samples, fraction)([labels])
    after = torch.rand(1)
    torch.manual_seed(4)
    ours = balanced_sample(labels > 0, labels == 0, samples, fraction)
    assert torch.equal(ours[0], positive.bool())
    assert torch.equal(ours[1], negative.bool())
    assert torch.equal(torch.rand(1), after)  # as many random numbers were drawn
