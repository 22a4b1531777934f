"""Work in other processes stops with the process that asked for it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from omni_mlflow.spine.processes import WorkerDiedError, each_in_a_process


def note(number: int, *, folder: Path) -> int:
    (folder / str(number)).touch()
    time.sleep(0.05)
    return number


def test_every_task_comes_back_with_its_result(tmp_path):
    done = dict(each_in_a_process(partial(note, folder=tmp_path), range(4), workers=2))
    assert done == {0: 0, 1: 1, 2: 2, 3: 3}


def note_and_die(number: int, *, folder: Path, deaths: int) -> int:
    """Die at 3, as the kernel ends a process when memory runs out, ``deaths`` times."""
    before = len(list(folder.glob(f"{number}_*")))
    (folder / f"{number}_{before}").touch()
    if number == 3 and before < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_worker_that_is_killed_loses_no_task(tmp_path):
    work = partial(note_and_die, folder=tmp_path, deaths=1)
    assert dict(each_in_a_process(work, range(12), workers=2)) == {n: n for n in range(12)}
    assert len(list(tmp_path.glob("3_*"))) == 2


def test_a_task_that_always_kills_its_worker_is_answered_for_and_the_others_are_done(tmp_path):
    work = partial(note_and_die, folder=tmp_path, deaths=99)
    done = dict(each_in_a_process(work, range(12), workers=2, died=lambda number: -number))
    assert done == {n: -3 if n == 3 else n for n in range(12)}


def test_a_task_that_always_kills_its_worker_is_named_where_nobody_answers_for_it(tmp_path):
    work = partial(note_and_die, folder=tmp_path, deaths=99)
    with pytest.raises(WorkerDiedError, match=r"each process that worked on it died.*: 3$"):
        list(each_in_a_process(work, range(6), workers=2))


def test_an_interruption_leaves_what_was_not_begun_undone(tmp_path):
    def interrupted():
        for number, _ in each_in_a_process(partial(note, folder=tmp_path), range(60), workers=2):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    begun = len(list(tmp_path.iterdir()))
    assert begun < 30
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == begun, "no worker goes on after the interruption"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_worker_whose_parent_died_before_it_asked_ends_at_once():
    worker = (
        "import os, time; from omni_mlflow.spine.processes import die_with_parent\n"
        "die_with_parent(os.getppid() + 1)\n"  # the parent it was started by is another one by now
        "time.sleep(60)\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", worker], check=False, timeout=30).returncode == -signal.SIGKILL
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_stage_whose_mlflow_run_died_before_it_began_ends_at_once(tmp_path):
    """Linux has given it to another process by the time it can ask who its parent is."""
    told, workspace = tmp_path / "told", tmp_path / "workspace"
    stage = [sys.executable, "-m", "omni_mlflow", "select", "--workspace", str(workspace)]
    with told.open("wb") as out:
        mlflow_run = subprocess.Popen(
            ["sh", "-c", '(sleep 0.5; exec "$@") & exit', "sh", *stage],
            env={
                **os.environ,
                "MLFLOW_RUN_ID": "0a1b2c",
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/no.db",
            },
            start_new_session=True,
            stdout=out,
            stderr=out,
        )
        mlflow_run.wait()
    wait_until(lambda: "stopped by SIGTERM" in told.read_text())
    assert not workspace.exists()


def test_a_stage_that_a_living_process_started_runs(tmp_path):
    stage = [sys.executable, "-m", "omni_mlflow", "contracts"]
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", *stage],
        env={**os.environ, "MLFLOW_RUN_ID": "0a1b2c"},
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_stage_whose_mlflow_run_died_before_it_asked_ends_at_once(tmp_path):
    """Between its first import and the one that lets it ask lie seconds."""
    stage = (
        "import os, time, omni_mlflow\n"
        "print('imported', flush=True)\n"
        "while os.getppid() == omni_mlflow.PARENT_PID: time.sleep(0.01)\n"
        "from omni_mlflow.__main__ import main; main()\n"
    )
    command = [sys.executable, "-c", stage, "select", "--workspace", str(tmp_path / "workspace")]
    told = tmp_path / "told"
    with told.open("wb") as out:
        mlflow_run = subprocess.Popen(
            ["sh", "-c", '"$@" & wait', "sh", *command],
            env={
                **os.environ,
                "MLFLOW_RUN_ID": "0a1b2c",
                "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/no.db",
            },
            stdout=out,
            stderr=out,
        )
    wait_until(lambda: "imported" in told.read_text())
    mlflow_run.kill()
    mlflow_run.wait()
    wait_until(lambda: "stopped by SIGTERM" in told.read_text())
    assert not (tmp_path / "workspace").exists()


def wait_until(condition, *, seconds=30.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
