from pathlib import Path

import pytest

from benchmarks.gpu.parts import join, split
from botformer.errors import InputError

KIB = 2**10


def write_run(folder: Path, weights: bytes, step: int = 12) -> Path:
    """The layout of a run: an old checkpoint, the last one, and the files beside them."""
    for number, content in ((step - 1, b"old"), (step, weights)):
        checkpoint = folder / "checkpoints" / f"step-{number:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(content)
        (checkpoint / "state.json").write_text("{}")
    (folder / "last").write_text(f"step-{step:08d}\n")
    (folder / "best").write_text(f"step-{step - 1:08d}\n")
    (folder / "metrics.jsonl").write_text('{"step": 12}\n')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    weights = {"large": 300, "small": 20, "middle": 90}
    return [write_run(tmp_path / "work" / name, bytes(range(256)) * (4 * kib)) for name, kib in weights.items()]


def test_joined_parts_are_the_same_bytes_without_older_checkpoints(runs: list[Path], tmp_path: Path) -> None:
    parts, left_out = split(runs, tmp_path / "out", 8, 64 * KIB, 8 * 64 * KIB)
    assert left_out == []
    assert [path.name for path in parts] == [f"checkpoints.tar.{n:02d}-of-07" for n in range(1, 8)]
    assert all(path.stat().st_size <= 64 * KIB for path in parts)
    assert join(tmp_path / "out", tmp_path / "other") == ["large", "middle", "small"]
    for run in runs:
        kept = {name for name in contents(run) if "step-00000011" not in name and name != "best"}
        assert contents(tmp_path / "other" / run.name) == {name: contents(run)[name] for name in kept}


def test_what_does_not_fit_is_left_out_by_name_the_largest_first(runs: list[Path], tmp_path: Path) -> None:
    parts, left_out = split(runs, tmp_path / "out", 3, 64 * KIB, 2**30)
    assert left_out == ["large (0.3 MiB)"]
    assert len(parts) == 3
    assert join(tmp_path / "out", tmp_path / "other") == ["middle", "small"]
    parts, left_out = split(runs, tmp_path / "out", 8, 64 * KIB, 60 * KIB)
    assert left_out == ["middle (0.1 MiB)", "large (0.3 MiB)"]
    assert sorted((tmp_path / "out").iterdir()) == parts, "parts of the call before are gone"
    assert split(runs, tmp_path / "out", 0, 64 * KIB, 2**30)[0] == sorted((tmp_path / "out").iterdir()) == []
    assert join(tmp_path / "out", tmp_path / "nothing") == []


def test_a_missing_part_is_named(runs: list[Path], tmp_path: Path) -> None:
    for gone in (0, 3, 6):
        parts, _ = split(runs, tmp_path / "out", 8, 64 * KIB, 2**30)
        parts[gone].unlink()
        with pytest.raises(InputError, match=f"{parts[gone].name} is missing"):
            join(tmp_path / "out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_that_is_there_stays_and_one_without_a_checkpoint_is_nothing(runs: list[Path], tmp_path: Path) -> None:
    (runs[0] / "last").unlink()
    _, left_out = split(runs, tmp_path / "out", 8, 64 * KIB, 2**30)
    assert left_out == []
    write_run(tmp_path / "other" / "small", b"newer")
    before = contents(tmp_path / "other" / "small")
    assert join(tmp_path / "out", tmp_path / "other") == ["middle"]
    assert contents(tmp_path / "other" / "small") == before
