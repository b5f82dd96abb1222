"""Every suite from the command line to receipt, table and image, at tiny sizes."""

import json
from typing import get_args

import pytest
import torch
from PIL import Image
from rich.console import Console

from botformer import cli
from botformer.benchmark import attention_suite, chart, detection_suite, headline_suite, model_suite, third_party
from botformer.benchmark.comparison import run_case
from botformer.benchmark.detection_suite import torchvision_detector
from botformer.benchmark.roofline import Peaks
from botformer.benchmark.run_suite import TITLES
from botformer.benchmark.table import print_table
from botformer.commands.benchmark import Suite
from botformer.errors import InputError

CPU = torch.device("cpu")
PEAKS = Peaks(100.0, 10.0)


@pytest.fixture(autouse=True)
def _no_compiler_and_cheap_peaks(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr("botformer.benchmark.run_suite.measure_peaks", lambda device, dtype, rounds: PEAKS)


def reasons(rows):
    return {row["implementation"]: row["left_out"] for row in rows if "left_out" in row}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("suite", TITLES)
def test_a_suite_leaves_a_complete_receipt_a_table_and_a_chart(suite, tmp_path, capsys):
    assert (
        cli.main(["benchmark", suite, "--device", "cpu", "--quick", "--out", str(tmp_path), "--notes", "a trial"]) == 0
    )
    receipt = json.loads((tmp_path / f"{suite}_cpu_quick.json").read_text())
    assert receipt["name"] == f"{suite}_cpu_quick"
    assert receipt["command"].startswith(f"botformer benchmark {suite} --device cpu --quick")
    assert receipt["seed"] == 0
    assert receipt["notes"].endswith("a trial")
    assert {"processor", "cores", "gpu", "threads", "float32_matmul_gflops", "copy_gb_per_s"} <= set(
        receipt["hardware"]
    )
    assert {"python", "torch", "timm"} <= set(receipt["versions"])
    timed = [row for row in receipt["figures"] if "left_out" not in row]
    assert len(timed) >= 2
    assert all(row["ms"] > 0 and row["ratio"] > 0 for row in timed)
    assert all(row["peak_mib"] > 0 for row in timed if "peak_mib" in row)  # other runtimes allocate for themselves
    assert any("peak_mib" in row for row in timed)
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
        peer = third_party.timm_attention(rel_height, rel_width, heads)
        peer.scale_pos_embed = False
        return peer

    monkeypatch.setitem(attention_suite.IMPLEMENTATIONS, "timm", unscaled)
    case = attention_suite.attention_case(attention_suite.Shape(4, 6, 2, 2, 16), False, CPU, torch.float32)
    assert "should compute the same" in reasons(run_case(case, 1, CPU, PEAKS))["timm"]


def test_a_network_with_a_wrong_attention_in_it_is_caught(monkeypatch):
    def wrong(rel_height, rel_width, heads, qkv):
        return third_party.timm_attention(torch.zeros_like(rel_height), rel_width, heads, qkv)

    monkeypatch.setitem(model_suite.THIRD_PARTY, "timm", wrong)
    rows = run_case(model_suite.attention_case("inference", 128, 1, CPU), 1, CPU, PEAKS)
    assert "should compute the same" in reasons(rows)["botnet50, attention of timm"]


def test_the_command_and_the_titles_name_the_same_suites():
    assert get_args(Suite) == tuple(TITLES)


def test_training_on_batches_and_on_lists_of_images_that_differ_is_caught(monkeypatch):
    as_torchvision = detection_suite._as_torchvision

    def without_the_first_object(batch, canvas=False):
        images, targets = as_torchvision(batch, canvas)
        return images, [{key: value[1:] for key, value in target.items()} for target in targets]

    monkeypatch.setattr(detection_suite, "_as_torchvision", without_the_first_object)
    rows = run_case(next(iter(detection_suite.cases(CPU, quick=True))), 1, CPU, PEAKS)
    assert reasons(rows)["Mask R-CNN, resnet_nano, detector.losses"].startswith("WRONG: it and Mask R-CNN, resnet_nano")


def test_a_chart_shows_the_labels_of_its_cases():
    row = {"px": 64, "batch": 2, "mode": "inference", "implementation": "ours", "ms": 1.0, "peak_mib": 1.0}
    assert chart._cases([row, {**row, "implementation": "other"}]) == [
        ("64 px, batch 2, inference", [row, {**row, "implementation": "other"}])
    ]


@pytest.mark.parametrize("group", headline_suite.GROUPS)
def test_every_network_of_the_headline_exists(group):
    with torch.device("meta"):
        for name, image_px in group[1:]:
            model = headline_suite._model(name, image_px).eval()
            assert model(torch.empty(1, 3, image_px, image_px)).shape == (1, 1000)


def test_the_full_suites_name_every_case_without_building_it():
    for suite in (attention_suite, model_suite, headline_suite, detection_suite):
        cases = list(suite.cases(CPU, quick=False))
        assert len({str(case.labels) for case in cases}) == len(cases)


def test_the_suites_of_a_gpu_are_named_without_one(monkeypatch):
    # A sample tensor is all that is made of a case before it runs.
    monkeypatch.setattr("botformer.benchmark.attention_suite.torch.empty", lambda *shape, **_: torch.zeros(shape))
    for suite in (attention_suite, model_suite, headline_suite, detection_suite):
        cases = list(suite.cases(torch.device("cuda"), quick=False))
        assert len({str(case.labels) for case in cases}) == len(cases)
        names = [[implementation.name for implementation in case.implementations] for case in cases]
        assert all(len(set(of)) == len(of) for of in names)


def test_a_compiled_network_is_compared_with_the_eager_one():
    setting = model_suite.Setting("inference", "compiled", 64, 2)
    rows = run_case(model_suite.setting_case(setting, CPU), 1, CPU, PEAKS)
    assert [row["implementation"] for row in rows if row["ms"]] == [
        "resnet50, eager",
        "botnet50, ours, eager",
        "resnet50, compiled",
        "botnet50, ours, compiled",
    ]


def test_each_detector_finds_as_much_as_it_may():
    work = detection_suite.TINY_WORK
    for detector in (detection_suite.our_detector("botnet_nano", work).as_torchvision(), torchvision_detector(work)):
        boxes, scores, masks = detection_suite.inference(detector, work, CPU)(0)
        assert len(boxes) == len(scores) == work.settings.max_detections
        assert masks.shape == (len(boxes), 1, work.images.size, work.images.size)


def test_the_flops_of_attention_are_those_of_its_products():
    # 2 x 3 map, one head of width 5: q.k and weights.v are 6 x 6 x 5 each, the position terms 6 queries x (3 + 5) x 5.
    shape = attention_suite.Shape(2, 3, 1, 1, 5)
    assert shape.gflop(backward=False, position=True) * 1e9 == pytest.approx(2 * (2 * 6 * 6 * 5 + 6 * 8 * 5))
    assert shape.gflop(backward=False, position=False) * 1e9 == pytest.approx(2 * 2 * 6 * 6 * 5)


def test_what_was_left_out_is_listed_below_the_table(tmp_path):
    figures = [
        {"map": "2x2", "implementation": "ours", "ms": 1.5, "ratio": 1.0, "peak_mib": 2.0},
        {"map": "2x2", "implementation": "large", "left_out": "out of memory"},
    ]
    receipt = tmp_path / "attention.json"
    receipt.write_text(json.dumps({"title": "t", "figures": figures}))
    console = Console(record=True, width=100)
    print_table(receipt, console)
    printed = console.export_text()
    assert "1.5" in printed
    assert "left out: large: out of memory (1 case)" in printed


def test_a_file_that_is_no_receipt_is_rejected(tmp_path):
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json is not the receipt of a benchmark"):
        chart.draw_benchmark(tmp_path / "x.json", tmp_path / "x.png")


def test_only_the_cases_with_a_label_are_run(tmp_path, capsys):
    call = ["benchmark", "attention", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    assert cli.main([*call, "--only", "both"]) == 0
    figures = json.loads((tmp_path / "attention_both_cpu_quick.json").read_text())["figures"]
    assert {row["pass"] for row in figures} == {"both"}
    assert cli.main([*call, "--only", "forwards"]) == 2
    assert "unknown label 'forwards'; did you mean forward?" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_missing_device_is_an_error(tmp_path, capsys):
    assert cli.main(["benchmark", "attention", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "finds no CUDA device; use --device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
