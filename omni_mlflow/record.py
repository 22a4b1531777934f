"""The writer of a run's journal.

A stage never talks to MLflow. It writes the rows of ``omni_mlflow.events`` to ``journal.jsonl``;
``omni_mlflow.tracking`` projects them, while the stage runs and again whenever the store was away.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from omni_mlflow.events import (
    JOURNAL_NAME,
    Artifact,
    DatasetInput,
    Ended,
    Metrics,
    ModelVersion,
    Params,
    RunOutcome,
    Started,
    Tags,
    Upstream,
    read_events,
    told_torn,
    torn_tags,
)
from omni_mlflow.journal import Journal, TornRow, settle
from omni_mlflow.spine.processes import this_process
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import Row

RESERVED_BYTES = 64 * 1024  # for the row that says how the run ended, on a disk that is full


class RunRecord:
    """Writes one run's journal. Rows are on the disk when a method returns, metrics a little later.

    Attributes:
        shown: the files that the tracker shows or is going to show, by their path there; each relative to
            ``folder``.
        over: this process has said how the run ended.
        torn: what was cut off the journal since a process last entered the run, by this opening or when the
            run was healed: one sentence each, for the terminal.
    """

    def __init__(self, folder: Path, *, reserve: bool = True) -> None:
        """Open (or continue) the journal in ``folder``.

        Args:
            reserve: set room aside for the row that says how the run ended.

        Raises:
            OSError: naming the file for which there is no room.
            JournalBusyError: another process is writing it.
            NewerSchemaError, BadRowError: it holds rows that this version cannot read.
        """
        self.folder = folder
        self._journal = Journal(folder / JOURNAL_NAME)
        self._points: dict[tuple[str, int], float] = {}
        self._results: dict[str, float] = {}
        self.key: str | None = None
        self.over = False
        self.shown: dict[str, str] = {}
        self.torn: list[str] = []
        for event in read_events(self._journal.path):
            self.torn += told_torn(event)
            if isinstance(event, Started):
                self.key = event.key
                self.torn = []
            elif isinstance(event, Metrics):
                self._points.update(_by_point(event.values, event.step))
                self._results.update(event.values)
            elif isinstance(event, Artifact):
                self._note_shown(event)
        self._reserve = reserve_of(folder / JOURNAL_NAME)
        if reserve:
            self._set_aside()
        if self._journal.quarantined is not None:
            self.torn.append(str(self._journal.quarantined))
            if self.key is not None:  # the first row of a journal says whose it is
                self.report_torn(self._journal.quarantined)

    @classmethod
    def new(cls, folder_of: Callable[[str], Path]) -> Self:
        """Begin a run of a few rows that has no folder yet: ``folder_of`` names it by the new run's key."""
        key = uuid.uuid4().hex
        record = cls(folder_of(key), reserve=False)
        record.key = key
        return record

    def started(
        self,
        name: str,
        *,
        parent: str | None,
        mlflow_run_id: str | None,
        mlflow_experiment_id: str | None,
    ) -> str:
        """Record that this process entered the run, and return the run's key."""
        self.key = self.key or uuid.uuid4().hex
        self._append(
            Started(
                at_ms=now_ms(),
                key=self.key,
                name=name,
                parent=parent,
                mlflow_run_id=mlflow_run_id,
                mlflow_experiment_id=mlflow_experiment_id,
                process=this_process(),
            )
        )
        return self.key

    def params(self, values: Mapping[str, Any]) -> None:
        self._append(Params(values={key: str(value) for key, value in values.items()}))

    def tags(self, values: Mapping[str, str]) -> None:
        self._append(Tags(values=dict(values)))

    def report_torn(self, torn: TornRow) -> None:
        """Show in the tracker what was cut off a journal of this run."""
        self._append(torn_tags(torn))

    def upstream(self, keys: Mapping[str, str]) -> None:
        self._append(Upstream(keys=dict(keys)))

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record values at ``step``; a (key, step) that was recorded before a resume is left as it is."""
        new = {key: float(value) for key, value in values.items() if (key, step) not in self._points}
        if new:
            self._journal.note(Metrics(at_ms=now_ms(), step=step, values=new).model_dump(mode="json"))
            self._points.update(_by_point(new, step))

    def curve(self, values: Mapping[str, float], *, step: int) -> None:
        """Record values at ``step``; one that differs from what was recorded there takes its place."""
        recorded = self._points
        new = {
            key: float(value)
            for key, value in values.items()
            if (key, step) not in recorded or repr(recorded[key, step]) != repr(float(value))
        }
        if new:
            row = Metrics(at_ms=now_ms(), step=step, values=new, last_counts=True)
            self._journal.note(row.model_dump(mode="json"))
            recorded.update(_by_point(new, step))

    def results(self, values: Mapping[str, float]) -> None:
        """Record what the stage found; a stage that is repaired replaces what it found before."""
        new = {key: float(value) for key, value in values.items() if self._results.get(key) != float(value)}
        if new:
            self._journal.append(Metrics(at_ms=now_ms(), step=0, values=new).model_dump(mode="json"))
            self._results.update(new)

    def dataset(self, dataset: DatasetInput) -> None:
        self._append(dataset)

    def live_artifact(self, path: Path, *, folder: str = "") -> None:
        """Announce a file that grows while the run is going on."""
        self._show(Artifact(path=self._relative(path), folder=folder, live=True))

    def artifacts(self, paths: Sequence[Path], *, folder: str = "") -> None:
        for path in paths:
            self._show(Artifact(path=self._relative(path), folder=folder, digest=file_digest(path)))

    def model(self, model: ModelVersion) -> None:
        """Ask for a registration; a stage that is entered again asks for the same one only once."""
        asked = (event for event in read_events(self._journal.path) if isinstance(event, ModelVersion))
        if not any(event.checkpoint_digest == model.checkpoint_digest for event in asked):
            self._append(model)

    def ended(
        self, status: Literal["FINISHED", "FAILED", "KILLED"], outcome: RunOutcome, reason: str = ""
    ) -> None:
        """Write the last row. The space for it was set aside, so that a full disk cannot silence a run."""
        self._reserve.unlink(missing_ok=True)
        self._append(Ended(at_ms=now_ms(), status=status, outcome=outcome, reason=reason))
        self.over = True

    def settle(self) -> None:
        """Wait until every point is on the disk: before a checkpoint lets a resume skip their steps."""
        settle(self._journal.path)

    def close(self) -> None:
        self._reserve.unlink(missing_ok=True)
        self._journal.close()

    def _set_aside(self) -> None:
        """A process that found the disk full may have left a reserve that is too short."""
        if self._reserve.is_file() and self._reserve.stat().st_size >= RESERVED_BYTES:
            return
        try:
            self._reserve.write_bytes(bytes(RESERVED_BYTES))
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            self._journal.close()
            raise OSError(error.errno, error.strerror, str(self._reserve)) from error

    def _show(self, artifact: Artifact) -> None:
        self._append(artifact)
        self._note_shown(artifact)

    def _note_shown(self, artifact: Artifact) -> None:
        self.shown[(PurePosixPath(artifact.folder) / Path(artifact.path).name).as_posix()] = artifact.path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _append(self, event: Row) -> None:
        self._journal.append(event.model_dump(mode="json"))


def _by_point(values: Mapping[str, float], step: int) -> dict[tuple[str, int], float]:
    return {(key, step): value for key, value in values.items()}


def reserve_of(journal: Path) -> Path:
    """Return the file that keeps room for the last row of a journal; it goes before that row is written."""
    return journal.with_name(f"{journal.name}.reserve")


def now_ms() -> int:
    return time.time_ns() // 1_000_000
