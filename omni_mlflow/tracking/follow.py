"""Read journals as they grow: one :class:`RunJournal` per run, whatever folder it is moved to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from omni_mlflow.events import (
    Artifact,
    Ended,
    Event,
    Started,
    copies_of,
    key_in,
    parse_event,
    run_journals,
)
from omni_mlflow.journal import follow_journal, settle
from omni_mlflow.spine.processes import Process
from omni_mlflow.spine.rows import BadRowError, NewerSchemaError
from omni_mlflow.tracking.watermark import Watermark, Watermarks

_State = tuple[int, int, int]
"""Inode, size and time of change of a journal when it was read."""


@dataclass
class RunJournal:
    """One run, as far as its journal was read.

    Attributes:
        home: the last row that says where the run belongs: below a parent, or in a run of ``mlflow run``.
        processes: all that entered the run, the last one last.
        unended: those of them that another one followed, though the journal holds no end of theirs: dead, or
            at work in a copy of the workspace.
        outer_run_ids: every ``MLFLOW_RUN_ID`` that a process entered this run with, and when (ms), oldest
            first.
        live: artifacts that grow, as announced.
        ends_ms: when it ended, each time that it did.
        pending: rows that are not projected, each with the byte after it.
        mark: what an earlier process projected.
        withheld: its run was deleted in the tracker, or belongs to another copy of the workspace: its rows
            wait.
        compared: its run may hold points that the journal has lost: only what the run lacks is sent.
    """

    path: Path
    key: str
    name: str = ""
    started_ms: int = 0
    home: Started | None = None
    processes: list[Process] = field(default_factory=list)
    unended: list[Process] = field(default_factory=list)
    outer_run_ids: dict[str, int] = field(default_factory=dict)
    live: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    ended: bool = False
    ends_ms: set[int] = field(default_factory=set)
    read_bytes: int = 0
    projected_bytes: int = 0
    projected_rows: int = 0
    pending: list[tuple[Event, int]] = field(default_factory=list)
    mark: Watermark | None = None
    withheld: bool = False
    compared: bool = False

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def process(self) -> Process | None:
        """The last one that entered the run."""
        return self.processes[-1] if self.processes else None

    @property
    def enters(self) -> bool:
        """A process entered the run, and the store was not told."""
        return any(isinstance(event, Started) for event, _ in self.pending)

    def is_here(self) -> bool:
        """Tell whether the journal still lies where it was last read: a rerun may have moved it."""
        try:
            return key_in(self.path) == self.key
        except (OSError, BadRowError, NewerSchemaError):
            return False

    def take(self, event: Event, end: int) -> None:
        """Note one more row, and that it is still to be projected unless it was."""
        if isinstance(event, Started):
            if self.process is not None and not self.ended:
                self.unended.append(self.process)
            self.ended = False
            self.processes.append(event.process)
            self.name = event.name
            self.started_ms = self.started_ms or event.at_ms
            if event.mlflow_run_id is not None:
                self.outer_run_ids.pop(event.mlflow_run_id, None)
                self.outer_run_ids[event.mlflow_run_id] = event.at_ms
            if self.home is None or event.parent is not None or event.mlflow_run_id is not None:
                self.home = event
        elif isinstance(event, Ended):
            self.ended = True
            self.ends_ms.add(event.at_ms)
        elif isinstance(event, Artifact) and event.live:
            self.live[event.path, event.folder] = event
        self.read_bytes = end
        if end > self.projected_bytes:
            self.pending.append((event, end))

    def project_again(self) -> None:
        """Forget what was projected: the run has moved to another MLflow run, or its store is new."""
        self.projected_bytes = self.projected_rows = self.read_bytes = 0
        self.mark = self.home = None
        self.started_ms = 0
        self.pending, self.processes, self.unended, self.outer_run_ids, self.live = [], [], [], {}, {}
        for row, end in follow_journal(self.path, start=0):
            self.take(parse_event(row), end)


class Follower:
    """All journals of a workspace.

    Attributes:
        runs: by run key; those whose journal was there at the last :meth:`read`.
        unreadable: journals that hold something else than finished rows: where, and what.
        copies: journals that are copies of another one, with that one; they show nothing.
        vanished: by run key, those that were read once and are nowhere in the workspace any more, unless all
            that they could say was projected before.
        marks: what was projected to the store.
    """

    def __init__(self, workspace: Path, *, store: str) -> None:
        """Follow ``workspace``; the watermarks are those of ``store``, an address without password."""
        self.workspace = workspace
        self.marks = Watermarks(workspace, store=store)
        self.runs: dict[str, RunJournal] = {}
        self.unreadable: dict[Path, str] = {}
        self.copies: dict[Path, Path] = {}
        self.vanished: dict[str, RunJournal] = {}
        self._seen: dict[Path, tuple[_State, str | None]] = {}

    def read(self) -> None:
        """Read what was appended since the last call; folders may have moved meanwhile."""
        self.unreadable = {}
        seen: dict[Path, tuple[_State, str | None]] = {}
        for path in run_journals(self.workspace):
            with self._naming(path):
                stat = path.stat()
                state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                before, key = self._seen.get(path, (None, None))
                if before != state:
                    settle(path)  # the store must never know a row that the journal could still lose
                    key = key_in(path)
                seen[path] = (state, key)
        try:
            self.copies = copies_of({path: key for path, (_, key) in seen.items()})
        except FileNotFoundError:
            return  # moved while we looked; the next call finds it
        for path, (state, key) in seen.items():
            if key is not None and path not in self.copies:
                run = self.runs.get(key)
                if run is None or run.path != path or self._seen.get(path, (None, None))[0] != state:
                    with self._naming(path):
                        self._read_run(path, key, size=state[1])
        self._seen = {path: found for path, found in seen.items() if path not in self.unreadable}
        there = {key for _, key in seen.values()}
        self.vanished |= {key: self.runs.pop(key) for key in self.runs.keys() - there}
        for key, run in list(self.vanished.items()):
            is_done = run.ended and not run.pending
            if is_done or key in there or run.path in self.unreadable:
                del self.vanished[key]

    @contextmanager
    def _naming(self, path: Path) -> Iterator[None]:
        """Note why a journal cannot be read; one that was moved while we looked is found by the next call."""
        try:
            yield
        except FileNotFoundError:
            pass
        except (BadRowError, NewerSchemaError, OSError) as error:
            why = str(error)
            self.unreadable[path] = why if str(path) in why else f"{path}: {why}"

    def project_again(self, journal: RunJournal) -> None:
        """Have all rows of a run projected again, also should this process die before it has done so."""
        self.marks.remove(journal.key)
        journal.project_again()

    def _read_run(self, path: Path, key: str, *, size: int) -> None:
        """Take all new rows of a journal or, where one is damaged, none: the first alone may say RUNNING."""
        run = self.runs.get(key)
        if run is None or size < run.read_bytes or (run.mark is not None and not run.mark.fits(path)):
            run = RunJournal(path, key)  # new, or cut since it was read
        if run.read_bytes == 0:
            mark = self.marks.read(key)
            if mark is not None and mark.fits(path):
                run.mark, run.projected_bytes, run.projected_rows = mark, mark.size, mark.rows
                run.compared = mark.compared
                if mark.ended and mark.size == size:
                    run.ended, run.read_bytes = True, size
        run.path = path
        if not (run.ended and run.read_bytes == size):
            start = 0 if run.home is None else run.read_bytes
            for event, end in [(parse_event(row), end) for row, end in follow_journal(path, start=start)]:
                run.take(event, end)
        self.runs[key] = run
