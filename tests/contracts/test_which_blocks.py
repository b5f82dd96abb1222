"""docs/which_blocks.md: the table is what the networks do as they run, and the names are those that loading leaves."""

import ast
import re
from pathlib import Path

import pytest
import torch
import torchvision

import botformer
from botformer.backbone.blocks import Bottleneck, NonLocal, SqueezeExcite
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import ROWS
from tests.contracts.test_readme import python_blocks

PAGE = Path(__file__).parents[2] / "docs/which_blocks.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = {
    line[0]: line[1:]
    for line in ([cell.strip() for cell in row.strip("|").split("|")] for row in TEXT.splitlines())
    if line[0] in ROWS
}


def test_there_is_a_line_per_row():
    assert list(LINES) == botformer.list_models() == list(ROWS)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.c5 == "attention" or row.inserted])
def test_the_table_is_what_the_network_does(name):
    """Maps by hooks on the running network; pools by the size of what comes out."""
    size, blocks, attention, maps, pools, squeezed = LINES[name]
    seen: dict[str, tuple[int, bool]] = {}
    with torch.device("meta"):
        network = botformer.create_backbone(name).eval()
        for place, module in network.named_modules():
            if isinstance(module, MHSA2d | NonLocal):
                module.register_forward_hook(
                    lambda _, inputs, output, place=place: seen.update(
                        {place: (inputs[0].shape[-1], output.shape[-1] < inputs[0].shape[-1])}
                    )
                )
        network(torch.empty(1, 3, int(size), int(size)))
    assert list(dict.fromkeys(f"{side}x{side}" for side, _ in seen.values())) == maps.split(", ")
    assert [place.removesuffix(".conv2") for place, (_, pooled) in seen.items() if pooled] == [pools] * bool(pools)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    own = [sum(not key.startswith("inserted") for key in dict(stage.named_children())) for stage in stages]
    assert ",".join(map(str, own)) == blocks
    if attention.endswith("of c5"):
        number = re.sub(r"\D", "", attention.removesuffix("of c5")) or "1"
        assert list(seen) == [f"layer4.{block}.conv2" for block in range(int(number))]
        assert int(number) == own[3]
    else:
        assert [place.removesuffix(".conv2") for place in seen] == attention.split(", ")
    for block in (module for module in network.modules() if isinstance(module, Bottleneck)):
        attends = isinstance(block.conv2, MHSA2d)
        assert isinstance(block.se, SqueezeExcite) == (squeezed == "convolution blocks" and not attends)


def test_networks_without_attention_say_none():
    for name, row in ROWS.items():
        assert (LINES[name][2] == "none") == (row.c5 == "convolution" and not row.inserted)


def test_the_python_shows_the_layers_and_what_loading_leaves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    show, load = python_blocks(PAGE)
    names: dict = {}
    exec(show, names)
    printed = capsys.readouterr().out.strip()
    assert len(show.strip().splitlines()) == 3
    assert f"    {printed}\n" in TEXT
    assert ast.literal_eval(printed)[0] == ("layer4.0.conv2", (14, 14), True)
    torch.save(torchvision.models.resnet50().state_dict(), "resnet50.pth")
    exec(load, names)
    match, state = names["match"], names["model"].state_dict()
    rows = re.findall(r"^\| (?:`(layer4\S+)` )?\| `(.+)` \| \((.+)\) \|$", TEXT, re.MULTILINE)
    left = {name: shape for _, new, shape in rows for name in new.split("`, `")}
    assert [old for old, *_ in rows if old] == match.unused
    assert sorted(left) == sorted(match.missing)
    for name, shape in left.items():
        assert ", ".join(map(str, state[name].shape)) == shape
