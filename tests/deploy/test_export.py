"""Exported networks held against PyTorch, at sizes that the export itself did not look at."""

import json
import shutil
import threading
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

import botformer
from botformer.backbone.mhsa import MHSA2d
from botformer.deploy import export as export_module
from botformer.deploy import open_exported, optimize, to_openvino
from botformer.deploy.export import export
from botformer.deploy.exported_folder import read_config
from botformer.deploy.formats import FORMATS
from botformer.deploy.no_telemetry import import_onnxruntime
from botformer.errors import InputError
from tests.deploy.exported_networks import needs_export, sharp_network

pytestmark = needs_export
DYNAMIC = ("torch", "onnx", "openvino")
# Odd, oblong, tiny, large; stride 8, and the program of torch.export starts at two cells.
SIZES = [(1, 48, 48), (1, 17, 9), (3, 31, 100), (2, 47, 49), (1, 225, 33)]
# Of the largest value: rounding of ten layers in another order, with room for other processors.
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def network():
    return sharp_network(num_classes=7)


@pytest.fixture(scope="module")
def folders(network, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    folders = {name: export(name, network, root / name) for name in ("torch", "onnx")}
    with pytest.MonkeyPatch.context() as patch:  # OpenVINO reads the same ONNX file, which takes long to write
        patch.setattr(to_openvino, "write_onnx", lambda _, precision, file: shutil.copy(root / "onnx/model.onnx", file))
        return folders | {"openvino": export("openvino", network, root / "openvino")}


def expected(network, pixels):
    with torch.no_grad():
        return network(network.preprocess(pixels)).numpy()


@pytest.mark.parametrize("name", DYNAMIC)
def test_every_format_gives_what_the_network_gives_at_any_size(name, network, folders):
    runtime = open_exported(folders[name])
    for batch, *size in SIZES * 2:  # twice: OpenVINO compiles for a shape that comes again
        pixels = torch.rand(batch, 3, *size)
        found, exact = runtime(pixels=pixels.numpy())["logits"], expected(network, pixels)
        assert found.dtype == np.float32
        assert np.abs(found - exact).max() <= ROUNDING * np.abs(exact).max(), size


@pytest.mark.parametrize("name", DYNAMIC)
def test_threads_share_a_runtime(name, network, folders):
    runtime, wrong = open_exported(folders[name]), []

    def work(seed):
        pixels = torch.rand(1, 3, 40, 40 + 8 * (seed % 3), generator=torch.Generator().manual_seed(seed))
        exact = expected(network, pixels)
        for _ in range(4):
            found = runtime(pixels=pixels.numpy())["logits"]
            if not np.abs(found - exact).max() <= ROUNDING * np.abs(exact).max():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", DYNAMIC)
def test_the_folder_says_what_it_is(name, folders):
    config = read_config(folders[name])
    assert (config["format"], config["precision"], config["task"]) == (name, "float32", "classification")
    assert config["inputs"] == [{"name": "pixels", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}]
    assert config["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 7]}]
    assert config["class_names"] == list("0123456")
    assert {FORMATS[name].model_file, "run.py"} <= config["files"].keys()
    sizes = [tuple(record["inputs"]["pixels"][2:]) for record in config["checked"]]
    assert (49, 25) in sizes
    assert (17, 65) in sizes
    home = str(botformer.__file__).removesuffix("__init__.py").encode()
    for file in config["files"]:  # stack traces would tell where this machine keeps its programs
        assert home not in (folders[name] / file).read_bytes(), file
    with pytest.raises(InputError, match="is an exported network, which its run.py runs without botformer; here, give"):
        botformer.load(folders[name])


def test_wrong_inputs_are_named(folders):
    runtime, pixels = open_exported(folders["onnx"], threads=1), np.zeros((1, 3, 48, 48), np.float32)
    for inputs, words in [
        ({}, "the inputs are pixels; got none"),
        ({"pixels": pixels, "more": pixels}, "got pixels, more"),
        ({"pixels": pixels.astype(np.float64)}, r"pixels must be float32 \(batch, 3, height, width\), got float64"),
        ({"pixels": pixels[:, :1]}, r"got float32 \(1, 1, 48, 48\)"),
        ({"pixels": pixels[0]}, r"got float32 \(3, 48, 48\)"),
    ]:
        with pytest.raises(InputError, match=words):
            runtime(**inputs)
    with pytest.raises(InputError, match="does not take inputs of this size"):
        open_exported(folders["torch"])(pixels=pixels[..., :5, :5])
    with pytest.raises(InputError, match="torch.set_num_threads"):
        open_exported(folders["torch"], threads=2)


def test_a_damaged_or_missing_file_is_found(folders, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders["onnx"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match="sha256 differs"):
        open_exported(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx is missing"):
        open_exported(copy)
    with pytest.raises(InputError, match="is not an exported network"):
        open_exported(tmp_path)


class Wrapped(nn.Module):
    """What data parallelism does: the network is `module`."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (lambda model: model.train(), ROUNDING),
        (lambda model: model.double(), ROUNDING),
        (lambda model: model.bfloat16(), ROUNDING),  # its own weights, in float32
        (lambda model: Wrapped(model), ROUNDING),
        (lambda model: torch.compile(model, backend="eager"), ROUNDING),
        (lambda model: botformer.deploy.optimize(model), ROUNDING),
    ],
)
def test_a_network_in_any_state_is_exported_and_left_as_it_was(change, allowed, tmp_path):
    model = change(sharp_network("resnet_nano", num_classes=4))
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in model.state_dict().items()}
    mode = model.training
    runtime = open_exported(export("torch", model, tmp_path / "x", size=(40, 40), batch=2))
    pixels = torch.rand(2, 3, 40, 40)
    assert model.training == mode
    assert all(torch.equal(tensor, before[name][1]) for name, tensor in model.state_dict().items())
    plain = sharp_network("resnet_nano", num_classes=4)
    plain.load_state_dict(
        {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, (_, tensor) in before.items()}
        if "conv1.bias" not in before
        else plain.state_dict()
    )
    exact = expected(plain, pixels)
    assert np.abs(runtime(pixels=pixels.numpy())["logits"] - exact).max() <= allowed * np.abs(exact).max()


@pytest.mark.parametrize("fixed", [{"size": (41, 27), "batch": 1}, {}])
def test_backbones_give_their_maps_and_other_channels_have_no_script_for_files(fixed, tmp_path):
    backbone = sharp_network("resnet_nano", backbone=True, in_chans=1)
    folder = export("torch", backbone, tmp_path / "x", **fixed)
    pixels = torch.rand(1, 1, 41, 27)
    with torch.no_grad():
        exact = backbone(backbone.preprocess(pixels))
    found = open_exported(folder)(pixels=pixels.numpy())
    assert list(found) == ["c2", "c3", "c4", "c5"]
    for name, maps in exact.items():
        np.testing.assert_allclose(found[name], maps.numpy(), atol=ROUNDING * maps.abs().max().item())
    assert not (folder / "run.py").exists()


def test_bfloat16_is_rounded_and_no_more(tmp_path):
    model = sharp_network("resnet_nano", num_classes=4)
    runtime = open_exported(export("torch", model, tmp_path / "x", precision="bfloat16", size=(48, 48)))
    pixels = torch.rand(3, 3, 48, 48)
    exact, found = expected(model, pixels), runtime(pixels=pixels.numpy())["logits"]
    assert found.dtype == np.float32
    assert 1e-4 < np.abs(found - exact).max() / np.abs(exact).max() < 0.05
    # Images are normalised before they are rounded: mean and deviation keep their digits.
    with torch.no_grad():
        rounded = optimize(model, dtype=torch.bfloat16)(model.preprocess(pixels)).numpy()
    # Where a processor has no instructions for bfloat16, a graph may round a sum the other way: half of one digit.
    relative = 1e-5 if torch.cpu._is_avx512_bf16_supported() else 2**-9
    np.testing.assert_allclose(found, rounded, atol=relative * np.abs(exact).max())


def test_a_graph_that_differs_is_refused_with_the_figures_and_nothing_is_left(tmp_path, monkeypatch):
    def write_another(exportable, precision, file):
        for parameter in exportable.module.parameters():
            parameter.mul_(1.01)
        writer(exportable, precision, file)

    writer = export_module._WRITERS["torch"]
    monkeypatch.setitem(export_module._WRITERS, "torch", write_another)
    with pytest.raises(InputError, match=r"at pixels 2x3x40x40 it differs by logits 0\.\d+ \(limit"):
        export("torch", sharp_network("resnet_nano"), tmp_path / "x", size=(40, 40))
    assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    model, out = sharp_network("resnet_nano", num_classes=2), tmp_path / "größe 1"
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    for taken, words in [("file", "is a file"), ("other", r"is not an exported network \(it holds notes.txt\)")]:
        with pytest.raises(InputError, match=words):
            export("torch", model, tmp_path / taken, size=(40, 40))
    export("torch", model, out, size=(40, 40), batch=1)
    export("torch", model, out, size=(48, 48), batch=1)
    assert read_config(out)["inputs"][0]["shape"] == [1, 3, 48, 48]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "größe 1", "other"]
    shutil.copytree(out, tmp_path / "größe 1.old")  # somebody keeps the one before
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "run.pyc").touch()
    export("torch", model, out, size=(40, 40), batch=1)
    assert read_config(tmp_path / "größe 1.old")["inputs"][0]["shape"] == [1, 3, 48, 48]
    (out / "results.jsonl").touch()
    with pytest.raises(InputError, match="beside the exported network it holds results.jsonl; move that elsewhere"):
        export("torch", model, out, size=(40, 40))
    (out / "results.jsonl").unlink()
    (out / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be replaced .*: delete it, or name another folder"):
        export("torch", model, out, size=(40, 40))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda out: export("onx", sharp_network(), out), "unknown format 'onx'; did you mean onnx?"),
        (lambda out: export("onnx", sharp_network(), out, precision="bfloat16"), "no bfloat16 convolution"),
        (lambda out: export("onnx", sharp_network(), out, precision="float8"), "unknown precision 'float8'"),
        (lambda out: export("onnx", nn.Linear(2, 2), out), "got Linear"),
        (lambda out: export("torch", sharp_network(), out, size=(40, 48)), "classifiers see squares"),
        (lambda out: export("torch", sharp_network(), out, images=[torch.rand(1, 8, 8)]), r"expected \(3, height"),
        (
            lambda out: export("torch", sharp_network(), out, images=iter([torch.rand(1, 8, 8)])),
            r"expected \(3, height",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(call, words, tmp_path):
    with pytest.raises(InputError, match=words):
        call(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    from botformer.deploy import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'not installed: pip install "botformer\[export\]"'):
        export("openvino", sharp_network(), tmp_path / "x")


class Layers(nn.Module):
    """Attention of every kind, with and without the pool that follows where the stride is 2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        kinds = [("relative", "interpolate", 4), ("position_only", "offset", 2), ("absolute", "offset", 2)]
        self.layers = nn.ModuleList(
            MHSA2d(16, heads, (6, 5), kind, tables=tables, backend="sdpa", pool=number == 0)
            for number, (kind, tables, heads) in enumerate([*kinds, ("blog", "interpolate", 1)])
        )
        for layer in self.layers:
            nn.init.normal_(layer.qkv.weight, std=0.5)

    def forward(self, x):
        return tuple(layer(x) for layer in self.layers)


def test_every_kind_of_attention_is_the_same_in_onnx_runtime_at_every_width(tmp_path):
    """Widths of queries that 8 divides and that it does not: D + H + W."""
    onnxruntime = import_onnxruntime()
    layers, axes = (
        Layers().eval(),
        {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},
    )
    with torch.no_grad():
        program = torch.export.export(layers, (torch.rand(2, 16, 6, 8),), dynamic_shapes=(axes,))
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    for size in [(6, 5), (6, 8), (2, 2), (3, 9), (11, 4), (7, 7), (1, 5)]:
        x = torch.rand(1, 16, *size)
        with torch.no_grad():
            for found, exact in zip(
                session.run(None, {session.get_inputs()[0].name: x.numpy()}), layers(x), strict=True
            ):
                np.testing.assert_allclose(found, exact.numpy(), rtol=1e-4, atol=1e-5, err_msg=str(size))


@pytest.mark.parametrize(
    ("format_name", "packages"),
    [("onnx", ["onnx", "onnxscript", "onnxruntime"]), ("openvino", ["onnx", "onnxscript", "openvino"])],
)
def test_the_config_names_the_versions_of_all_that_wrote_and_ran_it(format_name, packages, folders):
    named = json.loads((folders[format_name] / "config.json").read_text())["versions"]
    assert named["botformer"] == botformer.__version__
    assert {package: named[package] for package in packages} == {package: version(package) for package in packages}


@pytest.mark.parametrize(
    "change",
    [
        *({"files": files} for files in ([], {}, 7, {"model.onnx": {}})),
        *({"format": 7}, {"format": None}, {"precision": []}),
        *({"inputs": [7]}, {"inputs": [{"name": 1}]}, {"outputs": None}, {"outputs": ["logits"]}),
    ],
)
def test_a_config_of_another_shape_is_named(folders, tmp_path, change):
    copy = shutil.copytree(folders["onnx"], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json (holds something else|does not list)"):
        open_exported(copy)


@pytest.mark.parametrize(
    "options",
    [
        *({"batch": batch} for batch in [0, -1, "2", 1.5]),
        *({"size": size} for size in [(64,), (0, 0), (-64, -64), "64", (64.0, 64.0)]),
        {"images": [np.zeros((3, 8, 8), dtype=np.float32)]}, {"images": [torch.zeros(3, 8, 8, dtype=torch.uint8)]},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_exported_is_said_first(options, network, tmp_path):
    with pytest.raises(InputError, match=r"must be (whole|at least 1 pixel|tensors)"):
        export("torch", network, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
