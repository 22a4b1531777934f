"""Tasks run on a real Dask cluster of two worker processes, and nothing is lost when one of them dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
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
    done = dict(each_task(work, range(8), workers=1, cluster=cluster, code=same, died=lost, say=print))
    assert done == {number: number * number for number in range(8)}
    assert (tmp_path / "3").exists(), "a worker was killed"


@pytest.mark.slow
def test_tasks_that_the_scheduler_loses_with_a_dying_worker_are_handed_out_anew(monkeypatch, tmp_path):
    """Also where another program keeps a worker busy all the while."""
    from distributed import Client, LocalCluster, SchedulerPlugin

    class LosesTasks(SchedulerPlugin):
        """Forgets the unfinished tasks as soon as a worker is gone, and tells no client."""

        def __init__(self) -> None:
            self.lost: list[str] = []

        def remove_worker(self, scheduler, worker, *, stimulus_id, **_):
            ours = [task for task in scheduler.tasks.values() if not task.key.startswith("busy")]
            unfinished = [task for task in ours if task.state != "memory"]
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
        with Client(address, set_as_default=False) as other:
            busy = other.submit(square_after, 1, folder=tmp_path, key="busy")
            done = dict(
                each_task(work, range(8), workers=1, cluster=address, code=same, died=lost, say=print)
            )
            assert not busy.done()
            (tmp_path / "go on").touch()
            assert busy.result() == 1
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
        done = dict(
            each_task(die_at_three, range(6), workers=1, cluster=address, code=same, died=lost, say=print)
        )
    assert done == {0: 0, 1: 1, 2: 4, 3: -3, 4: 16, 5: 25}


def test_a_cluster_that_lost_its_last_worker_is_told_once_and_goes_on_with_the_next(monkeypatch, tmp_path):
    from distributed import LocalCluster

    monkeypatch.setattr("omni_mlflow.spine.executors.LOOK_EVERY_S", 0.1)
    said: list[str] = []
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:

        def start_one_later(line: str) -> None:
            said.append(line)
            (tmp_path / "go on").touch()
            threading.Timer(0.5, cluster.scale, args=[1]).start()  # at several looks nobody is there

        done = each_task(
            partial(square_after, folder=tmp_path),
            range(3),
            workers=1,
            cluster=cluster.scheduler_address,
            code=same,
            died=lost,
            say=start_one_later,
        )
        results = [next(done)]
        cluster.scale(0)
        results += done
    assert dict(results) == {0: 0, 1: 1, 2: 4}
    [line] = said
    assert re.match(r"no worker of \S+ is left, and \d tasks wait for one; start it with 'dask worker ", line)


def square_after(number: int, *, folder: Path) -> int:
    """All but the first wait until they may go on."""
    while number and not (folder / "go on").exists():
        time.sleep(0.01)
    return number * number


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("no such frame")
    return number


def test_an_error_of_a_task_is_raised_here(cluster):
    with pytest.raises(ValueError, match="no such frame"):
        list(each_task(fail_at_two, range(4), workers=1, cluster=cluster, code=same, died=lost, say=print))


def test_workers_that_run_other_code_are_refused_before_any_task(cluster, tmp_path):
    work = partial(square_and_die_once, folder=tmp_path)
    with pytest.raises(ClusterError, match="run other code than this machine"):
        list(each_task(work, [3], workers=1, cluster=cluster, code=own_process, died=lost, say=print))
    assert not list(tmp_path.iterdir())


def test_an_address_where_nobody_answers_is_told_with_what_to_start(monkeypatch):
    monkeypatch.setattr("omni_mlflow.spine.executors.CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"{address}.*start one with 'dask scheduler'"):
        list(each_task(fail_at_two, [1], workers=1, cluster=address, code=same, died=lost, say=print))


def test_something_that_is_no_address_is_told_with_an_example():
    with pytest.raises(ClusterError, match="such as tcp://host:8786"):
        list(
            each_task(
                fail_at_two, [1], workers=1, cluster="gopher://host:70", code=same, died=lost, say=print
            )
        )


def test_a_scheduler_without_workers_is_told_with_what_to_start(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("omni_mlflow.spine.executors.CONNECT_TIMEOUT_S", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as nobody,
        pytest.raises(ClusterError, match=r"has no worker; start some with 'dask worker tcp://"),
    ):
        list(
            each_task(
                fail_at_two, [1], workers=1, cluster=nobody.scheduler_address, code=same, died=lost, say=print
            )
        )


def test_without_dask_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install -e '\.\[cluster\]'"):
        list(
            each_task(fail_at_two, [1], workers=1, cluster="tcp://host:8786", code=same, died=lost, say=print)
        )
