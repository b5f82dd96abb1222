"""An exported network held against itself: an image gets the same answer in whatever batch it comes.

Its accuracy is measured image by image. That it holds for other batches is no matter of course: a runtime makes other
graphs for them, and one of OpenVINO's was wrong (see `to_openvino`), where every batch by itself looked like any other.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from botformer.deploy.runtimes import Runtime
from botformer.errors import InputError

IMAGES = 8
"""So many different ones are enough; larger batches repeat them."""
_BATCHES = (64, 5, 3, 2, 1)
_LIMIT = 0.05
"""Of the norm of an image's logits. Rounding in another order moves some by a step of int8, which makes 0.0005."""


def check_batches(runtime: Runtime, images: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Classify the images in several batches; the largest difference from the first one, by the size of the batch.

    Args:
        images: a call's inputs each, of one image, all of one size.

    Returns:
        Nothing for a network of fixed batches, which has one graph for everything.

    Raises:
        InputError: answers that depend on the batch, with the figures.
    """
    if isinstance(runtime.inputs[0]["shape"][0], int):
        return {}
    name = runtime.inputs[0]["name"]
    batch = np.concatenate([images[number % len(images)][name] for number in range(_BATCHES[0])])
    expected, differences = None, dict.fromkeys(map(str, _BATCHES), 0.0)
    for count in _BATCHES:
        for _ in range(2):  # OpenVINO has a graph for any size, and one of its own for a size that comes again
            found = runtime(**{name: batch[:count]})["logits"]
            expected = found if expected is None else expected
            with np.errstate(invalid="ignore"):  # what is not finite is an error below
                errors = np.linalg.norm(found - expected[:count], axis=1) / np.linalg.norm(expected[:count], axis=1)
            differences[str(count)] = float(np.maximum(differences[str(count)], errors.max()))
    wrong = {count: value for count, value in differences.items() if not value <= _LIMIT}
    if wrong:
        figures = ", ".join(f"{value:.3g} in a batch of {count}" for count, value in wrong.items())
        raise InputError(
            f"the same images get other logits in another batch, by {figures} of their norm (limit {_LIMIT}): the "
            "runtime's graph for any batch is wrong. Nothing was written; fix the batch by --batch, or take another "
            "format or precision"
        )
    return differences
