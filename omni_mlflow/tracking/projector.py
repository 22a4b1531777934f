"""The projector process: ``python -m omni_mlflow.tracking.projector WORKSPACE --store URI``.

It follows the journals of a workspace and projects them until its standard input says ``finish``, or ends
without a word because the process that started it died: then it first ends the runs of that process as
KILLED. It writes one :class:`SyncReport` as JSON to standard output and exits 0 when everything is projected,
3 when rows are left. SIGINT, SIGHUP and SIGTERM are for the stage alone; only SIGKILL stops a projector.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from omni_mlflow.tracking.connection import Store, connect
from omni_mlflow.tracking.failures import explain
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.healing import heal_journals
from omni_mlflow.tracking.projection import Projection, rows_left, told_vanished
from omni_mlflow.tracking.reports import REPORTS, SyncReport
from omni_mlflow.tracking.store_healing import WATCH_S, StoreHealer
from omni_mlflow.tracking.stores import sqlite_path, without_password
from omni_mlflow.tracking.views import provision_views

FINISH = b"finish\n"
EXIT_ROWS_LEFT = 3

_EVERY_S = 2.0
_LONGEST_PAUSE_S = 15.0
_LAST_PAUSES_S = (0.0, 1.0)  # before each try of the final pass
_NICENESS = 10  # stages have the processor first


class Projector:
    """Connects when it can, projects while it may, and never gives up before it is told to finish."""

    def __init__(self, workspace: Path, *, store: str, project: Path, trusts: bool = True) -> None:
        """``trusts``: what was projected once is taken to be in the store still."""
        self._workspace = workspace
        self._trusts = trusts
        self._uri = store
        self._project = project
        self._follower = Follower(workspace, store=without_password(store))
        self._store: Store | None = None
        self._projection: Projection | None = None
        self._healer: StoreHealer | None = None
        self._look_at_s = 0.0
        self._not_ended: list[str] = []
        self._notes: list[str] = []
        self.failure: str | None = None

    def run_pass(self) -> bool:
        """Project what there is; tell whether the store took it."""
        before = self.failure
        try:
            if self._projection is None or self._store is None:
                self._follower.read()  # connecting takes seconds, in which journals may be moved away
                self._store = connect(self._uri, workspace=self._workspace)
                self._projection = Projection(self._store, self._follower)
            if not self._trusts:
                self._projection.distrust()
                self._trusts = True
            self._projection.run_pass()
            self._heal_store(self._store)
            self.failure = None
        except Exception as error:  # whatever a store, its driver or the network can raise
            self.failure = explain(error, store=self._uri)
        if self.failure != before:
            _log(self.failure or "the tracking store takes rows again")
        return self.failure is None

    def finish(self) -> SyncReport:
        """Make the final pass and say how far it came."""
        for pause_s in _LAST_PAUSES_S:
            time.sleep(pause_s)
            shown = self.run_pass() and rows_left(self._follower) == 0
            if shown and not self._follower.vanished:  # a folder may just be on its way to another name
                break
        if self._projection is None or self._store is None:
            self._follower.read()
            return SyncReport(
                left=rows_left(self._follower),
                failure=self.failure,
                vanished=told_vanished(self._follower),
            )
        if self.failure is None and self._projection.touched:
            for experiment_id in self._projection.experiments():
                self._notes += provision_views(self._store.client, experiment_id)
        report = self._projection.report(failure=self.failure)
        report = replace(report, notes=(*report.notes, *self._notes), not_ended=tuple(self._not_ended))
        if self._healer is None:
            return report
        healed, running = tuple(self._healer.healed), tuple(self._healer.left)
        return replace(report, healed=healed, running=running, foreign=self._healer.foreign)

    def heal_store(self, *, end: Sequence[str]) -> None:
        """Look at the RUNNING runs until each is judged, and end those that a person names."""
        if not self.run_pass() or self._healer is None:
            return
        try:
            self._not_ended = [why for run_id in end if (why := self._healer.end(run_id)) is not None]
            self._look(self._healer)
        except Exception as error:  # whatever a store, its driver or the network can raise
            self.failure = explain(error, store=self._uri)
            return
        while self._healer.watches and self.failure is None:
            time.sleep(1.0)
            self.run_pass()

    def _heal_store(self, store: Store) -> None:
        if self._healer is None:
            shared = sqlite_path(self._uri) is None
            self._healer = StoreHealer(store.client, project=self._project, shared=shared)
        if time.monotonic() >= self._look_at_s:
            self._look(self._healer)

    def _look(self, healer: StoreHealer) -> None:
        entered = {each for run in self._follower.runs.values() for each in run.outer_run_ids}
        now_s = time.monotonic()
        healer.look(entered=entered, now_s=now_s)
        self._look_at_s = now_s + WATCH_S if healer.watches else math.inf


def follow(projector: Projector, workspace: Path, *, parent: int) -> SyncReport:
    """Project until standard input ends, or process ``parent`` does."""
    pause_s = 0.0
    while True:
        word = _word(pause_s, parent=parent)
        if word is not None:
            break
        pause_s = _EVERY_S if projector.run_pass() else min(2 * max(pause_s, _EVERY_S), _LONGEST_PAUSE_S)
    if word != FINISH:
        _await_end(parent)
        for run in heal_journals(workspace):
            _log(f"{run.name}: {run.reason}")
    return projector.finish()


def _word(wait_s: float, *, parent: int) -> bytes | None:
    """Return what standard input says within ``wait_s``: None for nothing, no bytes when it has ended.

    The parent is looked at too: a worker that it forked may hold our input open after its death.
    """
    until = time.monotonic() + wait_s
    while True:
        left = max(0.0, min(1.0, until - time.monotonic()))
        if select.select([sys.stdin], [], [], left)[0]:
            return sys.stdin.buffer.readline()
        if os.getppid() != parent:
            return b""
        if time.monotonic() >= until:
            return None


def _await_end(parent: int) -> None:
    """Give a process that has closed our input a moment to really end."""
    until = time.monotonic() + 5.0
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.05)


def _log(text: str) -> None:
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} projector {os.getpid()}: {text}\n"
    with suppress(OSError):  # a disk that is full ends the log, not the projection
        os.write(sys.stderr.fileno(), line.encode())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni_mlflow.tracking.projector", description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--heal", action="store_true", help="judge every RUNNING run of the store")
    parser.add_argument("--distrust", action="store_true", help="see whether the store has what it was given")
    parser.add_argument("--end", action="append", default=[], metavar="RUN_ID", help="end this run")
    parser.add_argument("--store", default=os.environ.get("MLFLOW_TRACKING_URI"), help="tracking URI")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process whose end ends this one")
    parser.add_argument("--project", type=Path, default=Path(__file__).parents[2], help="root of the project")
    chosen = parser.parse_args(arguments)
    if not chosen.store:
        parser.error("name a store: --store URI, or set MLFLOW_TRACKING_URI")
    os.nice(_NICENESS)
    # A scheduler sends SIGTERM to stage and projector alike, and the stage's last row must still be shown.
    # What ends this process is the end of the one that started it.
    for stopping in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(stopping, signal.SIG_IGN)
    projector = Projector(
        chosen.workspace.resolve(),
        store=chosen.store,
        project=chosen.project,
        trusts=not chosen.distrust,
    )
    if chosen.heal:
        projector.heal_store(end=chosen.end)
    report = follow(projector, chosen.workspace, parent=chosen.parent)
    with suppress(BrokenPipeError):  # who wanted to know has ended
        os.write(sys.stdout.fileno(), REPORTS.dump_json(report) + b"\n")
    if report.complete:
        return 0
    _log(report.sentence)
    return EXIT_ROWS_LEFT


if __name__ == "__main__":
    sys.exit(main())
