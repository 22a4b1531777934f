"""A command that is stopped, or that nobody reads, ends with one line and never with a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


def environment(*paths: Path, **more: str) -> dict[str, str]:
    """Output is buffered, as a person has it."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}


def typed(tmp_path: Path, *arguments: str, **streams: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "omni_mlflow", *arguments],
        env=environment(tmp_path, PROJECT),
        cwd=tmp_path,
        text=True,
        **streams,
    )


@pytest.mark.parametrize(
    ("number", "name", "status"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]
)
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path, number, name, status):
    """The import of numpy stands still here, as it does for a second on a cold disk."""
    (tmp_path / "numpy.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = typed(tmp_path, "main", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert told == f"stopped by {name} before anything had begun\n"
    assert process.returncode == status
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("verb", [["--help"], ["contracts", "--json"], ["contracts"]])
def test_a_reader_that_has_left_is_no_traceback(tmp_path, verb):
    reading, writing = os.pipe()
    os.close(reading)
    process = typed(tmp_path, *verb, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")


def closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def closed_terminal() -> int:
    screen, writing = os.openpty()
    os.close(screen)
    return writing


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("unread", [closed_pipe, closed_terminal, full_disk])
def test_work_goes_on_when_whoever_read_its_progress_has_left(tmp_path, unread):
    writing = unread()
    program = (
        "from omni_mlflow.terminal import hold_streams, tell; hold_streams(); "
        "import sys; tell('a'); sys.stderr.write('b'); sys.stderr.flush(); tell('c'); print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(PROJECT),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.parametrize(("outer", "status"), [({}, 1), ({"MLFLOW_RUN_ID": "0a"}, 0)])
def test_a_result_that_nobody_can_take_is_told_and_under_mlflow_run_fails_no_work(tmp_path, outer, status):
    writing = full_disk()
    done = subprocess.run(
        [sys.executable, "-m", "omni_mlflow", "contracts", "--json"],
        env=environment(PROJECT, **outer),
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    told = "stdout took no more of the result (No space left on device); the work itself is done\n"
    assert (done.returncode, done.stderr) == (status, told)


def test_a_terminal_that_knows_no_such_letter_is_told_another_way(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from omni_mlflow.terminal import hold_streams; hold_streams(); print('a\u2026')",
        ],
        env=environment(PROJECT, PYTHONUTF8="0", PYTHONIOENCODING="ascii"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "a\\u2026\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_no_file_takes_the_place_of_a_stream_that_was_closed(tmp_path, closed):
    program = (
        "from omni_mlflow.terminal import hold_streams; hold_streams(); "
        "file = open('data', 'w'); print('result'); import sys; sys.stderr.write('progress'); "
        "file.write(f'{file.fileno() > 2}'); file.close()"
    )
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program],
        env=environment(PROJECT),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, (tmp_path / "data").read_text()) == (0, "True")
    assert done.stdout == ("" if closed.startswith(">") else "result\n")


def test_a_projector_whose_command_has_ended_leaves_no_traceback(tmp_path, blank_store):
    (tmp_path / "mlflow.db").write_bytes(blank_store.read_bytes())
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "omni_mlflow.tracking.projector", str(tmp_path)],
        env=environment(PROJECT, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db"),
        cwd=tmp_path,
        input="finish\n",
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
