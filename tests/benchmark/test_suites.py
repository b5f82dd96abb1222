"""Every suite from the command line to receipt, table and image, at tiny sizes."""

import json

import pytest
import torch
from PIL import Image
from rich.console import Console

from botformer import cli
from botformer.benchmark import attention_suite, headline_suite, model_suite, third_party
from botformer.benchmark.chart import draw_benchmark
from botformer.benchmark.comparison import run_case
from botformer.benchmark.roofline import Peaks
from botformer.commands import benchmark
from botformer.errors import InputError

CPU = torch.device("cpu")
PEAKS = Peaks(100.0, 10.0)


@pytest.fixture(autouse=True)
def _no_compiler_and_cheap_peaks(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr("botformer.benchmark.roofline.measure_peaks", lambda device, dtype: PEAKS)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("suite", benchmark.TITLES)
def test_a_suite_leaves_a_complete_receipt_a_table_and_a_image(suite, tmp_path, capsys):
    assert cli.main(["benchmark", suite, "--device", "cpu", "--quick", "--out", str(tmp_path), "--notes", "a try"]) == 0
    receipt = json.loads((tmp_path / f"{suite}_cpu_quick.json").read_text())
    assert receipt["name"] == f"{suite}_cpu_quick"
    assert receipt["command"].startswith(f"botformer benchmark {suite} --device cpu --quick")
    assert receipt["seed"] == 0
    assert receipt["notes"].endswith("a try")
    assert {"processor", "cores", "gpu", "threads", "float32_matmul_gflops", "copy_gb_per_s"} <= set(
        receipt["hardware"]
    )
    assert {"python", "torch", "timm"} <= set(receipt["versions"])
    timed = [row for row in receipt["figures"] if "left_out" not in row]
    assert len(timed) >= 2
    assert all(row["ms"] > 0 and row["ratio"] > 0 and row["peak_mib"] > 0 for row in timed)
    printed = capsys.readouterr().out
    assert all(f"{row['ms']}" in printed for row in timed)
    with Image.open(tmp_path / f"{suite}_cpu_quick.png") as image:
        assert image.width == 1620


def test_all_peers_agree_with_the_definition_on_an_even_map(monkeypatch):
    case = attention_suite.attention_case(attention_suite.Shape(4, 6, 2, 2, 16), True, CPU, torch.float32)
    timed = {row["implementation"] for row in run_case(case, 1, CPU, PEAKS) if "ms" in row}
    assert timed >= {"no position", "ours, tiled", "ours, sdpa", "definition", "timm"}
    if not third_party.LUCIDRAINS_MISSING:
        assert "lucidrains" in timed


def test_an_attention_without_the_scale_is_caught(monkeypatch):
    def unscaled(rel_height, rel_width, heads):
        theirs = third_party.timm_attention(rel_height, rel_width, heads)
        theirs.scale_pos_embed = False
        return theirs

    monkeypatch.setitem(attention_suite.PEERS, "timm", unscaled)
    case = attention_suite.attention_case(attention_suite.Shape(4, 6, 2, 2, 16), False, CPU, torch.float32)
    with pytest.raises(RuntimeError, match="timm .* should compute the same"):
        run_case(case, 1, CPU, PEAKS)


def test_a_network_with_a_wrong_attention_in_it_is_caught(monkeypatch):
    def wrong(layer):
        theirs = model_suite.as_timm(layer)
        torch.nn.init.zeros_(next(weight for name, weight in theirs.named_parameters() if "height_rel" in name))
        return theirs

    monkeypatch.setitem(model_suite.SWAPS, "timm", wrong)
    with pytest.raises(RuntimeError, match="attention of timm .* should compute the same"):
        run_case(model_suite.attention_case("inference", 128, 1, CPU), 1, CPU, PEAKS)


@pytest.mark.parametrize("group", headline_suite.GROUPS)
def test_every_network_of_the_headline_exists(group):
    with torch.device("meta"):
        for name, image_px in group[1:]:
            model = headline_suite._model(name, image_px).eval()
            assert model(torch.empty(1, 3, image_px, image_px)).shape == (1, 1000)


def test_the_full_suites_name_every_case_without_building_it():
    for suite in (attention_suite, model_suite, headline_suite):
        cases = list(suite.cases(CPU, quick=False))
        assert len({str(case.labels) for case in cases}) == len(cases)


def test_the_flops_of_attention_are_those_of_its_products():
    # 2 x 3 map, one head of width 5: q.k and weights.v are 6 x 6 x 5 each, the position terms 6 queries x (3 + 5) x 5.
    shape = attention_suite.Shape(2, 3, 1, 1, 5)
    assert shape.gflop(backward=False, position=True) * 1e9 == pytest.approx(2 * (2 * 6 * 6 * 5 + 6 * 8 * 5))
    assert shape.gflop(backward=False, position=False) * 1e9 == pytest.approx(2 * 2 * 6 * 6 * 5)


def test_what_was_left_out_stands_under_the_table(tmp_path):
    figures = [
        {"map": "2x2", "implementation": "ours", "ms": 1.5, "ratio": 1.0, "peak_mib": 2.0},
        {"map": "2x2", "implementation": "large", "left_out": "out of memory"},
    ]
    receipt = tmp_path / "attention.json"
    receipt.write_text(json.dumps({"title": "t", "figures": figures}))
    console = Console(record=True, width=100)
    benchmark.print_table(receipt, console)
    printed = console.export_text()
    assert "1.5" in printed
    assert "left out: large: out of memory (1 case)" in printed


def test_a_file_that_is_no_receipt_is_said(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json is not the receipt of a benchmark"):
        draw_benchmark(tmp_path / "x.json", tmp_path / "x.png")


def test_only_the_cases_with_a_label_are_held(tmp_path, capsys):
    call = ["benchmark", "attention", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    assert cli.main([*call, "--only", "both"]) == 0
    figures = json.loads((tmp_path / "attention_both_cpu_quick.json").read_text())["figures"]
    assert {row["pass"] for row in figures} == {"both"}
    assert cli.main([*call, "--only", "forwards"]) == 2
    assert "unknown label 'forwards'; did you mean forward?" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_said(tmp_path, capsys):
    assert cli.main(["benchmark", "attention", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "finds no CUDA device here; say --device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
