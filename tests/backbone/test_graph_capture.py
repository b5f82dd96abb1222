"""Tracing and exporting whole networks: the graph gives what the network gives, at sizes it was not captured with."""

import pytest
import torch
from torch.export import Dim
from torchvision.models.feature_extraction import create_feature_extractor

import botformer
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import ROWS
from botformer.errors import InputError

# Every kind of block, stem and last stage that a row can ask for, in small networks.
SMALL = ["resnet_nano", "botnet_nano", "botnet_mini", "resnet50_nl", "resnet50_bot_c4c5"]
POSITIONS = ["relative", "absolute", "none", "position_only", "blog"]


def network(make, name, **options):
    torch.manual_seed(0)
    model = make(name, image_size=64, zero_gamma=False, **options)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


# A deeper row is one of these with more blocks of the same kind.
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if sum(row.blocks) <= 16])
def test_fx_traces_every_classifier_and_backbone(name):
    for make in (botformer.create_model, botformer.create_backbone):
        with torch.device("meta"):
            graph = torch.fx.symbolic_trace(make(name))
        assert any(node.target == "conv1" for node in graph.graph.nodes)


@pytest.mark.parametrize("name", SMALL)
def test_fx_graphs_give_the_same_at_any_size(name):
    classifier = network(botformer.create_model, name)
    backbone = network(botformer.create_backbone, name)
    logits, maps = torch.fx.symbolic_trace(classifier), torch.fx.symbolic_trace(backbone)
    features = create_feature_extractor(classifier, {"layer3": "c4", "layer4": "c5"})
    for size in ((64, 64), (37, 71)):
        images = torch.randn(2, 3, *size)
        padding = torch.zeros(2, *size, dtype=torch.bool)
        padding[0, :, 40:] = True
        with torch.no_grad():
            assert torch.equal(logits(images), classifier(images))
            expected = classifier.stages(images)
            assert all(torch.equal(found, expected[at]) for at, found in features(images).items())
            for arguments in ((images,), (images, padding)):
                expected = backbone(*arguments)
                assert all(torch.equal(found, expected[at]) for at, found in maps(*arguments).items())


@pytest.mark.parametrize("position", POSITIONS)
def test_fx_traces_every_kind_of_layer(position):
    torch.manual_seed(0)
    layer = MHSA2d(8, 2, (17, 17), position, pool=True)
    graph = torch.fx.symbolic_trace(layer)
    for size in ((17, 17), (18, 5)):
        x = torch.randn(2, 8, *size)
        assert torch.equal(graph(x), layer(x))


@pytest.mark.parametrize("position", POSITIONS)
def test_a_traced_network_gives_the_same_at_other_sizes(position):
    """`torch.jit.trace` is also what `torch.onnx.export(dynamo=False)` converts."""
    model = network(botformer.create_backbone, "botnet_nano", position=position)
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(2, 3, 136, 152), strict=False)
        assert "botformer::" not in str(traced.inlined_graph)  # no operator that exists only where botformer does
        for batch, *size in ((2, 136, 152), (1, 64, 64), (3, 37, 171), (1, 300, 20)):
            images = torch.randn(batch, 3, *size)
            torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["botnet_mini", "resnet50_nl"])
def test_a_traced_classifier_gives_the_same_at_other_sizes(name):
    model = network(botformer.create_model, name, num_classes=5)
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(1, 3, 136, 152))
        for size in ((48, 64), (37, 171)):
            images = torch.randn(2, 3, *size)
            torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [botformer.create_model, botformer.create_backbone])
def test_named_dimensions_export_at_any_size(make):
    """Down to the size that torchvision's ResNets export with: no map is one cell high or wide."""
    model = network(make, "botnet_nano")
    arguments = (torch.randn(2, 3, 72, 88),) if make is botformer.create_model else (torch.randn(2, 3, 72, 88), None)
    named = {0: Dim("batch"), 2: Dim("height", min=33), 3: Dim("width", min=33)}
    program = torch.export.export(model, arguments, dynamic_shapes=(named, None)[: len(arguments)])
    with torch.no_grad():
        for size in ((72, 88), (33, 64), (101, 47)):
            images = (torch.randn(3, 3, *size), *arguments[1:])
            torch.testing.assert_close(program.module()(*images), model(*images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("named", [True, False])
def test_a_pooling_layer_exports_alone_with_one_size_that_varies(named):
    """With other sizes fixed PyTorch proves nothing about a map's cells: it checks them when the graph runs."""
    torch.manual_seed(0)
    layer = MHSA2d(8, 2, (9, 9), pool=True).eval()
    shapes = {2: Dim("height", min=3) if named else Dim.DYNAMIC}
    program = torch.export.export(
        layer, (torch.randn(1, 8, 9, 9),), dynamic_shapes=(shapes,), prefer_deferred_runtime_asserts_over_guards=named
    )
    with torch.no_grad():
        for height in (9, 4, 20):
            x = torch.randn(1, 8, height, 9)
            torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


def test_dynamic_axes_of_the_older_onnx_exporter_are_refused_with_the_cure(tmp_path):
    model = network(botformer.create_model, "botnet_nano")
    with pytest.raises(InputError, match="use dynamo=True with dynamic_shapes"):
        torch.onnx.export(
            model, torch.randn(1, 3, 64, 64), tmp_path / "x.onnx", dynamo=False, input_names=["x"],
            dynamic_axes={"x": {2: "height"}},
        )  # fmt: skip
