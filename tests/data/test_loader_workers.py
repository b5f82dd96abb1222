"""How many processes read images: those of a run on one machine share its cores and its shared memory."""

from types import SimpleNamespace

import pytest

from botformer.data import loader


@pytest.mark.parametrize(
    ("processes", "cores", "workers"), [(None, 16, 8), (1, 4, 4), (8, 16, 2), (8, 64, 8), (16, 16, 1), (16, 8, 1)]
)
def test_processes_of_one_machine_share_its_cores(processes, cores, workers, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(loader, "cores", lambda: cores)
    assert loader._worker_count(-1) == workers
    assert loader._worker_count(5) == 5


def test_processes_of_one_machine_share_its_shared_memory(monkeypatch, caplog, tmp_path):
    """24 batches fit: of one process two of each of 8 workers, and two in use; of four processes 6 each."""
    monkeypatch.setattr(loader, "_SHM", tmp_path)
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_400_000_000))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert loader._that_fit(8, 100_000_000) == 8
    assert not caplog.text
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loader._that_fit(8, 100_000_000) == 2
    assert "for each process: only 2 of them are started" in caplog.text
