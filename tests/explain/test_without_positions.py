import numpy as np
import pytest
import torch

from botformer.errors import InputError
from botformer.explain import without_positions
from botformer.explain.without_positions import has_positions

from .tiny_networks import CONVOLUTIONS, HALVED, NON_LOCAL, classifier, image


def said(model, pixels):
    with torch.no_grad():
        return model(model.preprocess(pixels[None].double() / 255))[0].softmax(0).numpy()


@pytest.mark.parametrize(("position", "same_as"), [("relative", "none"), ("absolute", "none"), ("blog", None)])
def test_content_is_left(position, same_as):
    """What a network of content alone with the same weights says."""
    model, pixels = classifier(position=position), image(48, 48)
    found = without_positions(model, pixels.double() / 255)
    np.testing.assert_allclose(found.with_positions, said(model, pixels), atol=1e-12)
    assert np.abs(found.with_positions - found.without_positions).max() > 1e-6
    np.testing.assert_allclose(found.without_positions.sum(), 1, atol=1e-12)
    if same_as:
        other = classifier(position=same_as)
        other.load_state_dict(model.state_dict(), strict=False)
        np.testing.assert_allclose(found.without_positions, said(other, pixels), atol=1e-12)


def test_positions_alone_become_the_mean_of_the_values():
    model, pixels = classifier(position="position_only"), image(48, 48)
    found = without_positions(model, pixels.double() / 255)
    for block in model.layer4:
        layer = block.conv2
        layer.forward = lambda x, _=None, layer=layer: (
            layer.qkv(x)[:, x.shape[1] :]
            .mean((2, 3), keepdim=True)
            .expand(-1, -1, *((side + 1) // 2 if layer.pool else side for side in x.shape[2:]))
        )
    np.testing.assert_allclose(found.without_positions, said(model, pixels), atol=1e-12)


@pytest.mark.parametrize("model", [classifier(position="none"), classifier(NON_LOCAL), classifier(CONVOLUTIONS)])
def test_a_network_without_positions_says_so(model):
    assert not has_positions(model)
    with pytest.raises(InputError, match="no position tables: nothing would change"):
        without_positions(model, image(48, 48))


def test_a_network_with_positions_has_some():
    assert has_positions(classifier(HALVED))
