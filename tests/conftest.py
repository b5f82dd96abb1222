import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# The tests never ask a hub, and report to nobody. Their networks are too small for several threads, which only wait for
# each other on a machine that does something else too.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need more time than others come first: none of several processes is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 70), "red": (210, 50, 40)}


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """An image folder anybody could learn: three classes of noisy colour, 30 + 9 images of 32 px."""
    root = tmp_path_factory.mktemp("colours")
    noise = np.random.default_rng(0)
    for split, count in (("train", 10), ("validation", 3)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + noise.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, which are not part of the project: BOTFORMER_DATA, or ../shared/data."""
    return Path(os.environ.get("BOTFORMER_DATA", Path(__file__).parents[2] / "shared" / "data"))
