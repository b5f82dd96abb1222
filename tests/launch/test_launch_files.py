"""The files of launch/ agree with one another, with the command and with what clusters take."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from botformer.commands import train
from botformer.recipes import find_experiment

from .colours import ROOT, environment

LAUNCH = ROOT / "launch"
JOBSET = yaml.safe_load((LAUNCH / "kubernetes-jobset.yaml").read_text())
JOB = JOBSET["spec"]["replicatedJobs"][0]
POD = JOB["template"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


def test_one_machine_runs_the_command_in_as_many_processes_as_it_is_told() -> None:
    done = subprocess.run(
        [LAUNCH / "torchrun-one-machine.sh", "--version"],
        env=environment() | {"PROCESSES": "2", "PYTHON": sys.executable}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^botformer \d", done.stdout, re.MULTILINE)) == 2


STAND_INS = {
    "scontrol": """case $1 in show) printf 'one\\ntwo\\n';; *) echo "scontrol $*" >> "$CALLS";; esac""",
    "srun": """[ "$1" = --kill-on-bad-exit=1 ] || exit 9; shift
case $1 in --*) echo "srun $1" >> "$CALLS"; shift;; esac
"$@\"""",
    "scancel": """echo "scancel $*" >> "$CALLS"; kill -TERM "$(cat "$CALLS.pid")\"""",
    "torchrun-machines.sh": """
echo "$RENDEZVOUS $MACHINES $RUN $*"
[ -n "$BATCH" ] || exit 2
trap "exit 143" TERM
echo $$ > "$CALLS.pid"
kill -USR1 "$BATCH"
for _ in $(seq 100); do sleep 0.1; done
""",
}
"""What slurm.sbatch calls: srun runs one task and ends with its status, scancel signals it, and a training."""


def batch(folder: Path, time_is_over: bool, cores: str = "") -> tuple[int, str, str]:
    for name, body in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "[one-two]",
        "SLURM_NNODES": "2",
        "SLURM_SUBMIT_DIR": "/nowhere",
        "SLURM_CPUS_PER_TASK": cores,
    }
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "LAUNCH": str(folder)}
    # The script's own number, which the stand-in of the training sends its signal to.
    script = 'export BATCH=; [ -z "$OVER" ] || BATCH=$$; . "$0" "$@"'
    done = subprocess.run(
        ["bash", "-c", script, str(LAUNCH / "slurm.sbatch"), "train", "digits"],
        env=os.environ | slurm | variables | {"OVER": "yes" if time_is_over else ""},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    calls = folder / "calls"
    return done.returncode, done.stdout, calls.read_text() if calls.exists() else ""


def test_slurm_puts_the_job_back_when_its_time_is_over(tmp_path: Path) -> None:
    status, printed, calls = batch(tmp_path, time_is_over=True)
    assert "one:20007 2 7-0 train digits" in printed
    assert calls.splitlines() == ["scancel --signal=TERM 7", "scontrol requeue 7"]
    assert status == 143


def test_slurm_does_not_repeat_a_job_that_failed_by_itself(tmp_path: Path) -> None:
    assert batch(tmp_path, time_is_over=False)[::2] == (2, "")


def test_slurm_gives_its_task_the_cores_that_were_asked_for(tmp_path: Path) -> None:
    """sbatch's --cpus-per-task does not reach srun by itself."""
    assert batch(tmp_path, time_is_over=False, cores="64")[::2] == (2, "srun --cpus-per-task=64\n")


def test_slurm_is_asked_for_a_signal_and_may_requeue() -> None:
    options = re.findall(r"^#SBATCH --(\S+)", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    assert {"requeue", "open-mode=append"} < set(options)
    assert any(option.startswith("signal=B:USR1@") for option in options)


def test_the_pods_meet_where_jobset_names_machine_0() -> None:
    variables = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}
    name, port = variables["RENDEZVOUS"].rsplit(":", 1)
    set_name = JOBSET["metadata"]["name"]
    assert name == f"{set_name}-{JOB['name']}-0-0.{set_name}", "JOBSET-JOB-0-INDEX, and the subdomain is JOBSET's name"
    assert int(port) == CONTAINER["ports"][0]["containerPort"]
    script = (LAUNCH / "torchrun-machines.sh").read_text()
    for variable in variables:
        assert f"${{{variable}" in script
    job = JOB["template"]["spec"]
    assert job["parallelism"] == job["completions"] == int(variables["MACHINES"].partition(":")[2])


def test_bad_input_is_not_repeated_by_kubernetes() -> None:
    ends = [rule for rule in JOB["template"]["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert [rule["onExitCodes"]["values"] for rule in ends] == [[2]]
    assert ends[0]["onExitCodes"]["containerName"] == CONTAINER["name"]
    assert POD["restartPolicy"] == "Never", "what Kubernetes takes with a podFailurePolicy"
    rule = JOBSET["spec"]["failurePolicy"]["rules"][0]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"]), "JobSet's own pattern"


def test_the_pods_run_a_recipe_on_the_volume_from_the_image() -> None:
    verb, recipe, *arguments = CONTAINER["args"]
    assert verb == "train"
    given = train.parse(find_experiment(recipe), arguments)
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert given.data.startswith(mounts["data"])
    assert str(given.out).startswith(mounts["data"])
    assert mounts["shm"] == "/dev/shm"
    assert {volume["name"] for volume in POD["volumes"]} == set(mounts)
    containerfile = (LAUNCH / "Containerfile").read_text()
    folder = re.search(r"^WORKDIR (\S+)", containerfile, re.MULTILINE)
    assert folder is not None
    assert re.search(r"^COPY launch launch$", containerfile, re.MULTILINE)
    assert CONTAINER["command"] == [f"{folder[1]}/launch/torchrun-machines.sh"]
    user = re.search(r"useradd --uid (\d+) .* (\w+) &&", containerfile)
    assert user is not None
    assert int(user[1]) == POD["securityContext"]["runAsUser"]
    assert f"\nUSER {user[2]}\n" in containerfile


def test_the_image_is_built_from_files_that_exist() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", (LAUNCH / "Containerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name


def test_the_jobset_is_one_by_jobsets_own_types() -> None:
    types = pytest.importorskip("kubeflow_trainer_api.models", reason="kubeflow-trainer-api is not installed")
    known = types.JobsetV1alpha2JobSet.from_dict(JOBSET).to_dict()
    assert unknown(JOBSET, known) == []
    assert unknown({"spec": {"netwrk": 1}}, known) == ["/spec/netwrk"]


def unknown(given: Any, known: Any, at: str = "") -> list[str]:
    """Where `given` says something that the types did not take over."""
    if isinstance(given, dict) and isinstance(known, dict):
        return [where for key, value in given.items() for where in unknown(value, known.get(key), f"{at}/{key}")]
    if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        pairs = enumerate(zip(given, known, strict=True))
        return [where for number, (a, b) in pairs for where in unknown(a, b, f"{at}/{number}")]
    return [] if given == known else [at]
