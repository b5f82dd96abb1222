"""What explaining leaves behind: nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from botformer.backbone.attention_maps import attention_layers
from botformer.explain import (
    attention_heads,
    grad_cam,
    grad_cam_of_detection,
    position_maps,
    rollout,
    without_positions,
)
from botformer.explain.forward_pass import attends, padded

from .tiny_networks import CONVOLUTIONS, NON_LOCAL, classifier, detector, image


def everything(model, pixels):
    """Numbers of all functions."""
    query = (pixels.shape[1] / 2, pixels.shape[2] / 3)
    numbers = [layer.attention for layer in attention_heads(model, pixels, query)]
    numbers.append(rollout(model, pixels, query).values)
    numbers += [layer.logits for layer in position_maps(model, pixels)]
    if hasattr(model, "fc"):
        numbers.append(grad_cam(model, pixels, 1).values)
        numbers.append(without_positions(model, pixels).without_positions)
        return numbers
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    with torch.no_grad():
        (found,) = model.padded_detections(padded(model, pixels), [(pixels.shape[1], pixels.shape[2])])
    for module in was_training:
        module.training = True
    numbers.append(grad_cam_of_detection(model, pixels, found["boxes"][0].tolist(), int(found["labels"][0])).cam.values)
    return numbers


def state(model):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
    )


@pytest.mark.parametrize("make", [classifier, detector])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_as_it_was(make, training):
    model = make().train(training)
    next(model.children()).eval()  # a part that is kept in evaluation mode
    list(model.parameters())[3].requires_grad_(False)
    before = state(model)
    everything(model, image(48, 48))
    after = state(model)
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())
    assert before[1:] == after[1:]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("make", [classifier, detector])
def test_frozen_networks_and_switched_off_gradients_change_nothing(make):
    model, pixels = make(), image(48, 40)
    expected = everything(model, pixels)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for one, other in zip(expected, everything(model, pixels), strict=True):
                np.testing.assert_array_equal(one, other)
    for one, other in zip(expected, everything(model.requires_grad_(False), pixels), strict=True):
        np.testing.assert_array_equal(one, other)


def test_batch_statistics_of_training_are_not_used():
    model, pixels = classifier(), image(48, 40)
    expected = everything(model, pixels)
    for one, other in zip(expected, everything(model.train(), pixels), strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_do_not_see_each_others_images():
    model = classifier().float()
    images = [image(24, 24, seed) for seed in range(8)]
    expected = [everything(model, pixels) for pixels in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            for one, other in zip(expected, pool.map(lambda pixels: everything(model, pixels), images), strict=True):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_hooks_are_gone_after_a_failure():
    model = classifier()

    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        attention_layers(model, fail)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_which_networks_attend():
    assert attends(classifier())
    assert attends(classifier(NON_LOCAL))
    assert not attends(classifier(CONVOLUTIONS))
    assert not attends(detector("resnet_nano"))
