"""What one run says about itself, as rows of its journal; tracking turns them into an MLflow run.

A stage never talks to MLflow. It writes these rows to ``journal.jsonl``; ``omni_mlflow.tracking``
projects them, while the stage runs and again whenever the store was away.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, field_serializer

from omni_mlflow.journal import Journal, read_journal
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import Row

JOURNAL_NAME = "journal.jsonl"
RESERVED_BYTES = 64 * 1024  # for the row that says how the run ended, on a disk that is full


class RunOutcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    KILLED = "killed"
    REFUSED = "refused"


class Process(Row):
    """Enough to tell whether the process that wrote a run is still alive, also after a reboot."""

    host: str
    boot_id: str
    pid: int
    start_ticks: int


class Started(Row):
    """A process entered the run; a second row of this kind means that it was resumed.

    Attributes:
        key: identity of the run, given by us before any store knows it.
        parent: key of the pipeline run around it, if any.
        mlflow_run_id: the run that ``mlflow run`` had already created for us, if any.
    """

    event: Literal["started"] = "started"
    at_ms: int
    key: str
    name: str
    parent: str | None = None
    mlflow_run_id: str | None = None
    mlflow_experiment_id: str | None = None
    process: Process


class Params(Row):
    event: Literal["params"] = "params"
    values: dict[str, str]


class Tags(Row):
    event: Literal["tags"] = "tags"
    values: dict[str, str]


class Upstream(Row):
    """Runs whose outputs this run read, by stage; becomes ``omni.upstream.<stage>`` = run id."""

    event: Literal["upstream"] = "upstream"
    keys: dict[str, str]


class Metrics(Row):
    """Values at one step. One key has one value per step, also after a resume.

    JSON has no number for NaN and infinity; they are written as the texts ``nan``, ``inf``, ``-inf``.
    """

    event: Literal["metrics"] = "metrics"
    at_ms: int
    step: int
    values: dict[str, float]

    @field_serializer("values", when_used="json")
    def _name_what_is_no_number(self, values: dict[str, float]) -> dict[str, float | str]:
        return {key: value if math.isfinite(value) else str(value) for key, value in values.items()}


class DatasetInput(Row):
    """A split that the run read.

    Attributes:
        digest: identity of the data, at most 36 characters.
        profile: facts that the MLflow UI shows, one per line.
        columns: name and type of each column of a row.
    """

    event: Literal["dataset"] = "dataset"
    name: str
    context: str
    digest: str
    source: str
    profile: dict[str, Any]
    columns: dict[str, str]


class Artifact(Row):
    """A small file to show in the tracker.

    Attributes:
        path: relative to the folder of the journal.
        folder: artifact folder, ``""`` for the root.
        live: the file grows while the run is going on; show it before it is finished.
        digest: sha256 when it was announced; None while it is live.
    """

    event: Literal["artifact"] = "artifact"
    path: str
    folder: str = ""
    live: bool = False
    digest: str | None = None


class ModelVersion(Row):
    """A request to register a checkpoint; written only after gate and validate passed.

    Attributes:
        checkpoint_digest: identity of the checkpoint: a second request for it makes no second version.
        files: small files that describe the checkpoint, relative to the journal's folder; weights stay
            in the workspace.
        tags: lineage that the version shall carry.
        metrics: headline numbers on the held-out dataset ``dataset_name`` of digest ``dataset_digest``.
    """

    event: Literal["model"] = "model"
    at_ms: int
    registered_name: str
    model_name: str
    alias: str
    checkpoint_digest: str
    files: tuple[str, ...]
    params: dict[str, str]
    tags: dict[str, str]
    description: str
    dataset_name: str
    dataset_digest: str = Field(max_length=36)
    metrics: dict[str, float]


class Ended(Row):
    """The run is over: FINISHED only with sealed outputs."""

    event: Literal["ended"] = "ended"
    at_ms: int
    status: Literal["FINISHED", "FAILED", "KILLED"]
    outcome: RunOutcome
    reason: str = ""


Event = Annotated[
    Started | Params | Tags | Upstream | Metrics | DatasetInput | Artifact | ModelVersion | Ended,
    Field(discriminator="event"),
]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(row: Mapping[str, Any]) -> Event:
    return _EVENTS.validate_python(row)


def run_journals(workspace: Path) -> list[Path]:
    """Return the journals of a workspace: of stages, shared or per backbone, and of runs of their own."""
    return sorted([*workspace.glob(f"*/{JOURNAL_NAME}"), *workspace.glob(f"*/*/{JOURNAL_NAME}")])


def read_events(journal: Path) -> list[Event]:
    """Read the finished rows of a run's journal, oldest first."""
    return [parse_event(row) for row in read_journal(journal)]


class RunRecord:
    """Writes one run's journal. Rows are on the disk when a method returns, metrics a little later."""

    def __init__(self, folder: Path) -> None:
        """Open (or continue) the journal in ``folder``.

        Raises:
            JournalBusyError: another process is writing it.
        """
        self.folder = folder
        self._journal = Journal(folder / JOURNAL_NAME)
        self._reserve = folder / f"{JOURNAL_NAME}.reserve"
        if not self._reserve.exists():
            self._reserve.write_bytes(bytes(RESERVED_BYTES))
        self._points: set[tuple[str, int]] = set()
        self._announced: set[tuple[str, str]] = set()
        self.key: str | None = None
        for event in map(parse_event, self._journal.rows()):
            if isinstance(event, Started):
                self.key = event.key
            elif isinstance(event, Metrics):
                self._points.update((key, event.step) for key in event.values)

    @classmethod
    def new(cls, folder_of: Callable[[str], Path]) -> Self:
        """Begin a run that has no folder yet: ``folder_of`` names it by the new run's key."""
        key = uuid.uuid4().hex
        record = cls(folder_of(key))
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

    def upstream(self, keys: Mapping[str, str]) -> None:
        self._append(Upstream(keys=dict(keys)))

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record values at ``step``; a (key, step) that was recorded before a resume is left as it is."""
        new = {key: float(value) for key, value in values.items() if (key, step) not in self._points}
        if new:
            self._journal.note(Metrics(at_ms=now_ms(), step=step, values=new).model_dump(mode="json"))
            self._points.update((key, step) for key in new)

    def dataset(self, dataset: DatasetInput) -> None:
        self._append(dataset)

    def live_artifact(self, path: Path, *, folder: str = "") -> None:
        """Announce a file that grows while the run is going on."""
        self._append(Artifact(path=self._relative(path), folder=folder, live=True))

    def artifacts(self, paths: Sequence[Path], *, folder: str = "") -> None:
        for path in paths:
            self._append(Artifact(path=self._relative(path), folder=folder, digest=file_digest(path)))

    def model(self, model: ModelVersion) -> None:
        self._append(model)

    def ended(
        self, status: Literal["FINISHED", "FAILED", "KILLED"], outcome: RunOutcome, reason: str = ""
    ) -> None:
        """Write the last row. The space for it was set aside, so that a full disk cannot silence a run."""
        self._reserve.unlink(missing_ok=True)
        self._append(Ended(at_ms=now_ms(), status=status, outcome=outcome, reason=reason))

    def close(self) -> None:
        self._reserve.unlink(missing_ok=True)
        self._journal.close()

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _append(self, event: Row) -> None:
        self._journal.append(event.model_dump(mode="json"))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def this_process() -> Process:
    return Process(
        host=os.uname().nodename,
        boot_id=_boot_id(),
        pid=os.getpid(),
        start_ticks=_start_ticks(os.getpid()) or 0,
    )


def is_alive(process: Process) -> bool | None:
    """Tell whether ``process`` still runs; None when it belongs to another host and nobody can tell."""
    if process.host != os.uname().nodename:
        return None
    return process.boot_id == _boot_id() and _start_ticks(process.pid) == process.start_ticks


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def _start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with its pid, unique until the next boot."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
