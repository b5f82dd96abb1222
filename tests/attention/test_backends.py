"""Which backend runs, and how to forbid some to `auto`."""

import dataclasses

import pytest
import torch

import botformer
from botformer.attention import backends, relative_attention_2d
from botformer.attention.backends import BACKENDS, ENVIRONMENT_VARIABLE, choose
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError
from tests.attention.brute_force import random_inputs

LARGE, SMALL = (1, 1, 17, 17, 4, 4), (1, 1, 4, 4, 4, 4)


@pytest.fixture(autouse=True)
def nothing_announced(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(backends, "_announced", set())


def chosen(shape=LARGE, backend="auto"):
    q, _, v, *_ = random_inputs(*shape, torch.float32)
    return choose(backend, q, v).name


@pytest.mark.parametrize(
    ("variable", "large", "small"),
    [
        ("", "tiled", "definition"),
        ("auto", "tiled", "definition"),
        ("-triton", "tiled", "definition"),
        ("-tiled", "sdpa", "sdpa"),
        (" auto , -tiled,", "sdpa", "sdpa"),
        ("-definition", "tiled", "tiled"),
        ("-tiled,-sdpa", "definition", "definition"),
        ("tiled", "tiled", "tiled"),
        ("sdpa", "sdpa", "sdpa"),
    ],
)
def test_the_environment_variable_says_what_auto_means(variable, large, small, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, variable)
    assert (chosen(LARGE), chosen(SMALL)) == (large, small)


@pytest.mark.parametrize("backend", ["-tiled", "auto,-tiled", "auto, -tiled"])
def test_the_argument_forbids_as_the_variable_does_and_both_add_up(backend, monkeypatch):
    assert chosen(backend=backend) == "sdpa"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "-sdpa")
    assert chosen(backend=backend) == "definition"


@pytest.mark.parametrize("variable", ["-tiled", "definition", "-tiled,-sdpa,-triton,-definition", "nonsense"])
def test_an_explicit_name_is_not_overridden(variable, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, variable)
    assert chosen(backend="tiled") == "tiled"


@pytest.mark.parametrize("variable", ["fused", "tiled,sdpa", "-fused", "tiled,-triton", "--triton", "TILED"])
def test_anything_else_in_the_variable_is_an_input_error_that_lists_the_names(variable, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, variable)
    with pytest.raises(
        InputError, match="BOTFORMER_ATTENTION is .*auto, tiled, sdpa, triton, flash_attention_3, definition"
    ):
        chosen()


@pytest.mark.parametrize("backend", ["", "tiled,-triton", "-fused", "auto,fused"])
def test_anything_else_as_argument_is_an_input_error(backend):
    for use in (lambda: chosen(backend=backend), lambda: MHSA2d(8, backend=backend)):
        with pytest.raises(InputError, match=r"attention backend .*(known|expected).*definition"):
            use()


def test_nothing_left_is_an_error_with_the_reason_of_every_backend(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "-definition,-sdpa")
    with pytest.raises(
        RuntimeError, match=r"tiled is forbidden; sdpa is.*; triton: .*; flash_attention_3: .*; definition is forbidden"
    ):
        chosen(backend="-tiled")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "tiled")
    with pytest.raises(RuntimeError, match="tiled is forbidden"):
        chosen(backend="-tiled")
    half = [tensor.bfloat16() for tensor in random_inputs(*LARGE)]
    with pytest.raises(RuntimeError, match="'tiled' cannot run this input: .* not torch.bfloat16"):
        relative_attention_2d(*half)


def test_the_choice_is_logged_once_per_restriction(monkeypatch, caplog):
    with caplog.at_level("INFO"):
        for _ in range(3):
            chosen()
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "-tiled")  # read at the next choice
        for _ in range(3):
            chosen()
    assert [record.getMessage() for record in caplog.records] == [
        "attention on cpu: backend 'tiled'",
        "attention on cpu: backend 'sdpa' (tiled forbidden)",
    ]


def operators(graph):
    return {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize(("variable", "argument"), [("-tiled", "auto"), ("sdpa", "auto"), ("", "-tiled"), ("", "auto")])
def test_it_compiles_to_one_graph_of_the_backend_that_is_left(variable, argument, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, variable)
    torch._dynamo.reset()
    graphs = []

    def record(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def attend(*inputs):
        return relative_attention_2d(*inputs, backend=argument)

    inputs = random_inputs(*LARGE, torch.float32)
    compiled = torch.compile(attend, fullgraph=True, backend=record)
    torch.testing.assert_close(compiled(*inputs), relative_attention_2d(*inputs, backend="definition"))
    assert len(graphs) == 1
    seen = " ".join(operators(graphs[0]))
    sdpa = (variable, argument) != ("", "auto")
    assert ("scaled_dot_product" in seen, "tiled_attention" in seen) == (sdpa, not sdpa)


@pytest.mark.parametrize("strict", [False, True])
def test_export_keeps_to_portable_backends_that_are_allowed(strict, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "-sdpa")
    layer = MHSA2d(8, heads=2, size=(17, 17)).eval()
    x = torch.randn(1, 8, 17, 17)
    exported = torch.export.export(layer, (x,), strict=strict)
    assert "scaled_dot_product" not in str(exported.graph)
    assert "botformer" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), layer(x))


def test_a_network_takes_the_argument(monkeypatch):
    used = []
    for name, backend in BACKENDS.items():

        def spy(*inputs, name=name, run=backend.run, **options):
            used.append(name)
            return run(*inputs, **options)

        monkeypatch.setitem(BACKENDS, name, dataclasses.replace(backend, run=spy))
    botformer.create_model("botnet_nano", 2, 288, backend="auto,-tiled").eval()(torch.randn(1, 3, 288, 288))
    assert used == ["sdpa"]


def test_a_position_kind_that_runs_as_sdpa_cannot_forbid_it():
    MHSA2d(8, position="none", backend="-triton")
    with pytest.raises(InputError, match="runs as 'sdpa'"):
        MHSA2d(8, position="none", backend="-sdpa")
