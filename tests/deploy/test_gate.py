"""The gate keeps a network in int8 that is faster and as accurate, and no other."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from botformer.deploy import gate as gate_module
from botformer.deploy.gate import Scale, Verdict, gate

KEPT = Verdict("top1", 0.90, 0.90, 0.01, 500, "images", 20.0, 10.0, 2.0)
INPUTS = {"pixels": np.zeros((1, 3, 2, 2), np.float32)}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"int8_score": 0.89}, []),  # exactly what may be lost
        ({"int8_score": 0.95}, []),
        ({"int8_score": 0.889}, ["it loses more than 0.01 of top1"]),
        ({"speedup": 1.0}, ["it is not faster"]),
        ({"speedup": 0.4, "int8_score": 0.5}, ["it is not faster", "it loses more than 0.01 of top1"]),
        ({"int8_score": float("nan")}, ["it loses more than 0.01 of top1"]),
        ({"speedup": float("nan")}, ["it is not faster"]),
    ],
)
def test_what_is_refused_and_why(changes, reasons):
    verdict = replace(KEPT, **changes)
    assert verdict.reasons == reasons
    assert verdict.as_dict()["kept"] == (not reasons)


def test_both_figures_are_said():
    assert KEPT.figures() == ("float32 20 ms and top1 0.9000, int8 10 ms and 0.9000 (speed 2.00 times, on 500 images)")


@pytest.mark.parametrize(("counted", "too_few"), [(0, True), (99, True), (100, False), (5000, False)])
def test_it_is_said_when_images_are_too_few_to_tell_a_point(counted, too_few):
    verdict = replace(KEPT, counted=counted)
    assert verdict.too_few == too_few
    assert (f"{counted} images are too few to tell a loss of 0.01: it takes 100" in verdict.figures()) == too_few


def test_times_are_ratios_within_a_round_and_scores_are_those_of_each_network(monkeypatch):
    """A machine that gets slower and slower does not change the ratio."""
    slept = {"float": 0.004, "int8": 0.002}
    calls = []

    def opened(config, folder):
        def runtime(**inputs):
            assert inputs["pixels"] is INPUTS["pixels"]
            calls.append(folder.name)
            time.sleep(slept[folder.name] * (1 + len(calls) / 200))

        runtime.folder = folder.name
        return runtime

    monkeypatch.setattr(gate_module, "read_config", lambda folder: {})
    monkeypatch.setattr(gate_module, "open_model", opened)
    scores = {"float": 0.9, "int8": 0.7}
    verdict = gate(
        Path("float"),
        Path("int8"),
        lambda runtime: scores[runtime.folder],
        0.01,
        INPUTS,
        lambda: Scale("AP", 7, "cats"),
    )
    assert 1.4 < verdict.speedup < 2.6
    assert verdict.float_ms > verdict.int8_ms > 2
    assert (verdict.float_score, verdict.int8_score) == (0.9, 0.7)
    assert (verdict.metric, verdict.counted, verdict.unit) == ("AP", 7, "cats")
    assert verdict.reasons == ["it loses more than 0.01 of AP"]
    assert {"float", "int8"} == set(calls)
