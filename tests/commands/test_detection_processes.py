"""Evaluating a detector in several processes at once."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from botformer import cli
from tests.fork_server import launch, start_process

from .detection_scenes import SIZES, save_detector, write_scenes

pytest.importorskip("faster_coco_eval")
PROCESSES = 4


def evaluate(network: Path, data: Path, out: Path) -> str:
    """What it writes to the screen. Three images at a time: of four processes one has none."""
    screen = io.StringIO()
    arguments = ["--data", str(data), "--out", str(out), "--by=stain", "--workers=0", "--batch-size=3"]
    with contextlib.redirect_stdout(screen):
        assert cli.main(["evaluate", str(network), *arguments]) == 0
    return screen.getvalue()


def evaluate_a_share(network: Path, data: Path, out: Path) -> str:
    torch.set_num_threads(1)
    PartialState._reset_state()  # forked along with the process
    assert PartialState(cpu=True).num_processes == PROCESSES
    return evaluate(network, data, out)


def torchrun(network: Path, data: Path, out: Path) -> None:
    screens = launch(PROCESSES, evaluate_a_share, network, data, out)
    (out / "screens.json").write_text(json.dumps([screens[rank] for rank in range(PROCESSES)]))


def numbers(value, at=""):
    """Every number of nested JSON, by its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: number for key, part in items for path, number in numbers(part, f"{at}/{key}").items()}
    return {at: value} if isinstance(value, int | float) else {}


def test_processes_measure_exactly_what_one_does(tmp_path):
    network = save_detector(tmp_path / "random.safetensors")
    data = tmp_path / "data"
    write_scenes(data, network)
    broken = "14.png"  # the fourth by name, so in the second process's batch
    (data / "val" / broken).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    screen = evaluate(network, data, tmp_path / "one")
    process = start_process(torchrun, network, data, tmp_path / "four")
    process.join()
    assert process.exitcode == 0
    one, four = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "four"))
    assert one["images"] == len(SIZES) - 1
    assert list(one["skipped"]["images"]) == list(four["skipped"]["images"]) == [broken]
    assert one["mask"]["AP50"] > 0.02
    assert len(numbers(one)) > 100
    assert numbers(four) == numbers(one)
    results = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("one", "four")]
    assert results[0] == results[1]
    assert sorted(f.name for f in (tmp_path / "one").iterdir()) == sorted(
        f.name for f in (tmp_path / "four").iterdir() if f.name != "screens.json"
    )
    screens = json.loads((tmp_path / "four" / "screens.json").read_text())
    assert screens == [screen.replace(str(tmp_path / "one"), str(tmp_path / "four")), *[""] * (PROCESSES - 1)]
