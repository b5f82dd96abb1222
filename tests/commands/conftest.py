"""A detector that was never trained, and data on which it finds something."""

import shutil

import pytest

from .detection_scenes import save_detector, write_scenes


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_detector(tmp_path_factory.mktemp("network") / "random.safetensors")


@pytest.fixture(scope="module")
def data(network, tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, network)
    return root


@pytest.fixture
def copy(data, tmp_path):
    """The same data, to be changed."""
    return shutil.copytree(data, tmp_path / "data")
