"""The rows of a run's journal: what one run says about itself. Tracking turns them into an MLflow run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_serializer

from omni_mlflow.journal import TornRow, read_journal
from omni_mlflow.spine.processes import Process
from omni_mlflow.spine.rows import NewerSchemaError
from omni_mlflow.spine.types import Row

JOURNAL_NAME = "journal.jsonl"
SUPERSEDED = "superseded"
"""The folder for what a rerun replaces."""


class RunOutcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    KILLED = "killed"
    REFUSED = "refused"


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
    """Values at one step. One key has one value per step, also after a resume, unless ``last_counts``.

    Attributes:
        last_counts: of several values at one step the last one is meant, as a training that goes on from an
            earlier state may come to others; otherwise the first one.

    JSON has no number for NaN and infinity; they are written as the texts ``nan``, ``inf``, ``-inf``.
    """

    event: Literal["metrics"] = "metrics"
    at_ms: int
    step: int
    values: dict[str, float]
    last_counts: bool = False

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


_TORN_TAG = "omni.torn."


def torn_tags(torn: TornRow) -> Tags:
    """Return the tag that shows in the tracker what was cut off a journal of the run and where it is kept."""
    return Tags(values={f"{_TORN_TAG}{torn.journal.name}": str(torn)})


def told_torn(event: Event) -> list[str]:
    """Return what a row says about an unfinished row of the run's own journal: one sentence, or none."""
    tag = f"{_TORN_TAG}{JOURNAL_NAME}"
    return [event.values[tag]] if isinstance(event, Tags) and tag in event.values else []


def parse_event(row: Mapping[str, Any]) -> Event:
    """Read one row of a journal.

    Raises:
        NewerSchemaError: the row is of a kind that this version does not know; the caller names the file.
    """
    try:
        return _EVENTS.validate_python(row)
    except ValidationError as error:
        raise NewerSchemaError(
            f"holds a row {row.get('event')!r} that this omni-mlflow cannot read; undo what was edited "
            "there, install the version that wrote it, or use another workspace"
        ) from error


def run_journals(workspace: Path) -> list[Path]:
    """Return the journals of a workspace: of stages, shared or per backbone, and of runs of their own."""
    places = ("*", "*/*", f"*/{SUPERSEDED}/*")
    found = (path for place in places for path in workspace.glob(f"{place}/{JOURNAL_NAME}"))
    hidden = (".making", ".leaving")  # a folder on its way from one disk to another is there twice
    return sorted(path for path in found if path.parent.suffix not in hidden)


def copies_of(journals: Mapping[Path, str | None]) -> dict[Path, Path]:
    """Return the journals that are copies of another one, each with that one.

    People copy a stage's folder before they run it again. Both journals bear one run's key, and the run went
    on in the longer one; of equals it is one that was not set aside, and the first by name.

    Args:
        journals: the run's key by journal, None where it is not known yet.
    """
    by_key: dict[str, list[Path]] = {}
    for path, key in journals.items():
        if key is not None:
            by_key.setdefault(key, []).append(path)
    found: dict[Path, Path] = {}
    for paths in by_key.values():
        original, *copies = sorted(
            paths, key=lambda path: (-path.stat().st_size, SUPERSEDED in path.parts, path)
        )
        found |= dict.fromkeys(copies, original)
    return found


def key_in(journal: Path) -> str | None:
    """Return the run key of a journal's first row; None while it has no finished row.

    Raises:
        NewerSchemaError, BadRowError: the row cannot be read.
    """
    for row in read_journal(journal):
        event = parse_event(row)
        return event.key if isinstance(event, Started) else None
    return None


def read_events(journal: Path) -> list[Event]:
    """Read the finished rows of a run's journal, oldest first.

    Raises:
        NewerSchemaError: naming the journal that a newer version wrote.
        BadRowError: naming the journal that was edited by hand.
    """
    try:
        return [parse_event(row) for row in read_journal(journal)]
    except NewerSchemaError as error:
        raise NewerSchemaError(f"{journal} {error}") from error
