"""Bring journal rows to the store. Projecting the same rows again changes nothing.

Metrics keep the journal's own timestamps, so the store recognises a point that it already has; runs are
found by key before they are made; parameters, tags and files are set, not added; a model version is found
by the digest of its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from omni_mlflow.events import Ended, Event
from omni_mlflow.locks import in_turn
from omni_mlflow.tracking.connection import Store
from omni_mlflow.tracking.delta import fold
from omni_mlflow.tracking.failures import concerns_one_run, explain
from omni_mlflow.tracking.files import RunFiles
from omni_mlflow.tracking.follow import Follower, RunJournal
from omni_mlflow.tracking.older_stores import look_at
from omni_mlflow.tracking.reports import SyncReport
from omni_mlflow.tracking.signs_of_life import Heartbeats
from omni_mlflow.tracking.stored_run import StoredRun
from omni_mlflow.tracking.stored_runs import StoredRuns
from omni_mlflow.tracking.values import RunWriter
from omni_mlflow.tracking.watermark import Watermark, tail_of

_ROWS_AT_ONCE = 2000
"""Rows between two watermarks: what has to be sent again after a failure."""

_NAMED_AT_MOST = 3


class Projection:
    """Projects one workspace to one store.

    Attributes:
        touched: keys of the runs that were changed.
        projected: rows brought over so far.
    """

    def __init__(self, store: Store, follower: Follower) -> None:
        self.touched: set[str] = set()
        self.projected = 0
        self._store = store
        self._follower = follower
        self._runs = StoredRuns(store, follower)
        self._writer = RunWriter(store.client, self._runs)
        self._files = RunFiles(store.client)
        self._heartbeats = Heartbeats(self._writer)
        self._refused: dict[str, str] = {}

    def distrust(self) -> None:
        """Have the runs projected anew that a restored store lacks, or shows as they were before.

        Runs that somebody deleted in the store are noted; they stay deleted.
        """
        with in_turn(self._follower.workspace / ".locks" / "projection"):
            self._follower.read()
            self._look_anew()

    def _look_anew(self) -> None:
        self._runs.forget_all()
        behind, deleted = look_at(self._store, self._follower.runs.values())
        for journal in behind:
            self._follower.project_again(journal)
        for journal, run in deleted:
            self._runs.note_deleted(journal, run)
        self._runs.is_doubtful = False

    def run_pass(self) -> None:
        """Project everything the journals hold now. Another projector's pass is waited for.

        Raises:
            Exception: the store takes no rows; later passes go on where this one stopped.
        """
        with in_turn(self._follower.workspace / ".locks" / "projection"):
            self._follower.read()
            self._refused = {}
            self._project_all()
            if self._runs.is_doubtful:  # the store was put back: runs without new rows may lack some, too
                self._look_anew()
                self._project_all()
            runs = self._by_start()
            # A large file can take minutes, so no row of any run waits for one.
            self._each([run for run in runs if run.key not in self._refused], self._show_live)

    def _project_all(self) -> None:
        self._each(self._by_start(), self._project)

    def _by_start(self) -> list[RunJournal]:
        return sorted(self._follower.runs.values(), key=lambda each: (each.started_ms, each.key))

    def report(self, *, failure: str | None) -> SyncReport:
        """Sum up; ``failure`` is why the last pass was cut short."""
        unreadable = [why for _, why in sorted(self._follower.unreadable.items())]
        reasons = [*([failure] if failure else []), *self._refused.values(), *unreadable]
        return SyncReport(
            projected=self.projected,
            left=rows_left(self._follower),
            runs=len(self.touched),
            unshown=self._runs.num_unshown,
            failure="; ".join(reasons) or None,
            vanished=told_vanished(self._follower),
            notes=tuple(
                _told_copies(self._follower.copies)
                + self._writer.notes()
                + self._files.notes()
                + self._runs.notes()
            ),
        )

    def experiments(self) -> set[str]:
        """Return the experiments in which runs were changed."""
        keys = [self._follower.runs[key] for key in self.touched if key in self._follower.runs]
        return {self._runs.of(journal).experiment_id for journal in keys}

    def _each(self, runs: Sequence[RunJournal], bring: Callable[[RunJournal], None]) -> None:
        """Do so with each run; one that the store refuses is noted and costs no other one."""
        for journal in runs:
            try:
                bring(journal)
            except Exception as error:
                if isinstance(error, FileNotFoundError) and not journal.is_here():
                    continue  # its folder was moved just now; the next pass finds it
                if not concerns_one_run(error):
                    self._runs.forget_all()
                    raise
                self._runs.forget(journal.key)
                self._refused[journal.key] = (
                    f"run {journal.name} ({journal.path}): {explain(error, store=self._store.address)}"
                )

    def _project(self, journal: RunJournal) -> None:
        if journal.mark is not None and journal.mark.store_id != self._store.id:
            self._follower.project_again(journal)
        if journal.pending:
            self._skip_what_others_did(journal)
            if journal.mark is None:
                self._runs.forget(journal.key)  # what the run holds is looked at before its first rows go
            # This may also find that everything must be projected again.
            journal.withheld = self._runs.withholds(journal)
        if journal.withheld:
            return
        while journal.pending:
            self._project_some(journal, journal.pending[:_ROWS_AT_ONCE])
        now_s = time.monotonic()
        if self._heartbeats.is_due(journal, now_s=now_s):
            stored = self._runs.of(journal)
            self._heartbeats.beat(stored, journal, now_s=now_s)
            self._runs.hold_against_mark(stored, journal)

    def _show_live(self, journal: RunJournal) -> None:
        if journal.live and not journal.ended and not journal.withheld:
            self._files.show_live(self._runs.of(journal), journal, now_s=time.monotonic())

    def _skip_what_others_did(self, journal: RunJournal) -> None:
        """Another projector of this workspace may have been faster; what we know of the run is then old."""
        mark = self._follower.marks.read(journal.key)
        if mark is None or mark.store_id != self._store.id or not mark.fits(journal.path):
            return
        if journal.projected_bytes < mark.size <= journal.read_bytes:
            self._runs.forget(journal.key)
            journal.compared = mark.compared
            journal.mark, journal.projected_bytes, journal.projected_rows = mark, mark.size, mark.rows
            journal.pending = [(event, end) for event, end in journal.pending if end > mark.size]

    def _project_some(self, journal: RunJournal, some: Sequence[tuple[Event, int]]) -> None:
        stored = self._runs.of(journal)
        delta = fold([event for event, _ in some])
        mark = self._mark_after(some, stored, journal)
        self._writer.write(stored, journal, delta, told=mark.told)
        self._files.write(stored, journal, delta)
        if isinstance(delta.mark, Ended):
            self._files.show_last(stored, journal)
        self._writer.set_status(stored, journal, delta)
        self.touched.add(journal.key)
        self.projected += len(some)
        journal.projected_rows, journal.projected_bytes = mark.rows, mark.size
        del journal.pending[: len(some)]
        journal.mark = mark
        self._follower.marks.write(mark)

    def _mark_after(
        self, some: Sequence[tuple[Event, int]], stored: StoredRun, journal: RunJournal
    ) -> Watermark:
        size = some[-1][1]
        return Watermark(
            store_id=self._store.id,
            key=journal.key,
            run_id=stored.run_id,
            experiment_id=stored.experiment_id,
            ended=journal.ended and len(some) == len(journal.pending),
            size=size,
            rows=journal.projected_rows + len(some),
            tail=tail_of(journal.path, size),
            compared=journal.compared,
        )


def _told_copies(copies: Mapping[Path, Path]) -> list[str]:
    return [
        f"{copy.parent} is a copy of {original.parent}, so it shows no run of its own; where it lies outside "
        "of the workspace nobody reads it"
        for copy, original in sorted(copies.items())
    ]


def told_vanished(follower: Follower) -> str | None:
    """Say that journals were moved or deleted while they were followed; None when all are there."""
    running_first = sorted(follower.vanished.values(), key=lambda run: (run.ended, run.path))
    if not running_first:
        return None
    named = ", ".join(f"{run.name} ({run.path})" for run in running_first[:_NAMED_AT_MOST])
    more = len(running_first) - _NAMED_AT_MOST
    return (
        f"the workspace {follower.workspace}, or a folder of it, was moved or deleted: no journal is left of "
        f"{named}{f' and {more} more' if more > 0 else ''}, and the tracking store may lack their last rows. "
        "Where the workspace lies now: omni-mlflow sync --workspace THERE"
    )


def rows_left(follower: Follower) -> int:
    """Count the rows that should be shown and are not; a journal that cannot be read counts as one."""
    waiting = (journal for journal in follower.runs.values() if not journal.withheld)
    return sum(len(journal.pending) for journal in waiting) + len(follower.unreadable)


def count_rows_left(workspace: Path, *, store: str) -> int:
    """Count without asking the store: rows beyond the watermarks of ``store`` (without password)."""
    follower = Follower(workspace, store=store)
    follower.read()
    return rows_left(follower)
