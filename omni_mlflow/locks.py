"""Who works where: a lock file is held by one process, or by many that only read, and dies with them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from omni_mlflow.spine.processes import Process, is_alive, this_process
from omni_mlflow.spine.types import Row


class JournalBusyError(Exception):
    """Another process is at work on the same."""


class Holder(Row):
    """Who holds a lock, and since when by the clock of that machine."""

    process: Process
    since: str


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; the kernel frees it when the process dies, however it dies.

    While it is held, the file says by whom.

    Raises:
        JournalBusyError: another process holds it.
    """
    with _lock_file(path) as file:
        _lock(file, fcntl.LOCK_EX, path)
        holder = Holder(process=this_process(), since=time.strftime("%Y-%m-%d %H:%M:%S"))
        os.ftruncate(file, 0)  # of one that was killed
        with suppress(OSError):  # a full disk
            os.pwrite(file, holder.model_dump_json().encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` together with other readers, so that nobody holds it exclusively.

    Raises:
        JournalBusyError: a process is at work there.
    """
    with _lock_file(path) as file:
        _lock(file, fcntl.LOCK_SH, path)
        yield


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` as :func:`exclusive` does, after waiting for whoever holds it."""
    with _lock_file(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(file: int, kind: int, path: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        at_work = _at_work(path.parent) or [f"another process ({path} is locked)"]
        raise JournalBusyError(
            f"the workspace {path.parent.parent.resolve()} is in use by {' and '.join(at_work)}; "
            "what it does goes on untouched: wait for it to end, stop it, or give this one a --workspace of "
            "its own"
        ) from error


def _at_work(locks: Path) -> list[str]:
    """Name the processes that hold locks of a folder, each once; a reader has a lock of its own work, too."""
    holders: dict[Process, list[tuple[str, str]]] = {}
    for lock in locks.iterdir():
        with suppress(OSError, ValidationError):  # nobody holds it, or nobody says so
            holder = Holder.model_validate_json(lock.read_bytes())
            if is_alive(holder.process) is not False:
                holders.setdefault(holder.process, []).append((holder.since, lock.name))
    return [
        f"process {process.pid} of {process.host}, at work since {min(held)[0]} "
        f"({', '.join(name for _, name in sorted(held))})"
        for process, held in holders.items()
    ]


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield file
    finally:
        os.close(file)
