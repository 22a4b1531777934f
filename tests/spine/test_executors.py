"""Tasks run on a real Dask cluster of two worker processes, and nothing is lost when one of them dies."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from omni_mlflow.spine.executors import ClusterError, each_task


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as running:
        yield running.scheduler_address


def same() -> str:
    return "the same code"


def lost(number: int) -> int:
    return -number


def own_process() -> str:
    return str(os.getpid())


def square_and_die_once(number: int, *, folder: Path) -> int:
    """Kill the worker at the first sight of 3, as the kernel does when memory runs out."""
    seen = folder / str(number)
    if number == 3 and not seen.exists():
        seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_task_whose_worker_is_killed_is_done_by_another_one(cluster, tmp_path):
    work = partial(square_and_die_once, folder=tmp_path)
    done = dict(each_task(work, range(8), workers=1, cluster=cluster, code=same, died=lost))
    assert done == {number: number * number for number in range(8)}
    assert (tmp_path / "3").exists(), "a worker was killed"


@pytest.mark.slow
def test_tasks_that_the_scheduler_loses_with_a_dying_worker_are_handed_out_anew(monkeypatch, tmp_path):
    from distributed import LocalCluster, SchedulerPlugin

    class LosesTasks(SchedulerPlugin):
        """Forgets the unfinished tasks as soon as a worker is gone, and tells no client."""

        def __init__(self) -> None:
            self.lost: list[str] = []

        def remove_worker(self, scheduler, worker, *, stimulus_id, **_):
            unfinished = [task for task in scheduler.tasks.values() if task.state != "memory"]
            wanted = [(task.key, client.client_key) for task in unfinished for client in task.who_wants]
            for key, client in [] if self.lost else wanted:
                scheduler.client_releases_keys([key], client=client, stimulus_id=stimulus_id)
                assert key not in scheduler.tasks
            self.lost += [key for key, _ in wanted]

    monkeypatch.setattr("omni_mlflow.spine.executors.LOOK_EVERY_S", 2)
    loses_tasks = LosesTasks()
    work = partial(square_and_die_once, folder=tmp_path)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        cluster.scheduler.add_plugin(loses_tasks)
        address = cluster.scheduler_address
        done = dict(each_task(work, range(8), workers=1, cluster=address, code=same, died=lost))
    assert len(loses_tasks.lost) > 0
    assert done == {number: number * number for number in range(8)}


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_answered_for(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        address = cluster.scheduler_address
        done = dict(each_task(die_at_three, range(6), workers=1, cluster=address, code=same, died=lost))
    assert done == {0: 0, 1: 1, 2: 4, 3: -3, 4: 16, 5: 25}


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("no such frame")
    return number


def test_an_error_of_a_task_is_raised_here(cluster):
    with pytest.raises(ValueError, match="no such frame"):
        list(each_task(fail_at_two, range(4), workers=1, cluster=cluster, code=same, died=lost))


def test_workers_that_run_other_code_are_refused_before_any_task(cluster, tmp_path):
    work = partial(square_and_die_once, folder=tmp_path)
    with pytest.raises(ClusterError, match="run other code than this machine"):
        list(each_task(work, [3], workers=1, cluster=cluster, code=own_process, died=lost))
    assert not list(tmp_path.iterdir())


def test_an_address_where_nobody_answers_is_told_with_what_to_start(monkeypatch):
    monkeypatch.setattr("omni_mlflow.spine.executors.CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"{address}.*start one with 'dask scheduler'"):
        list(each_task(fail_at_two, [1], workers=1, cluster=address, code=same, died=lost))


def test_something_that_is_no_address_is_told_with_an_example():
    with pytest.raises(ClusterError, match="such as tcp://host:8786"):
        list(each_task(fail_at_two, [1], workers=1, cluster="gopher://host:70", code=same, died=lost))


def test_a_scheduler_without_workers_is_told_with_what_to_start(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("omni_mlflow.spine.executors.CONNECT_TIMEOUT_S", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as nobody,
        pytest.raises(ClusterError, match=r"has no worker; start some with 'dask worker tcp://"),
    ):
        list(each_task(fail_at_two, [1], workers=1, cluster=nobody.scheduler_address, code=same, died=lost))


def test_without_dask_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install -e '\.\[cluster\]'"):
        list(each_task(fail_at_two, [1], workers=1, cluster="tcp://host:8786", code=same, died=lost))
