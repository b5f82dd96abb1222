from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from botformer.detection import Settings
from botformer.detection.fpn import FeaturePyramid
from botformer.errors import InputError

CHANNELS = {"c2": 4, "c3": 6, "c4": 8, "c5": 10}
STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


def maps(sizes):
    torch.manual_seed(1)
    return OrderedDict((name, torch.randn(2, CHANNELS[name], *size)) for name, size in sizes.items())


def test_p2_to_p5_are_torchvisions_pyramid_with_the_same_weights():
    pyramid = FeaturePyramid(CHANNELS, STRIDES, Settings(fpn_channels=5)).eval()
    peer = FeaturePyramidNetwork(list(CHANNELS.values()), 5)
    for index, name in enumerate(CHANNELS):
        peer.inner_blocks[index][0].load_state_dict(pyramid.lateral[name].state_dict())
        peer.layer_blocks[index][0].weight = pyramid.smooth[name.replace("c", "p")].weight
    inputs = maps({"c2": (17, 12), "c3": (9, 6), "c4": (5, 3), "c5": (3, 2)})
    ours, expected = pyramid(inputs), list(peer(inputs).values())
    assert list(ours) == ["p2", "p3", "p4", "p5", "p6"]
    for (_, out), want in zip(list(ours.items())[:4], expected, strict=True):
        torch.testing.assert_close(out * (1 + 1e-4) ** 0.5, want)  # a BatchNorm that has seen nothing divides by this
    assert ours["p6"].shape == (2, 5, 2, 1)
    assert pyramid.strides == [4, 8, 16, 32, 64]


def test_maps_of_equal_stride_are_added_cell_by_cell():
    strides = {"c2": 4, "c3": 8, "c4": 16, "c5": 16}
    pyramid = FeaturePyramid(CHANNELS, strides, Settings(fpn_channels=5, levels=("p4", "p5"))).eval()
    inputs = maps({"c4": (4, 3), "c5": (4, 3)})
    total = pyramid.lateral["c4"](inputs["c4"]) + pyramid.lateral["c5"](inputs["c5"])
    torch.testing.assert_close(pyramid(inputs)["p4"], pyramid.norm["p4"](pyramid.smooth["p4"](total)))
    assert pyramid.strides == [16, 16]


@pytest.mark.parametrize(
    ("mode", "kind"), [("batch", nn.BatchNorm2d), ("frozen", FrozenBatchNorm2d), ("sync", nn.SyncBatchNorm)]
)
def test_batchnorm_modes(mode, kind):
    settings = Settings(fpn_channels=5, normalization=mode, norm_momentum=0.25)
    pyramid = FeaturePyramid(CHANNELS, STRIDES, settings)
    assert all(type(norm) is kind for norm in pyramid.norm.values())
    before = {name: value.clone() for name, value in pyramid.state_dict().items() if "running" in name}
    out = pyramid(maps({"c2": (16, 16), "c3": (8, 8), "c4": (4, 4), "c5": (2, 2)}))
    moved = {name for name, value in pyramid.state_dict().items() if name in before and not value.equal(before[name])}
    assert len(before) == 10
    assert moved == (set() if mode == "frozen" else set(before))
    if mode != "frozen":
        torch.testing.assert_close(out["p2"].mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(), ("p2", "p4"), ("p6",), ("p3", "p2"), ("p7",)])
def test_levels_that_are_not_neighbours_are_refused(levels):
    with pytest.raises(InputError, match="p6"):
        Settings(levels=levels)
