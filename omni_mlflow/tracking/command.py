"""What a command does about tracking: start a projector, let it finish, heal what died."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from pydantic import ValidationError

from omni_mlflow.tracking.healing import heal_journals
from omni_mlflow.tracking.launchers import PROJECTOR
from omni_mlflow.tracking.projection import count_rows_left
from omni_mlflow.tracking.reports import REPORTS, HealReport, SyncReport
from omni_mlflow.tracking.stores import without_password

LOG_NAME = "projector.log"
_PATIENCE_S = 10.0
_LOOK_EVERY_S = 0.5
_SYNC_S = 3600.0
_SYNC_PATIENCE_S = 25.0  # a request gives up after 30 s, and would be tried four times
_RESTART_AFTER_S = 60.0
"""Between two starts of a command's projector, the first time; twice as long each time after that."""


class _TooLongError(Exception):
    """The final pass is not waited for any longer."""


class ProjectorHandle:
    """The projector of one command. It outlives the command only to end the command's runs.

    One that dies alone, of kill -9 or for want of memory, is started again while the command works.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], workspace: Path, *, store: str) -> None:
        self._start = start
        self._process = start()
        self._workspace = workspace
        self._store = store
        self._restarts = 0
        self._finishing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="projector-watcher", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _watch(self) -> None:
        started_s, pause_s = time.monotonic(), _RESTART_AFTER_S
        while not self._finishing.wait(_LOOK_EVERY_S):
            if time.monotonic() - started_s < pause_s or self._process.poll() is None:
                continue
            started_s, pause_s = time.monotonic(), 2 * pause_s
            with suppress(OSError):  # no memory for a process just now: the next time
                successor = self._start()
                self._process.communicate()  # closes its pipes
                self._process = successor
                self._restarts += 1

    def finish(self, timeout_s: float, *, patience_s: float = _PATIENCE_S) -> SyncReport:
        """Wait for the final pass, and return how far it came.

        Close all journals first. Trouble with the store is in the report, never raised.

        Args:
            timeout_s: longest wait for a store that takes rows, however slowly.
            patience_s: longest wait for one answer of the store.
        """
        self._finishing.set()
        self._watcher.join()
        report = self._final_report(timeout_s, patience_s=patience_s)
        if self._restarts == 0:
            return report
        times = "once" if self._restarts == 1 else f"{self._restarts} times"
        note = f"the projector died and was started again {times}, see {self._log}"
        return replace(report, notes=(*report.notes, note))

    def _final_report(self, timeout_s: float, *, patience_s: float) -> SyncReport:
        try:
            out = self._last_words(timeout_s, patience_s=patience_s)
            return REPORTS.validate_json(out.strip().rpartition(b"\n")[2])
        except _TooLongError as error:
            self._process.kill()
            self._process.communicate()
            why = str(error)
        except ValidationError:
            why = f"the projector ended with status {self._process.returncode}; see {self._log}"
        left = count_rows_left(self._workspace, store=without_password(self._store))
        return SyncReport(left=left, failure=why)

    def _last_words(self, timeout_s: float, *, patience_s: float) -> bytes:
        """Tell the projector to finish and return what it says."""
        start = moved = time.monotonic()
        signs = self._signs_of_life()
        word: bytes | None = b"finish\n"
        while True:
            try:
                return self._process.communicate(word, timeout=min(_LOOK_EVERY_S, timeout_s))[0]
            except subprocess.TimeoutExpired:
                word, now = None, time.monotonic()
            before, signs = signs, self._signs_of_life()
            moved = now if signs != before else moved
            if now - moved >= patience_s:
                address = without_password(self._store)
                raise _TooLongError(
                    f"the tracking store {address} has not answered for {patience_s:g} s; check that it works"
                )
            if now - start >= timeout_s:
                raise _TooLongError(f"the projection took longer than {timeout_s:g} s")

    def _signs_of_life(self) -> int | None:
        """A number that stands still only while the projector waits for one answer; None when it has ended.

        It is how often the system switched to and from the process: also importing MLflow and making a
        database move it.
        """
        try:
            return int(sum(psutil.Process(self.pid).num_ctx_switches()))
        except psutil.NoSuchProcess:
            return None

    @property
    def _log(self) -> Path:
        return self._workspace / LOG_NAME


def start_projector(workspace: Path, *, store: str, also: Sequence[str] = ()) -> ProjectorHandle:
    """Start projecting ``workspace`` to ``store``, in a process and a session of its own.

    A terminal's signals do not reach it, and it ignores those of a scheduler. When this process dies, it ends
    the runs that this process left, projects that, and ends. ``also`` are further arguments of it.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    # The address may hold a password, and every user can read a command line.
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
    environment["MLFLOW_TRACKING_URI"] = store
    # The child finds this package also where it runs from a checkout and was never installed.
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", PROJECTOR, str(workspace.resolve()), *also]
    command += ["--parent", str(os.getpid())]  # the last two: whose projector it is

    def start() -> subprocess.Popen[bytes]:
        with (workspace / LOG_NAME).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    return ProjectorHandle(start, workspace, store=store)


def sync(workspace: Path, *, store: str) -> SyncReport:
    """Project everything that is left, also what the store had and has lost, and wait for it."""
    return start_projector(workspace, store=store, also=("--distrust",)).finish(
        _SYNC_S, patience_s=_SYNC_PATIENCE_S
    )


def heal(workspace: Path, *, store: str, end: Sequence[str] = ()) -> HealReport:
    """End the runs whose process died, in the journals of ``workspace`` and in the whole store.

    Args:
        end: ids of runs that a person knows to be dead.
    """
    healed = heal_journals(workspace)
    named = [part for run_id in end for part in ("--end", run_id)]
    projector = start_projector(workspace, store=store, also=("--heal", *named))
    report = projector.finish(_SYNC_S, patience_s=_SYNC_PATIENCE_S)
    return HealReport(
        healed=(*healed, *report.healed),
        running=report.running,
        foreign=report.foreign,
        not_ended=report.not_ended,
        failure=None if report.complete else report.sentence,
    )
