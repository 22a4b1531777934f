"""What becomes of a run when its process is stopped, killed, fails, or finds the disk full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from omni_mlflow.events import key_in
from omni_mlflow.stages import STAGES
from omni_mlflow.tracking.launchers import PROJECTOR
from tests.conftest import PROJECT, TRIVIAL, Place
from tests.mlflow_server import Server

SLOWLY = ("--set", "training.steps=200,training.pause_s=0.1")
VOLATILE = ("journal.jsonl", ".stat.json", ".look", "projector.log", "seal_ledger.jsonl")
"""Names that hold clocks or run ids; everything else of a workspace is the same after any interruption."""


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """A shell starts background jobs deaf to SIGINT, and their children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(place, *options):
    """Start training, and return once it has done a few steps."""
    process = subprocess.Popen(
        place.arguments("train", *options),
        env=place.environment,
        cwd=place.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(place, process)
    return process


def start_with_mlflow_run(place, settings=SLOWLY[1]):
    """The same through ``mlflow run``, in a process group of its own as in a terminal."""
    given = {
        "workspace": place.workspace,
        "backbone": "trivial",
        "contract": TRIVIAL / "trivial.yaml",
        "profile": "none",
        "data_root": place.data_root,
        "set": settings,
    }
    parameters = [part for key, value in given.items() for part in ("-P", f"{key}={value}")]
    command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "-e", "train", "--env-manager", "local"]
    path = os.pathsep.join([str(Path(sys.executable).parent), place.environment["PATH"]])
    process = subprocess.Popen(
        [*command, "--experiment-name", "omni-mlflow", *parameters],
        env={**place.environment, "PATH": path},
        cwd=place.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_steps(place, process)
    return process


def wait_for_steps(place, process, *, count=7, timeout_s=120):
    """Wait for the start, five steps, their checkpoint, and one step that is not in it."""
    folder = place.workspace / "trivial/train"
    progress = folder / "progress.jsonl"
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        superseded = not (folder / "seal.json").exists()  # the copied, finished training has one
        if superseded and progress.is_file() and len(progress.read_bytes().splitlines()) > count:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("training did not start")


def stage_processes(place):
    """Processes of this workspace that are still alive."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in listed if str(place.workspace) in line and " Z" not in line[:20]]


def gone(place, *, timeout_s=60):
    """Wait until no process of the workspace is left; the projector needs a moment to tell the store."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not stage_processes(place):
            return True
        time.sleep(0.2)
    return False


def train_run(place):
    return [run for run in place.runs() if run.data.tags.get("omni.stage") == "train"][-1]


class End(NamedTuple):
    """How a training ends: in the tracker, for the shell, and in its folder."""

    status: str
    outcome: str
    exit_code: int
    reason: str
    also_left: tuple[str, ...] = ()


STOPPED = {  # after Ctrl-C `mlflow run` itself writes FAILED; after SIGTERM and SIGKILL it writes nothing
    ("plain", signal.SIGINT): End("KILLED", "killed", 130, "stopped by Ctrl-C (SIGINT)"),
    ("plain", signal.SIGTERM): End("KILLED", "killed", 143, "stopped by SIGTERM"),
    ("plain", signal.SIGHUP): End("KILLED", "killed", 129, "stopped by SIGHUP"),
    ("plain", signal.SIGKILL): End("KILLED", "killed", -9, "died without ending this run"),
    ("mlflow run", signal.SIGINT): End("FAILED", "killed", 1, "stopped by SIGTERM"),
    ("mlflow run", signal.SIGTERM): End("KILLED", "killed", -15, "stopped by SIGTERM"),
    ("mlflow run", signal.SIGKILL): End("KILLED", "killed", -9, "stopped by SIGTERM"),
}
RAISED = End("FAILED", "failed", 1, "told to fail at step 9", also_left=("failure.txt",))
FULL = End("FAILED", "failed", 1, "No space left on device")


def launched(place, how, settings=SLOWLY[1]):
    return start(place, "--set", settings) if how == "plain" else start_with_mlflow_run(place, settings)


def assert_ended(place, process, end):
    """Wait for the end, and compare all that it leaves with ``end``."""
    _, told = process.communicate(timeout=120)
    assert process.returncode == end.exit_code, told
    assert gone(place), stage_processes(place)
    run = train_run(place)
    assert (run.info.status, run.data.tags["omni.outcome"]) == (end.status, end.outcome)
    assert end.reason in run.data.tags["mlflow.note.content"]
    folder = place.workspace / "trivial/train"
    rows = ("journal.jsonl", "progress.jsonl", "training_ledger.jsonl")
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == {*rows, "resume/state.json", "resume_points.json", *end.also_left}
    assert all((folder / name).read_bytes().endswith(b"\n") for name in rows), "no row is torn"
    return told


@pytest.mark.slow
@pytest.mark.parametrize(("how", "number"), STOPPED)
def test_a_stopped_stage_is_killed_with_its_reason_and_nothing_is_left_running(place, how, number):
    process = launched(place, how)
    process.send_signal(number)
    assert_ended(place, process, STOPPED[how, number])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "mlflow run"])
def test_a_scheduler_s_sigterm_to_every_process_is_the_reason_in_the_store_at_once(place, how):
    """As of `scancel` or `systemctl stop`; it may well reach the projector first."""
    process = launched(place, how)
    for line in sorted(stage_processes(place), key=lambda line: PROJECTOR not in line):
        os.kill(int(line.split()[0]), signal.SIGTERM)
    assert_ended(place, process, STOPPED[how, signal.SIGTERM])


@pytest.mark.slow
@pytest.mark.parametrize("gap_s", [0, 0.002, 0.05])
def test_an_impatient_ctrl_c_does_not_tear_the_end_of_the_run(place, gap_s):
    process = launched(place, "plain")
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(gap_s)
    assert_ended(place, process, STOPPED["plain", signal.SIGINT])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "mlflow run"])
def test_a_failing_stage_is_failed_with_its_reason_and_keeps_its_traceback(place, how):
    told = assert_ended(place, launched(place, how, "training.fails_at=9,training.pause_s=0.1"), RAISED)
    assert RAISED.reason in told
    assert "RuntimeError" in (place.workspace / "trivial/train/failure.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "mlflow run"])
def test_a_disk_that_fills_while_training_is_a_failed_run_that_goes_on_once_there_is_room(
    place, tmp_path, small_disk, how
):
    settings = "training.steps=60,training.pause_s=0.1"
    undisturbed = place.copy(tmp_path / "undisturbed")
    assert undisturbed.run("train", "--set", settings).returncode == 0
    shutil.move(place.workspace, small_disk / "workspace")
    place.workspace.symlink_to(small_disk / "workspace")
    process = launched(place, how, settings)
    filler = small_disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False)
    assert FULL.reason in assert_ended(place, process, FULL)
    filler.unlink()
    resumed = place.run("train", "--set", settings)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(place) == contents(undisturbed)
    for key in ("train/loss", "time/step_s"):
        assert history(place, train_run(place), key) == list(range(1, 61))


@dataclass(frozen=True)
class ServedPlace(Place):
    """The same workspace with a server as its store, and MLflow's own client told not to wait for minutes."""

    address: str = ""

    @property
    def store(self) -> str:
        return self.address

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_killed_under_mlflow_run_costs_its_status_and_seconds_and_no_work(place, server):
    """`mlflow run` asks the server itself at its end, and fails over that: the stage has finished."""
    served = ServedPlace(place.root, place.data_root, server.address)
    process = start_with_mlflow_run(served, "training.steps=60,training.pause_s=0.1")
    wait_for_shown_steps(served, process)
    server.kill()
    _, told = process.communicate(timeout=120)
    ended_s = time.time()
    assert process.returncode == 1
    assert "MlflowException" in told
    assert "the work is done and sealed, whatever mlflow run says now" in told
    assert gone(served), stage_processes(served)
    seal = place.workspace / "trivial/train/seal.json"
    assert ended_s - seal.stat().st_mtime < 60, "not MLflow's own four minutes"
    server.start()
    assert train_run(served).info.status == "RUNNING", "nobody could tell the server"
    synced = served.run_as_typed("sync", "--workspace", str(place.workspace))
    assert synced.returncode == 0, synced.stdout
    run = train_run(served)
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("FINISHED", "ok")
    assert run.data.tags["mlflow.project.entryPoint"] == "train"
    for key in ("train/loss", "time/step_s"):
        assert history(served, run, key) == list(range(1, 61)), "no point is doubled and none is lost"


def wait_for_shown_steps(place, process, *, timeout_s=60):
    """Wait until the store shows a part of the training that goes on."""
    end = time.monotonic() + timeout_s
    while not [
        run
        for run in place.runs()
        if run.data.tags.get("mlflow.project.entryPoint") == "train" and "train/loss" in run.data.metrics
    ]:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the server never showed the training"
        time.sleep(0.2)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
def test_a_power_cut_is_healed_at_the_next_start(place):
    process = start(place, *SLOWLY)
    for line in stage_processes(place):  # the stage and its projector, as when the machine stops
        os.kill(int(line.split()[0]), signal.SIGKILL)
    process.wait(timeout=60)
    healed = subprocess.run(
        [sys.executable, "-m", "omni_mlflow", "heal", "--workspace", str(place.workspace)],
        env=place.environment,
        cwd=place.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert healed.returncode == 0, healed.stderr
    assert "train" in healed.stdout
    run = train_run(place)
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("KILLED", "killed")


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_as_if_undisturbed(place, tmp_path):
    options = ("--set", "training.steps=40,training.pause_s=0.05")
    undisturbed = place.copy(tmp_path / "undisturbed")
    assert undisturbed.run("train", *options).returncode == 0
    process = start(place, *options)
    process.kill()
    process.wait(timeout=60)
    assert gone(place)
    resumed = place.run("train", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(place) == contents(undisturbed)
    run = train_run(place)
    for key in ("train/loss", "time/step_s"):
        assert history(place, run, key) == list(range(1, 41)), "no point is doubled and none is lost"


@pytest.mark.slow
def test_a_workspace_backed_up_while_it_trained_goes_on_without_doubling_a_point(place, tmp_path):
    options = ("--set", "training.steps=200,training.pause_s=0.1")
    process = start(place, *options)
    journal = place.workspace / "trivial/train/journal.jsonl"
    mark = place.workspace / ".projected" / f"{key_in(journal)}.json"
    while not mark.is_file():  # the first rows are shown
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    shutil.copytree(place.workspace, tmp_path / "backup")
    shown = mark.read_bytes()
    wait_for_steps(place, process, count=len(journal.read_bytes().splitlines()) + 30)
    assert mark.read_bytes() != shown
    process.kill()
    process.wait(timeout=60)
    assert gone(place)
    shutil.rmtree(place.workspace)
    (tmp_path / "backup").rename(place.workspace)
    resumed = place.run("train", *options)
    assert resumed.returncode == 0, resumed.stderr
    run = train_run(place)
    for key in ("train/loss", "time/step_s"):
        assert history(place, run, key) == list(range(1, 201)), "no point is doubled and none is lost"


def history(place, run, key):
    import mlflow

    return [point.step for point in mlflow.MlflowClient(place.store).get_metric_history(run.info.run_id, key)]


@pytest.mark.slow
def test_a_full_disk_is_a_failed_run_with_that_reason(place):
    disk = place.root / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        full = place.run("main", "--workspace", str(disk / "workspace"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    assert full.returncode == 1
    assert "No space left" in full.stderr or "no space left" in full.stderr
    ended = place.runs()[-1]
    assert ended.info.status == "FAILED"


def contents(place) -> dict[str, bytes]:
    """Every file that must not depend on when, where or how often the work was interrupted."""
    return {
        path.relative_to(place.workspace).as_posix(): path.read_bytes()
        for path in sorted(place.workspace.rglob("*"))
        if path.is_file()
        and not any(part in ("runs", ".locks", ".projected", "superseded") for part in path.parts)
        and not path.name.startswith(VOLATILE)
    }


def stage_at_work(place) -> str:
    """The stage whose journal was begun and whose outputs are not sealed."""
    begun = (path.parent for path in place.workspace.rglob("journal.jsonl"))
    open_ones = [each.name for each in begun if each.name in STAGES and not (each / "seal.json").exists()]
    assert len(open_ones) <= 1, "main does one stage after the other"
    return open_ones[0] if open_ones else "none"


@pytest.mark.slow
def test_a_main_job_killed_at_twenty_moments_ends_byte_identical(empty, finished):
    begun = time.monotonic()
    assert empty.run("main").returncode == 0
    length_s = time.monotonic() - begun  # of a whole job on this machine, imports and all
    shutil.rmtree(empty.workspace)
    chance = random.Random(5)
    at_work: list[str] = []
    attempts = 0
    while len(at_work) < 20 or len({*at_work} - {"none"}) < 4:
        attempts += 1
        assert attempts < 80, f"too few kills, or of too few stages: {at_work}"
        process = subprocess.Popen(
            empty.arguments("main"),
            env=empty.environment,
            cwd=empty.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=chance.uniform(0.15, 1) * length_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            at_work.append(stage_at_work(empty))
        else:  # it reached its end: begin anew, so that early stages are hit again
            assert process.returncode == 0
            shutil.rmtree(empty.workspace)
    done = empty.run("main")
    assert done.returncode == 0, done.stderr
    assert contents(empty) == contents(finished)
    assert {run.info.status for run in empty.runs()} <= {"FINISHED", "KILLED"}
