import json
import os
import pickletools
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from botformer.errors import InputError
from botformer.training import checkpoint as checkpoint_module
from botformer.training.checkpoint import (
    BEST,
    LAST,
    Checkpoints,
    State,
    checkpoint_folder,
    is_intact,
    load_model_tensors,
    model_tensors,
    older_checkpoints,
    read_state,
    read_tensors,
    write_checkpoint,
)
from tests.training.toy import toy_task


def state(step: int, best_step: int = 0) -> State:
    return State(
        step=step,
        metrics={"accuracy": step / 100, "ap": None},
        metrics_step=step,
        best_step=best_step,
        best_value=None,
        sets=["model", "optimizer"],
        recipe={"run": {"seed": 0}},
        versions={"torch": torch.__version__},
        model_config={"classes": ["Käfer", "猫"]},
    )


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    kernel = torch.full((4, 3, 3, 3), float(step)).to(memory_format=torch.channels_last)
    return {"model": {"kernel": kernel, "count": torch.tensor(step)}, "optimizer": {"0.momentum_buffer": kernel[0]}}


def saved(out: Path, *steps: int, keep: int = 10, best: int = 0) -> Checkpoints:
    checkpoints = Checkpoints(out, keep, None)
    for step in steps:
        checkpoints.save(state(step, best_step=min(best, step)), tensors(step))
    return checkpoints


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert folder == tmp_path / "checkpoints" / "step-00000007"
    found = read_state(folder)
    assert found.sha256.keys() == {"model", "optimizer"}
    assert replace(found, sha256={}) == state(7)
    back = read_tensors(folder, read_state(folder))
    for name, content in tensors(7).items():
        assert back[name].keys() == content.keys()
        for key, tensor in content.items():
            assert torch.equal(back[name][key], tensor)


def test_tied_weights_are_saved_twice_rather_than_refused(tmp_path: Path) -> None:
    shared = torch.randn(3)
    sets = {"model": {"a": shared, "b": shared}, "optimizer": {"0.x": shared}}
    write_checkpoint(tmp_path / "step-00000001", state(1), sets)
    folder = tmp_path / "step-00000001"
    assert torch.equal(read_tensors(folder, read_state(folder))["model"]["b"], shared)


def test_last_k_and_the_best_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, 5, keep=2, best=2)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    assert checkpoint_folder(tmp_path, LAST) == tmp_path / "checkpoints" / "step-00000005"
    assert checkpoint_folder(tmp_path, BEST) == tmp_path / "checkpoints" / "step-00000002"


def test_crash_while_writing_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)

    def crash(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_state", crash)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save(state(2), tensors(2))
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert read_state(folder).step == 1
    assert names(tmp_path) == ["step-00000001"]
    Checkpoints(tmp_path, 2, read_state(folder)).save(state(2), tensors(2))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / ".step-00000002.0123abcd.partial").mkdir()
    (tmp_path / ".last.0123abcd.partial").touch()
    (tmp_path / ".mine.partial").touch()
    Checkpoints(tmp_path, 2, state(1))
    assert names(tmp_path) == ["step-00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.partial", "checkpoints", "last"]


def test_others_may_read_a_checkpoint_where_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved(tmp_path, 1)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "checkpoints").rglob("*")}
    assert modes == {
        "step-00000001": 0o750,
        "model.safetensors": 0o640,
        "optimizer.safetensors": 0o640,
        "state.json": 0o640,
    }


def test_complete_folder_that_no_pointer_had_reached_is_written_again(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    write_checkpoint(tmp_path / "checkpoints" / "step-00000002", state(2), tensors(99))
    Checkpoints(tmp_path, 2, state(1)).save(state(2), tensors(2))
    folder = tmp_path / "checkpoints" / "step-00000002"
    back = read_tensors(folder, read_state(folder))
    assert back["model"]["count"] == 2


def test_first_checkpoint_counts_also_when_a_kill_came_before_its_pointer(tmp_path: Path) -> None:
    assert checkpoint_folder(tmp_path) is None
    write_checkpoint(tmp_path / "checkpoints" / "step-00000002", state(2), tensors(2))
    assert checkpoint_folder(tmp_path, BEST) is None
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    Checkpoints(tmp_path, 2, read_state(folder))
    assert (tmp_path / LAST).read_text() == "step-00000002\n"


def test_resuming_mends_a_best_pointer_that_had_not_moved(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, best=1)
    Checkpoints(tmp_path, 2, state(2, best_step=2))
    assert checkpoint_folder(tmp_path, BEST) == tmp_path / "checkpoints" / "step-00000002"


def test_saving_where_it_was_resumed_only_adds_what_is_known(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    later = state(1)
    later.metrics = {"accuracy": 0.9}
    Checkpoints(tmp_path, 2, state(1)).save(later, tensors(1))
    assert read_state(tmp_path / "checkpoints" / "step-00000001").metrics == {"accuracy": 0.9}


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for path in (tmp_path / "checkpoints" / "step-00000001").iterdir():
        assert path.suffix in (".json", ".safetensors")
        with pytest.raises(ValueError):  # noqa: PT011  # whatever pickletools says, it is no pickle
            list(pickletools.genops(path.read_bytes()))


def break_file(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one byte short":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(b"\x80\x04 not what it should be" * 20)


@pytest.mark.parametrize("how", ["missing", "empty", "half", "one byte short", "foreign"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_broken_tensor_file_is_named(tmp_path: Path, file: str, how: str) -> None:
    saved(tmp_path, 1, 2)
    folder = tmp_path / "checkpoints" / "step-00000002"
    break_file(folder / file, how)
    with pytest.raises(InputError, match=rf"{file} is (missing|damaged)"):
        read_tensors(folder, read_state(folder))
    assert "step-00000001 (later ones are removed): --resume previous" in older_checkpoints(tmp_path, than=folder)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_one_flipped_bit_anywhere_is_recognised(tmp_path: Path, file: str) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    content = (folder / file).read_bytes()
    for place in range(0, len(content), 7):
        (folder / file).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        same = file == "state.json" and _same_json(content, (folder / file).read_bytes())
        assert is_intact(folder) is same, place
    (folder / file).write_bytes(content)
    assert is_intact(folder)


def _same_json(one: bytes, other: bytes) -> bool:
    """A changed space may leave the content as it is."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_checkpoints_of_older_versions_have_no_checksums_and_are_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-00000001"
    content = json.loads((folder / "state.json").read_text())
    for newer in ("state_sha256", "sha256", "data", "processes"):
        del content[newer]
    (folder / "state.json").write_text(json.dumps(content))
    assert torch.equal(read_tensors(folder, read_state(folder))["model"]["count"], torch.tensor(1))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])
    assert not is_intact(folder)


def test_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "abcdef":
        saved(tmp_path / name, 3)
    files = ["model.safetensors", "optimizer.safetensors", "state.json"]
    for file in files:
        assert len({(tmp_path / n / "checkpoints/step-00000003" / file).read_bytes() for n in "abcdef"}) == 1, file


@pytest.mark.parametrize("how", ["missing", "empty", "half", "foreign"])
def test_broken_state_is_named(tmp_path: Path, how: str) -> None:
    saved(tmp_path, 1)
    break_file(tmp_path / "checkpoints" / "step-00000001" / "state.json", how)
    with pytest.raises(InputError, match=r"state\.json"):
        read_state(tmp_path / "checkpoints" / "step-00000001")


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": 1}'])
def test_json_that_is_no_state_is_refused(tmp_path: Path, content: str) -> None:
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").write_text(content)
    with pytest.raises(InputError, match="not a checkpoint's state"):
        read_state(tmp_path / "checkpoints" / "step-00000001")


def test_tensors_of_another_step_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    one, two = (tmp_path / "checkpoints" / f"step-0000000{step}" for step in (1, 2))
    (two / "optimizer.safetensors").write_bytes((one / "optimizer.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"optimizer\.safetensors is damaged: it has another checksum"):
        read_tensors(two, read_state(two))


@pytest.mark.parametrize("content", ["step-00000009", "../../elsewhere", "", "\x00\x01", "checkpoints/step-00000001"])
def test_pointer_to_nothing_says_what_can_be_resumed(tmp_path: Path, content: str) -> None:
    saved(tmp_path, 1)
    (tmp_path / LAST).write_text(content)
    with pytest.raises(InputError, match=r"not there\. To continue from .* step-00000001 "):
        checkpoint_folder(tmp_path)


def test_state_is_json_that_people_can_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    text = (tmp_path / "checkpoints" / "step-00000001" / "state.json").read_text(encoding="utf-8")
    assert json.loads(text)["model_config"] == {"classes": ["Käfer", "猫"]}
    assert "猫" in text


def test_names_of_a_compiled_model_are_plain_and_load_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(toy_task(seed=1).model)
    plain = toy_task(seed=2).model
    assert isinstance(compiled, torch.nn.Module)
    assert model_tensors(compiled).keys() == plain.state_dict().keys() != compiled.state_dict().keys()
    load_model_tensors(compiled, plain.state_dict())
    for name, tensor in model_tensors(compiled).items():
        assert torch.equal(tensor, plain.state_dict()[name])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", True), ("step", "4"), ("step", 4.0), ("step", 10**30), ("best_step", -1), ("best_step", None),
        ("best_value", "high"), ("best_value", 10**400), ("best_value", [1]),
        ("metrics", []), ("metrics", {"top1": "x"}), ("metrics_step", 1e9),
        ("sets", "model"), ("sets", [["model"]]), ("sets", ["../../model"]), ("sets", ["model"] * 10**5),
        ("recipe", 3), ("versions", {"torch": 2}), ("model_config", "botnet50"), ("model_config", None),
    ],
)  # fmt: skip
def test_a_state_of_wrong_types_or_sizes_is_named(tmp_path, field, value):
    folder = tmp_path / "step-00000004"
    folder.mkdir()
    good = {
        "step": 4, "metrics": {"top1": 0.5, "loss": None}, "metrics_step": 4, "best_step": 4, "best_value": 0.5,
        "sets": ["model", "optimizer"], "recipe": {}, "versions": {"torch": "2"}, "model_config": {},
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(good))
    assert read_state(folder).step == 4
    (folder / "state.json").write_text(json.dumps(good | {field: value}))
    with pytest.raises(InputError, match=rf"state\.json: {field} is .{{1,90}}, expected ") as caught:
        read_state(folder)
    assert len(str(caught.value)) < 500


def read_last(out: Path) -> None:
    folder = checkpoint_folder(out)
    assert folder
    read_tensors(folder, read_state(folder))


@pytest.mark.timeout(20)  # reading a pipe waits for ever
@pytest.mark.parametrize(
    "file", ["last", "checkpoints/step-00000002/state.json", "checkpoints/step-00000002/model.safetensors"]
)
@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_stands_in_place_of_a_file_is_named(tmp_path: Path, file: str, what: str) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file) if what == "pipe" else (tmp_path / file).mkdir()
    with pytest.raises(InputError, match=rf"{Path(file).name}.*is a {what}"):
        read_last(tmp_path)
    intact = "step-00000002" if file == "last" else "step-00000001"
    assert f"{intact} (later ones are removed): --resume previous" in older_checkpoints(tmp_path)


def test_a_state_that_is_nested_too_deep_is_named(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-00000001" / "state.json").write_text('{"step":' + "[" * 10**5)
    with pytest.raises(InputError, match=r"state\.json cannot be read: nested too deep"):
        read_state(tmp_path / "checkpoints" / "step-00000001")
