"""On Ray: the same records as without, each image once whatever is killed, and nothing left behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import tyro
import yaml

import botformer
from botformer import cli
from botformer.commands import predict as command
from botformer.create import create_classification_task
from botformer.errors import InputError
from botformer.predict import ray_engine
from botformer.predict.bulk import predict_files
from botformer.predict.prediction_log import (
    PARQUET,
    RAY_CHECKPOINT,
    UNFINISHED,
    PredictionLog,
    check_unfinished,
    committed,
)
from botformer.predict.prediction_records import BulkOptions, began_with
from botformer.recipes.schema import ClassificationRecipe, Images, Model
from tests.predict.test_bulk import Stop, lines, png, write_tar

ROOT = Path(__file__).parents[2]
NO_DRAWINGS = BulkOptions(draw=0)
JSON_FILES = ("predictions.jsonl", "predictions.json", "images.json")


@pytest.fixture
def one_thread():
    """As each actor has: sums are taken in the same order then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_files(folder: Path) -> list[Path]:
    """Ten images, one of them broken and one that is not there, and a tar with two images of one name, damaged at its
    end."""
    folder.mkdir()
    files = [folder / f"ö {number:02}.png" for number in range(10)]
    for number, file in enumerate(files):
        file.write_bytes(png(number, (40 + number, 30))[: 50 if number == 4 else None])
    files[8].unlink()
    shard = write_tar(folder / "shard-0001.tar", {f"{n}.png": png(90 + n) for n in range(3)})
    twice = write_tar(folder / "twice.tar", {"a.png": png(90)}).read_bytes()[: 512 + -(-len(png(90)) // 512) * 512]
    shard.write_bytes(twice + twice + shard.read_bytes()[:1000])
    return [*files[:6], shard, *files[6:]]


def stop(*arguments):
    raise Stop


@pytest.mark.slow
def test_the_records_are_those_of_the_plain_engine(classifier, detector, tmp_path, one_thread, monkeypatch):
    files = write_files(tmp_path / "data")
    with ray_engine.ray_on(None) as ray:
        for network, images in ((classifier, files), (detector, files[3:8])):
            make = partial(botformer.predictor, network, batch_size=1)
            plain, on_ray = tmp_path / f"{network.stem} plain", tmp_path / f"{network.stem} on ray"
            expected = predict_files(make(device="cpu"), images, plain, NO_DRAWINGS)
            if network == classifier:  # a run that ends while the JSON files are made has nothing to predict again
                monkeypatch.setattr(ray_engine, "write_json_files", stop)
                with pytest.raises(Stop):
                    ray_engine.predict_on_ray(make, images, on_ray, NO_DRAWINGS, device="cpu")
                monkeypatch.undo()
            seen = []
            summary = ray_engine.predict_on_ray(
                make, images, on_ray, NO_DRAWINGS, device="cpu", on_progress=seen.append
            )
            assert (summary.images, summary.unreadable, summary.earlier) == (
                expected.images, expected.unreadable, expected.images if network == classifier else 0,
            )  # fmt: skip
            assert (summary.first, summary.first_unreadable) == (expected.first, expected.first_unreadable)
            assert seen == sorted(seen)
            assert seen[-1] == 1
            records, ours = lines(plain), lines(on_ray)
            assert [each["id"] for each in ours] == list(range(1, len(records) + 1))
            assert ours == records
            for name in JSON_FILES:
                assert (on_ray / name).read_bytes() == (plain / name).read_bytes()
            assert {file.name for file in on_ray.iterdir()} == {*JSON_FILES, PARQUET}
            rows = pq.read_table(on_ray / PARQUET).to_pylist()
            assert len({row["path"] for row in rows}) == len(rows) == len(records)
            assert {(row["path"], row["error"]) for row in rows if row["error"]} == {
                (record["file_name"], record["error"]) for record in records if "error" in record
            }
        assert sum("error" in record for record in lines(tmp_path / f"{classifier.stem} on ray")) == 3
        masks = [each["segmentation"] for row in rows for each in row["detections"] or ()]
        assert len(masks) > 10
        assert all(isinstance(mask["counts"], str) for mask in masks)
        # Of a plan that its checkpoint does not fit Ray says nothing, and does all again.
        (tmp_path / RAY_CHECKPOINT).mkdir()
        pq.write_table(pa.table({"path": ["a"]}), tmp_path / RAY_CHECKPOINT / "a.parquet")
        with ray_engine.checkpointed(tmp_path):
            rows = ray.data.from_arrow(pa.table({"path": ["a", "b"]}))
            with pytest.raises(InputError, match="does not leave out what is predicted already"):
                rows.write_parquet(str(tmp_path / PARQUET))
        assert not list(tmp_path.glob(f"{PARQUET}/*"))


def descendants(pid: int) -> dict[int, str]:
    """Process -> its command line."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                titles[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found, known = {}, {pid}
    while more := {child for child, parent in parents.items() if parent in known} - known:
        known |= more
        found |= {child: titles[child] for child in more}
    return found


def _title(pid: int) -> str:
    """Of a process of Ray that lives."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0 ")
    except OSError:
        return ""
    return title if "ray" in title else ""


def wait_for(condition, process=None, seconds=400.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, "it ended"
        time.sleep(0.005)
    return value


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_processes_cost_what_was_not_written_and_no_more(tmp_path, capsys):
    torch.manual_seed(0)
    recipe = ClassificationRecipe(model=Model("botnet_nano", zero_gamma=False), images=Images(size=160))
    task = create_classification_task(recipe, ["cat", "dog"]).eval()
    botformer.save(task.model, task.model_config(), tmp_path / "network.safetensors")
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.png").write_bytes(png(number))
    arguments = ["predict", str(folder), "--checkpoint", str(tmp_path / "network.safetensors"), "--out", str(out),
                 "--engine", "ray", "--device", "cpu", "--batch-size", "2"]  # fmt: skip

    started: list[subprocess.Popen] = []
    ours: set[int] = set()

    def start():
        started.append(subprocess.Popen(
            [sys.executable, "-m", "botformer.cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ))  # fmt: skip
        return started[-1]

    try:
        # The command itself is killed.
        first = start()
        wait_for(lambda: len(list(committed(out))) >= 2, first)
        ours |= descendants(first.pid).keys()
        assert len(ours) > 3
        first.kill()
        first.communicate()
        # Ray's two agents follow half a minute later.
        wait_for(lambda: not [pid for pid in ours if _title(pid) and not _title(pid).endswith("Agent")], seconds=60)
        written = {file: file.stat().st_mtime_ns for file in committed(out)}
        before = sum(pq.read_metadata(file).num_rows for file in written)
        assert 0 < before < 200
        assert not (out / "predictions.json").exists()

        # Other options do not touch it.
        for others, message in (
            ([*arguments, "--max-megapixels", "7"], "began with another max_megapixels"),
            ([arguments[0], str(folder / "000.png"), *arguments[2:]], "began with another images"),
            ([*arguments, "--engine", "plain"], "began with another engine ray, now plain"),
        ):
            assert cli.main(others) == 2
            assert message in " ".join(capsys.readouterr().err.split())

        # One actor is killed.
        second = start()
        actor = wait_for(
            lambda: [pid for pid, title in descendants(second.pid).items() if "PredictRows" in title], second
        )[0]
        os.kill(actor, signal.SIGKILL)
        ours |= descendants(second.pid).keys()
        printed, _ = second.communicate(timeout=400)
        assert second.returncode == 0, printed
        assert f"{before} images were predicted before this run was stopped" in printed
        wait_for(lambda: not any(map(_title, ours)), seconds=90)
    finally:
        for process in started:
            ours |= descendants(process.pid).keys()
            process.kill()
        for pid in ours:
            if _title(pid):
                os.kill(pid, signal.SIGKILL)
    rows = {file: pq.read_table(file)["path"].to_pylist() for file in (out / PARQUET).glob("*.parquet")}
    assert sum(map(len, rows.values())) == len({path for paths in rows.values() for path in paths}) == 200
    kept = [paths for file, paths in rows.items() if any(file.name.startswith(each.stem) for each in written)]
    assert sum(map(len, kept)) == before
    assert [each["file_name"] for each in lines(out)] == [f"{folder.as_posix()}/{n:03}.png" for n in range(200)]
    assert not (out / RAY_CHECKPOINT).exists()
    assert not (out / UNFINISHED).exists()
    assert len(printed.splitlines()) < 200  # a table of a hundred images, and no wall of Ray's


def test_options_that_do_not_fit_are_refused_before_anything_starts(classifier, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(png(1))
    call = ["predict", str(tmp_path / "a.png"), "--checkpoint", str(classifier), "--out", str(tmp_path / "out")]
    for options, message in (
        (["--engine", "ray", "--draw", "3"], "--engine ray draws nothing; leave --draw out"),
        (["--engine", "ray", "--query", "0.5", "0.5"], "--query is for drawings, and --engine ray draws nothing"),
        (["--engine", "ray", "--attention", "--detection", "1"], "--attention is for drawings"),
        (["--engine", "ray", "--device", "mps"], "use --device cpu"),
        (["--ray-address", "auto"], "give --engine ray too"),
        (["--engine", "ray", "--ray-address", "ray://head:10001"], "ray job submit"),
    ):
        assert cli.main([*call, *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_without_ray_the_command_says_how_to_get_it(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").write_bytes(png(1))
    call = ["predict", str(tmp_path / "a.png"), "--checkpoint", str(classifier), "--out", str(tmp_path / "out")]
    assert cli.main([*call, "--engine", "ray"]) == 2
    assert "pip install 'botformer[ray]'" in capsys.readouterr().err
    assert cli.main(call) == 0


def test_ray_is_imported_by_its_engine_alone():
    modules = "botformer, botformer.predict.ray_engine, botformer.commands.predict"
    code = f"import sys, {modules}; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_on_ray_that_wrote_nothing_is_begun_anew_with_other_options(classifier, tmp_path):
    predictor = botformer.predictor(classifier)
    PredictionLog(tmp_path, began_with(predictor, NO_DRAWINGS, "ray")).close()
    (tmp_path / RAY_CHECKPOINT).mkdir()
    (tmp_path / RAY_CHECKPOINT / "a.pending.parquet").touch()
    (tmp_path / PARQUET).mkdir()
    assert not check_unfinished(tmp_path, began_with(predictor, NO_DRAWINGS, "plain"))
    (tmp_path / RAY_CHECKPOINT / "a.parquet").touch()
    with pytest.raises(InputError, match="another engine ray, now plain"):
        PredictionLog(tmp_path, began_with(predictor, NO_DRAWINGS, "plain"))
    (tmp_path / UNFINISHED).unlink()
    PredictionLog(tmp_path, began_with(predictor, NO_DRAWINGS, "plain")).close()
    assert not (tmp_path / PARQUET).exists()
    assert not (tmp_path / RAY_CHECKPOINT).exists()


def test_the_job_for_kubernetes_is_one_that_kuberay_knows_with_a_command_that_can_be_parsed():
    job = yaml.safe_load((ROOT / "launch" / "kuberay-predict.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    # Fields of RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec in KubeRay's API.
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert spec.keys() == {
        "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"
    }  # fmt: skip
    assert cluster.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert head.keys() == {"rayStartParams", "template"}
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert all(isinstance(value, str) for value in head["rayStartParams"].values())
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "IMAGE"
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "CLAIM"}}]
    program, verb, *arguments = shlex.split(spec["entrypoint"])
    given = tyro.cli(command.Arguments, args=arguments)
    command._check(given)
    assert (program, verb, given.engine, given.ray_address) == ("botformer", "predict", "ray", "auto")
    assert all(Path("/shared") in Path(path).parents for path in (*given.images, given.checkpoint, given.out))
