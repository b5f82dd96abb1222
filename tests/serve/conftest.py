import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from botformer.data.synthetic.nuclei_crops import read_nuclei

from .running_server import CLASSIFIER, DETECTOR, KEYPOINTS, Server, started


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """With one network of each kind."""
    sources = {"photos": CLASSIFIER, "scenes": DETECTOR, "poses": KEYPOINTS, "nuclei": "nuclei"}
    with started(sources) as each:
        yield each


@pytest.fixture(scope="package")
def cells() -> bytes:
    """A part of the micrograph, wider than high."""
    return png(read_nuclei()[0][:150, :200])


@pytest.fixture(scope="package")
def photo() -> bytes:
    rng = np.random.default_rng(0)
    return png(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
