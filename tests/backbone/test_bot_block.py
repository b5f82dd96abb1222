"""BoTBlock as a layer of other networks."""

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.utils.checkpoint import checkpoint

import botformer
from botformer import BoTBlock
from botformer.errors import InputError
from botformer.recipes.model_options import ModelOptions


def randomized(block):
    torch.manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return block


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_a_block_of_a_botnet(stride):
    """The first block of c5: same names, same outputs, and at another size, too."""
    network = botformer.create_backbone("botnet50_half" if stride == 2 else "botnet_s1_50_half", 96)
    theirs = randomized(network.layer4[0]).eval()
    block = BoTBlock(512, 1024, 4, 6, stride).eval()
    block.load_state_dict(theirs.state_dict())
    for size in ((6, 6), (5, 9)):
        x = torch.randn(2, 512, *size)
        assert torch.equal(block(x), theirs(x))
    assert network.options == ModelOptions()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((3, 8, 2), {}),
        ((16, 16), {}),
        ((1, 1, 1), {"expansion": 1}),
        ((7, 5, 5, None, 2), {"expansion": 1, "position": "absolute"}),
        ((12, 24, 3, (20, 4), 2), {"expansion": 2, "tables": "offset", "activation": "silu"}),
        ((8, 16, 4, 9, 1), {"position": "position_only", "drop_path": 0.5}),
        ((8, 16), {"position": "none"}),
    ],
)
def test_any_channels_and_any_size(arguments, options):
    block = randomized(BoTBlock(*arguments, **options))
    stride = arguments[4] if len(arguments) > 4 else 1
    for size in ((1, 1), (1, 7), (13, 6), (20, 33)):
        out = block(torch.randn(2, arguments[0], *size))
        assert out.shape == (2, arguments[1], *(-(-side // stride) for side in size))
        out.square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_it_starts_as_its_shortcut():
    x = torch.randn(2, 16, 5, 6)
    assert torch.equal(BoTBlock(16, 16)(x), x.relu())


def test_padding_gets_no_attention():
    block = randomized(BoTBlock(8, 16)).eval()
    x = torch.randn(1, 8, 6, 7)
    padding = torch.zeros(1, 8, 9, dtype=torch.bool)
    padding[:, 6:], padding[:, :, 7:] = True, True
    wide = nn.functional.pad(x, (0, 2, 0, 2))
    once, twice = block(wide, padding), block(wide + 9 * padding, padding)
    torch.testing.assert_close(once[:, :, :6, :7], twice[:, :, :6, :7])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((3, 10), "multiple of 16"),
        ((3, 15, 5, None, 1), "multiple of 20"),
        ((0, 16), "in_channels must be"),
        ((3, 16.0), "out_channels must be"),
        ((3, 16, 0), "heads must be"),
        ((3, 16, 4, (1, 2, 3)), "size must be at least 1 cell"),
        ((3, 16, 4, None, 3), "stride must be 1 or 2"),
    ],
)
def test_what_is_wrong_is_said(arguments, says):
    with pytest.raises(InputError, match=says):
        BoTBlock(*arguments)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="did you mean silu"):
        BoTBlock(3, 16, activation="silo")
    with pytest.raises(InputError, match="did you mean relative"):
        BoTBlock(3, 16, position="relativ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_close(dtype):
    block = randomized(BoTBlock(32, 64)).eval()
    x = torch.randn(2, 32, 9, 12)
    with torch.no_grad():
        exact = block(x)
        with torch.autocast("cpu", dtype):
            out = block(x)
        half = block.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    for result in (out, half):  # a few roundings of each of five layers
        assert (result.float() - exact).norm() < 8 * torch.finfo(dtype).eps * exact.norm()


def test_graphs_and_checkpoints_give_the_same():
    block = randomized(BoTBlock(8, 16, 4, None, 2)).eval()
    x = torch.randn(2, 8, 12, 9)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: Dim("batch"), 2: Dim.AUTO, 3: Dim.AUTO}, None)[:1])
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="eager", fullgraph=True, dynamic=True)
    scripted, traced = torch.jit.script(block), torch.jit.trace(block, x)
    for size in ((12, 9), (17, 20)):
        x = torch.randn(3, 8, *size)
        expected = block(x)
        for run in (program.module(), compiled, scripted, traced, lambda x: checkpoint(block, x, use_reentrant=False)):
            torch.testing.assert_close(run(x), expected, rtol=1e-4, atol=1e-5)


def test_code_that_parses_lists_of_layers_builds_it():
    """As YOLO's parser does: the channels first, then what the list says."""
    rows, channels, layers = [[16, 3], [32, 2, 20]], 8, []
    for out_channels, *arguments in rows:
        layers.append(BoTBlock(channels, out_channels, *(arguments if len(arguments) > 1 else [])))
        channels = out_channels
    assert nn.Sequential(*layers)(torch.randn(1, 8, 11, 10)).shape == (1, 32, 11, 10)
