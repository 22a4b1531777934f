"""`index --cluster`: on a real Dask cluster of two processes, one of them killed, the index is the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VOLATILE = ("journal.jsonl", ".stat.json", ".look")
"""Names that hold clocks or run ids."""


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as running:
        yield running.scheduler_address


def files_of(place) -> Mapping[str, bytes]:
    index = place.workspace / "index"
    return {
        path.relative_to(index).as_posix(): path.read_bytes()
        for path in index.rglob("*")
        if path.is_file() and path.name not in VOLATILE
    }


def worker_at_work(index: Path, process: subprocess.Popen[str]) -> int:
    """The process that is just writing a proxy video: its id is part of the file's temporary name."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for unfinished in index.glob("episodes/*/*/.mosaic.mp4.*.tmp"):
            return int(unfinished.name.split(".")[-2])
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    raise AssertionError("no episode was begun")


def test_a_worker_that_is_killed_loses_nothing_and_changes_no_byte(place, cluster):
    alone = files_of(place)
    shutil.rmtree(place.workspace / "index")
    process = subprocess.Popen(
        place.arguments("index", "--cluster", cluster),
        env=place.environment,
        cwd=place.root,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    killed = worker_at_work(place.workspace / "index", process)
    os.kill(killed, signal.SIGKILL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert killed not in (process.pid, os.getpid())
    assert files_of(place) == alone


def test_an_interrupted_index_goes_on_with_the_episodes_that_are_left(place, cluster):
    before = files_of(place)
    index = place.workspace / "index"
    (index / "seal.json").unlink()
    *done, unfinished = sorted(index.glob("episodes/*/*/windows.jsonl"))
    assert len(done) == 5
    unfinished.unlink()
    videos = {path: path.stat().st_mtime_ns for path in index.rglob("mosaic.mp4")}
    finished = place.run("index", "--cluster", cluster)
    assert finished.returncode == 0, finished.stderr
    decoded = [path for path, written in videos.items() if path.stat().st_mtime_ns != written]
    assert decoded == [unfinished.with_name("mosaic.mp4")]
    assert files_of(place) == before
