"""OpenVINO's graphs beside the rest of a program."""

import ctypes
import gc
import sys

import numpy as np
import pytest

from botformer.deploy.no_telemetry import import_openvino
from botformer.deploy.openvino_buckets import open_openvino
from tests.deploy.exported_networks import needs_export

CONFIG = {"precision": "float32", "inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}


class _Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack_for_signals():
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.address


@needs_export
@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are looked at by a call of Linux")
def test_networks_that_are_closed_in_the_order_they_were_opened_leave_signals_their_stack(tmp_path):
    openvino = import_openvino()
    x = openvino.opset13.parameter([-1, 3], np.float32, name="x")
    y = openvino.opset13.relu(x)
    y.output(0).get_tensor().set_names({"y"})
    x.output(0).get_tensor().set_names({"x"})
    openvino.save_model(openvino.Model([y], [x]), tmp_path / "model.xml")
    opened = [open_openvino(tmp_path / "model.xml", CONFIG, None) for _ in range(2)]
    before = stack_for_signals()
    for _ in range(2):
        assert opened[0]({"x": np.full((2, 3), -1.0, np.float32)})["y"].max() == 0
        del opened[0]
        gc.collect()
    assert stack_for_signals() == before


class Counted:
    """OpenVINO's core, and how often it compiled."""

    def __init__(self, core):
        self._core, self.compiled = core, 0
        self.read_model = core.read_model

    def compile_model(self, *given):
        self.compiled += 1
        return self._core.compile_model(*given)


@needs_export
@pytest.mark.parametrize(("shape", "graphs"), [([2, 3], 1), ([-1, 3], 2)])
def test_inputs_of_one_shape_are_compiled_for_once(shape, graphs, tmp_path, monkeypatch):
    """Whatever is inside: how many numbers are above zero is not known before."""
    openvino = import_openvino()
    opset = openvino.opset13
    x = opset.parameter(shape, np.float32, name="x")
    places = opset.non_zero(opset.relu(x), output_type="i64")
    x.output(0).get_tensor().set_names({"x"})
    places.output(0).get_tensor().set_names({"y"})
    model = openvino.Model([places], [x])
    assert model.is_dynamic()
    openvino.save_model(model, tmp_path / "model.xml")
    core = Counted(openvino.Core())
    monkeypatch.setattr("botformer.deploy.openvino_buckets._core", lambda: core)
    run = open_openvino(tmp_path / "model.xml", CONFIG, None)
    values = np.array([[1, -1, 0], [0, 2, 3]], np.float32)
    for _ in range(3):
        assert run({"x": values})["y"].tolist() == [[0, 1, 1], [0, 1, 2]]
    assert core.compiled == graphs
