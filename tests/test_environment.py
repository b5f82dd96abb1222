import os
import subprocess
import sys

import pytest
import torch

from botformer import __version__, environment
from botformer.environment import cores, hardware, versions


def test_versions_name_the_build_of_torch_and_the_device():
    found = versions(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["botformer"] == __version__
    assert found["python"] == sys.version.split()[0]
    assert found["device"].startswith("cpu ")
    assert versions() == {name: value for name, value in found.items() if name != "device"}


def test_cores_are_those_that_this_process_may_use():
    if not hasattr(os, "sched_setaffinity"):
        return
    command = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import botformer.environment as e; "
    command += "import sys; print(e.cores(), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "False"]  # and torch is not imported before it is needed


def test_hardware_is_what_the_machine_has():
    found = hardware()
    assert found["cores"] == cores() >= 1
    assert found["processor"]
    assert (found["gpu"] is not None) == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("content", "whole"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("odd", None), (None, None)]
)
def test_a_container_has_its_share_of_the_cores(content, whole, tmp_path, monkeypatch):
    file = tmp_path / "cpu.max"
    if content is not None:
        file.write_text(content + "\n")
    monkeypatch.setattr(environment, "_CGROUP", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores() == (whole or 64)
