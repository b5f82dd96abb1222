"""Answers that depend on the batch are found, whichever batch and whichever of its calls is wrong."""

import numpy as np
import pytest

from botformer.deploy.check_batches import check_batches
from botformer.deploy.runtimes import Runtime
from botformer.errors import InputError

IMAGES = [{"pixels": np.random.default_rng(seed).random((1, 3, 4, 4), np.float32)} for seed in range(3)]


def network(change, batch="batch"):
    """Logits from the pixels, to which `change(batch size, number of the call with it)` is added."""
    weights, calls = np.random.default_rng(9).random((48, 7), np.float32), {}

    def run(inputs):
        pixels = inputs["pixels"]
        calls[len(pixels)] = calls.get(len(pixels), 0) + 1
        logits = pixels.reshape(len(pixels), -1) @ weights
        logits[-1, 0] += change(len(pixels), calls[len(pixels)])  # one image of the batch is enough
        return {"logits": logits}

    inputs = [{"name": "pixels", "shape": [batch, 3, 4, 4], "dtype": "float32"}]
    outputs = [{"name": "logits", "shape": [batch, 7], "dtype": "float32"}]
    return Runtime({"inputs": inputs, "outputs": outputs}, run)


def test_rounding_is_no_dependence_on_the_batch():
    differences = check_batches(network(lambda count, call: 1e-3 * count / 64), IMAGES)
    assert list(differences) == ["64", "5", "3", "2", "1"]
    assert 0 < max(differences.values()) < 1e-3


@pytest.mark.parametrize("wrong", [(64, 1), (64, 2), (3, 1), (3, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("error", [9.0, float("nan"), float("inf")])
def test_one_wrong_graph_is_named(wrong, error):
    with pytest.raises(InputError, match=f"other logits in another batch, by \\S+ in a batch of {wrong[0]} of their"):
        check_batches(network(lambda *now: error if now == wrong else 0), IMAGES)


def test_a_network_of_fixed_batches_has_one_graph():
    assert check_batches(network(lambda *_: 1 / 0, batch=2), IMAGES) == {}
