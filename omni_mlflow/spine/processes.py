"""Child processes that never outlive their parent, and who is still alive."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from omni_mlflow.loaded_code import LOADED
from omni_mlflow.spine.types import Row

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Ask Linux to send this process ``signal_number`` when its parent dies; elsewhere do nothing.

    Args:
        parent: pid of the parent when this process began: if it has died since, the signal comes at once.
    """
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_number)


def was_adopted(parent: int) -> bool:
    """Tell whether ``mlflow run`` died before this process could ask who its parent is.

    Neither MLflow nor the ``bash -c`` it starts makes a process group, so who started this process shares
    its group; process 1 or the user's systemd, to which Linux gives an orphan, does not. A process that leads
    its group was started by a shell.
    """
    try:
        adopts = parent == 1 or Path(f"/proc/{parent}/comm").read_text().startswith("systemd")
        return adopts and os.getpgrp() != os.getpid() and os.getpgid(parent) != os.getpgrp()
    except OSError:  # it is gone as well, or this is no Linux
        return False


class WorkerDiedError(Exception):
    """Each process that worked on a task died of it."""


def each_in_a_process(
    work: Callable[[TaskT], ResultT],
    tasks: Iterable[TaskT],
    *,
    workers: int,
    died: Callable[[TaskT], ResultT] | None = None,
) -> Iterator[tuple[TaskT, ResultT]]:
    """Yield every task with its result as it is finished, in no particular order.

    A process that is killed, runs out of memory or crashes takes the other ones along. Then the tasks that
    can have been its are done one by one, each in a process of its own, and the rest goes on as before; so
    ``work`` may see a task twice.

    Processes are spawned, not forked: a forked copy of a process with threads can hang for ever.

    Args:
        died: what to answer for a task that ended its own process, too.

    Raises:
        WorkerDiedError: there is such a task and no ``died``.
    """
    left = dict(enumerate(tasks))
    while left:
        try:
            yield from _in_a_pool(work, left, workers=workers)
        except BrokenProcessPool:
            # Tasks are begun in their order: the ones that were being worked on come first.
            for place in list(islice(left, workers)):
                task = left.pop(place)
                yield task, _alone(work, task, died)


def _in_a_pool(
    work: Callable[[TaskT], ResultT], left: dict[int, TaskT], *, workers: int
) -> Iterator[tuple[TaskT, ResultT]]:
    """Do what is ``left`` and take out of it what is done."""
    context = multiprocessing.get_context("spawn")
    begin = partial(_begin, os.getpid(), *LOADED.held())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin) as pool:
        try:
            places = {pool.submit(_do, pickle.dumps((work, task))): place for place, task in left.items()}
            for future in as_completed(places):
                result = future.result()
                yield left.pop(places[future]), result
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # leaving the block alone would run them all
            raise


def _begin(parent: int, packages: set[str], held: Mapping[Path, str] | None) -> None:
    die_with_parent(parent)
    LOADED.hold_to(packages, held)


def _do(pickled: bytes) -> Any:
    """Do one task, with the code of the parent or not at all.

    Loading it imports what it needs; the pool itself would take an error in that for a crash.
    """
    LOADED.refuse_edited()
    work, task = pickle.loads(pickled)
    result = work(task)
    LOADED.refuse_edited()
    return result


def _alone(work: Callable[[TaskT], ResultT], task: TaskT, died: Callable[[TaskT], ResultT] | None) -> ResultT:
    try:
        ((_, result),) = _in_a_pool(work, {0: task}, workers=1)
    except BrokenProcessPool as error:
        if died is None:
            raise WorkerDiedError(f"{DIED}: {str(task)[:200]}") from error
        return died(task)
    return result


DIED = "each process that worked on it died, out of memory or of a crash in a library"


class Process(Row):
    """Enough to tell whether the process that wrote a run is still alive, also after a reboot.

    Attributes:
        pid_namespace: where ``pid`` means something: containers of one machine do not see each other's.
    """

    host: str
    boot_id: str
    pid: int
    start_ticks: int
    pid_namespace: str = "unknown"


def this_process() -> Process:
    return Process(
        host=os.uname().nodename,
        boot_id=_boot_id(),
        pid=os.getpid(),
        start_ticks=_start_ticks(os.getpid()) or 0,
        pid_namespace=_pid_namespace(),
    )


def is_alive(process: Process) -> bool | None:
    """Tell whether ``process`` still runs; None when it began on another host or in another container."""
    if process.host != os.uname().nodename:
        return None
    if is_of_earlier_boot(process):
        return False
    if process.pid_namespace != _pid_namespace():
        return None
    return _start_ticks(process.pid) == process.start_ticks


def is_of_earlier_boot(process: Process) -> bool:
    """Tell whether this machine, or another one of its name, was started anew since ``process`` began."""
    return process.host == os.uname().nodename and process.boot_id != _boot_id()


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux
        return "unknown"


def _start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with its pid, unique until the next boot."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
