"""Independent implementations that must give the same results as ours with the same weights."""

import pytest
import torch
from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention
from timm.layers.bottleneck_attn import BottleneckAttn

from botformer import MHSA2d

SIZES = [(4, 6), (6, 4), (8, 8)]  # lucidrains takes even sizes only


def make_layer(size, scale=1.0):
    torch.manual_seed(0)
    layer = MHSA2d(32, heads=4, size=size)
    torch.nn.init.normal_(layer.qkv.weight, std=0.5)
    layer.rel_height.data *= scale
    layer.rel_width.data *= scale
    return layer.double()  # the same arithmetic in another order: in float64 rounding cannot hide a difference


def assert_same(layer, peer, gradients):
    x = torch.randn(2, 32, *layer.size, dtype=torch.float64)
    torch.testing.assert_close(layer(x), peer(x))
    layer(x).square().sum().backward()
    peer(x).square().sum().backward()
    for ours, peers in gradients:
        torch.testing.assert_close(ours.grad, peers.grad)


@pytest.mark.parametrize("size", [*SIZES, (5, 7), (1, 3)])
def test_timm_with_scaled_positions_is_the_same_layer(size):
    layer = make_layer(size)
    peer = BottleneckAttn(32, feat_size=size, num_heads=4, dim_head=8, scale_pos_embed=True).double()
    tables = {"pos_embed.height_rel": layer.rel_height, "pos_embed.width_rel": layer.rel_width}
    peer.load_state_dict({"qkv.weight": layer.qkv.weight} | tables)
    pairs = [(layer.qkv.weight, peer.qkv.weight), (layer.rel_height, peer.pos_embed.height_rel)]
    assert_same(layer, peer, [*pairs, (layer.rel_width, peer.pos_embed.width_rel)])


def test_timms_default_is_our_layer_with_tables_times_root_d():
    layer = make_layer((4, 6))
    peer = BottleneckAttn(32, feat_size=(4, 6), num_heads=4, dim_head=8).double()
    tables = {"pos_embed.height_rel": layer.rel_height / 8**0.5, "pos_embed.width_rel": layer.rel_width / 8**0.5}
    peer.load_state_dict({"qkv.weight": layer.qkv.weight} | tables)
    x = torch.randn(2, 32, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), peer(x))


@pytest.mark.parametrize("size", SIZES)
def test_lucidrains_is_the_same_layer(size):
    layer = make_layer(size)
    peer = Attention(dim=32, fmap_size=size, heads=4, dim_head=8, rel_pos_emb=True).double()
    tables = {"pos_emb.rel_height": layer.rel_height, "pos_emb.rel_width": layer.rel_width}
    peer.load_state_dict({"to_qkv.weight": layer.qkv.weight} | tables)
    pairs = [(layer.qkv.weight, peer.to_qkv.weight), (layer.rel_height, peer.pos_emb.rel_height)]
    assert_same(layer, peer, [*pairs, (layer.rel_width, peer.pos_emb.rel_width)])
