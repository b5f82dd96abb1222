"""ResNet rows against torchvision and timm, with the same weights."""

import pytest
import timm
import torch
import torchvision

from botformer import create_backbone, create_model


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_resnet_rows_have_torchvisions_names_and_shapes(name):
    with torch.device("meta"):
        peer, ours = getattr(torchvision.models, name)().state_dict(), create_model(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in peer.items()}


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_resnet50_row_equals_torchvision_resnet50_to_the_bit(size):
    torch.manual_seed(0)
    peer, ours = torchvision.models.resnet50().eval(), create_model("resnet50").eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    images = torch.randn(2, 3, *size)
    assert torch.equal(ours(images), peer(images))


def test_a_resnet50_backbone_gives_timms_feature_maps():
    torch.manual_seed(0)
    peer = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    ours = create_backbone("resnet50").eval()
    ours.load_state_dict(peer.state_dict(), strict=True)
    images = torch.randn(1, 3, 65, 96)
    for our_map, peer_map in zip(ours(images).values(), peer(images), strict=True):
        torch.testing.assert_close(our_map, peer_map)


@pytest.mark.parametrize("name", ["seresnet50"])
def test_se_resnet50_counts_equal_timms(name):
    with torch.device("meta"):
        peer, ours = timm.create_model(name), create_model("se_resnet50")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
