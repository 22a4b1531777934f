"""Where independent tasks run: on processes of this machine, or on a Dask cluster.

A cluster is whatever Dask's own launchers started (SSH, SLURM, Kubernetes, by hand). Its workers see the
same folders under the same names as this machine, and hold the same packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from omni_mlflow.loaded_code import LOADED
from omni_mlflow.spine.processes import ResultT, TaskT, each_in_a_process

CONNECT_TIMEOUT_S = 20
LOOK_EVERY_S = 15
SAME_BYTES = ("av", "h5py", "numpy")
"""Packages whose version shapes the bytes that a task writes."""


class _Killed:
    """What a task came to whose workers died, as many as the scheduler's "allowed-failures" says."""


class ClusterError(Exception):
    """The cluster cannot be used, or went away."""


def each_task(
    work: Callable[[TaskT], ResultT],
    tasks: Iterable[TaskT],
    *,
    workers: int,
    cluster: str | None,
    code: Callable[[], str],
    died: Callable[[TaskT], ResultT],
    say: Callable[[str], None],
) -> Iterator[tuple[TaskT, ResultT]]:
    """Yield every task with its result as it is finished, in no particular order.

    Args:
        workers: local processes, where there is no ``cluster``.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``.
        code: names the code behind ``work``; every worker of a cluster must give the same answer.
        died: what to answer for a task whose worker died, again and again.
        say: told once when a cluster has lost its last worker.

    Raises:
        ClusterError: saying what to start or install.
    """
    if cluster is None:
        return each_in_a_process(work, tasks, workers=workers, died=died)
    return _each_on_a_cluster(work, tasks, address=cluster, code=code, died=died, say=say)


def _each_on_a_cluster(
    work: Callable[[TaskT], ResultT],
    tasks: Iterable[TaskT],
    *,
    address: str,
    code: Callable[[], str],
    died: Callable[[TaskT], ResultT],
    say: Callable[[str], None],
) -> Iterator[tuple[TaskT, ResultT]]:
    """A task whose worker dies is given to another one, so ``work`` may see a task twice, even at once."""
    with _client(address) as client:
        _check_code(client, address, code)
        watch = _Watch(client, address, say)
        try:
            suspects = []
            for task, result in _settled(client, work, tasks, watch):
                if isinstance(result, _Killed):
                    suspects.append(task)
                else:
                    yield task, result
            for suspect in suspects:  # alone, since a task dies with the one its worker began before it
                for task, result in _settled(client, work, [suspect], watch):
                    yield (task, died(task)) if isinstance(result, _Killed) else (task, result)
        except CancelledError as error:
            raise ClusterError(
                f"the scheduler at {address} went away; what was finished stays, so start it again and run "
                "the same command"
            ) from error


class _Watch:
    """Sees whether anybody works on our tasks; other programs may keep the same workers busy."""

    def __init__(self, client: Any, address: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._address = address
        self._say = say
        self._deserted = False

    def is_deserted(self, num_open: int) -> bool:
        """Whether no worker is left; a person is told once, until one comes back."""
        deserted = not self._client.nthreads()
        if deserted and not self._deserted:
            self._say(
                f"no worker of {self._address} is left, and {num_open} tasks wait for one; start it with "
                f"'dask worker {self._address} --nthreads 1', or stop this command: what is finished stays"
            )
        self._deserted = deserted
        return deserted

    def is_worked_on(self, futures: Iterable[Any]) -> bool:
        at_work = {key for keys in self._client.processing().values() for key in keys}
        return any(future.key in at_work for future in futures)


def _settled(
    client: Any, work: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], watch: _Watch
) -> Iterator[tuple[TaskT, ResultT | _Killed]]:
    """Yield every task with its result, or with the fact that it killed its workers.

    Results are fetched one by one: of several fetched at once from a worker that has just died, Dask does the
    tasks again and may never tell its client. Where no worker is at any of them at two looks in a row, what
    is still open is handed out anew.
    """
    pending = {client.submit(work, task, pure=False): task for task in tasks}
    idle_before = False
    while pending:
        num_open = len(pending)
        for future in _done(client, list(pending)):
            if settled := _fetched(future):
                yield pending.pop(future), *settled
        stuck = len(pending) == num_open and not watch.is_deserted(num_open)
        idle = stuck and not watch.is_worked_on(pending)
        if idle and idle_before:
            pending = {client.submit(work, task, pure=False): task for task in pending.values()}
        idle_before = idle and not idle_before


def _done(client: Any, futures: list[Any]) -> list[Any]:
    """Wait for some futures; none of them when nothing happens for a while."""
    from distributed import wait

    try:
        with client.as_current():
            return list(wait(futures, timeout=LOOK_EVERY_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _fetched(future: Any) -> tuple[Any] | None:
    """Return what a task came to; None when it went with a worker.

    Raises:
        Exception: of the task.
    """
    from distributed import KilledWorker

    try:
        return (future.result(timeout=LOOK_EVERY_S),)
    except KilledWorker:
        return (_Killed(),)
    except TimeoutError:
        if future.status == "error":  # the task's own
            raise
        return None


@contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            "--cluster needs Dask, which is not installed; run pip install -e '.[cluster]' in this project, "
            "here and on every worker"
        ) from error
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({error}); start one with 'dask scheduler' and give "
            "the address it prints, such as tcp://host:8786"
        ) from error
    with client:
        _check_workers(client, address)
        yield client


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {address} has no worker; start some with 'dask worker {address} --nthreads 1'"
        ) from error
    try:
        client.get_versions(check=True, packages=list(SAME_BYTES))
    except ValueError as error:
        raise ClusterError(
            f"the workers of {address} hold other packages than this machine; install requirements.lock and "
            f"'.[cluster]' on all of them: {error}"
        ) from error


def _held(code: Callable[[], str]) -> str:
    """Name the code of a worker, which imports no other from now on."""
    LOADED.hold()
    return code()


def _check_code(client: Any, address: str, code: Callable[[], str]) -> None:
    here = code()
    try:
        others = sorted(worker for worker, there in client.run(_held, code).items() if there != here)
    except ImportError as error:
        raise ClusterError(
            f"the workers of {address} lack this project ({error}); install this checkout on all of them"
        ) from error
    if others:
        raise ClusterError(
            f"workers of {address} run other code than this machine, first {others[0]}; "
            "install this checkout on all of them and start them again"
        )
