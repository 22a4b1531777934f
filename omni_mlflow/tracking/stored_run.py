"""One MLflow run as the store shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mlflow.entities import Run

_RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what MLflow calls a run that nobody named


@dataclass
class StoredRun:
    """A run as the store knows it, kept up to date with what we write.

    Attributes:
        ended_ms: when it ended; 0 while it has not.
        deleted: a person deleted it in the tracker; it stays deleted, and its rows wait.
        held: of each metric that was asked for, the last value at each step.
        seen: of the same metrics, every point: step, time and value.
    """

    run_id: str
    experiment_id: str
    status: str
    ended_ms: int
    deleted: bool
    params: dict[str, str]
    tags: dict[str, str]
    model_outputs: set[str]
    held: dict[str, dict[int, str]] = field(default_factory=dict)
    seen: dict[str, set[tuple[int, int, str]]] = field(default_factory=dict)

    @classmethod
    def read_from(cls, run: Run) -> Self:
        outputs = run.outputs.model_outputs if run.outputs else []
        return cls(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            status=run.info.status,
            ended_ms=run.info.end_time or 0,
            deleted=run.info.lifecycle_stage != "active",
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            model_outputs={output.model_id for output in outputs},
        )

    def take_over(self, run: Run) -> None:
        """Learn what others made of the run's status and tags."""
        self.status, self.tags = run.info.status, dict(run.data.tags)
        self.ended_ms = run.info.end_time or 0

    @property
    def is_unnamed(self) -> bool:
        return bool(_RANDOM_NAME.fullmatch(self.tags.get("mlflow.runName", "")))
