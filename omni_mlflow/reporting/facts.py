"""What a report is told. It looks nothing up itself: no file, no clock, no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.metrics_file import HELD_OUT_EPISODE_COUNT, number_of
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.types import Skip


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flow(_Fact):
    """What went into a stage and what came out. It cannot be built when something got lost."""

    stage: str
    unit: str
    taken: int = Field(ge=0)
    made: int = Field(ge=0)
    skipped: int = Field(ge=0)

    @model_validator(mode="after")
    def _nothing_is_lost(self) -> Self:
        if self.taken != self.made + self.skipped:
            raise ValueError(
                f"{self.stage}: {self.taken} {self.unit} in, but {self.made} out and {self.skipped} skipped"
            )
        return self


class ReportedFile(_Fact):
    """A file beside the report."""

    name: str
    sha256: str
    size_bytes: int = Field(ge=0)
    holds: str


class RunFacts(_Fact):
    """Everything that ``RUN_REPORT.md`` and ``report.html`` say about one evaluation.

    Attributes:
        split_episodes, split_samples: what the split holds out.
        answered_episodes, answered_samples: what of it was answered, as the shared stages counted it.
        questions: the label questions that the contract asks; without one, nothing is said of labels.
        metrics: content of ``metrics.json``.
        kinds: titles, units and directions of the backbone's metrics.
        primary_metrics: names from the contract; they come first in the tables.
        seal_openings: how often targets of these held-out episodes were opened in this workspace, this time
            included.
        overlapping_episodes: how many test episodes share a recording with train or val.
        shortcomings: why this is no held-out result, whatever the episodes are.
        skipped: everything that any stage left out, with its reason.
    """

    evidence: Evidence
    backbone: str
    display_name: str
    base_model: str
    base_revision: str
    checkpoint_digest: str
    split_digest: str
    dataset_digest: str
    contract_digest: str
    train_episodes: int = Field(ge=0)
    split_episodes: int = Field(ge=0)
    split_samples: int = Field(ge=0)
    answered_episodes: int = Field(ge=0)
    answered_samples: int = Field(ge=0)
    questions: tuple[str, ...]
    metrics: Mapping[str, Any]
    kinds: Mapping[str, Metric]
    primary_metrics: tuple[str, ...]
    seal_openings: int = Field(ge=0)
    overlapping_episodes: int = Field(default=0, ge=0)
    shortcomings: tuple[str, ...] = ()
    flows: tuple[Flow, ...] = ()
    skipped: tuple[Skip, ...] = ()
    files: tuple[ReportedFile, ...] = ()

    def value(self, metric: str) -> float | None:
        """A metric's value, wherever in ``metrics.json`` it lies."""
        return number_of(self.metrics, metric)

    def interval(self, metric: str) -> Mapping[str, Any] | None:
        """Its 95 % interval over episodes; None where the backbone gives none."""
        found: Mapping[str, Any] | None = self.section("intervals").get(metric)
        return found

    def kind(self, metric: str) -> Metric:
        return self.kinds.get(metric) or Metric(title=metric.replace("_", " "))

    def title(self, metric: str) -> str:
        return self.kind(metric).full_title

    def section(self, name: str) -> Mapping[str, Any]:
        """A block of ``metrics.json`` such as ``intervals``; empty where it is absent."""
        found: Mapping[str, Any] = self.metrics.get(name) or {}
        return found

    @property
    def reported_metrics(self) -> list[str]:
        """The contract's primary metrics, then by name the others that have an interval or are declared and
        have a value. How many episodes were held out stands where it is told what was evaluated."""
        first = [name for name in self.primary_metrics if name != HELD_OUT_EPISODE_COUNT]
        valued = [name for name in self.kinds if self.value(name) is not None]
        others = {*self.section("intervals"), *valued} - {*first, HELD_OUT_EPISODE_COUNT}
        return [*first, *sorted(others)]

    @property
    def graded_metrics(self) -> list[str]:
        """The metrics with a floor, in the order of the others: those on which the questions' verdicts rest,
        and where nothing is asked all that have a value."""
        judged = {found["metric"] for found in self.section("verdicts").values()}
        return [
            name
            for name in self.reported_metrics
            if self.section("baselines").get(name)
            and (name in judged or (not self.questions and self.value(name) is not None))
        ]

    @property
    def controlled_metrics(self) -> list[str]:
        """The metrics that controls are told of: the graded ones, and where nothing is asked every reported
        one that a control names."""
        named = {name for found in self.section("controls").values() for name in found}
        told = self.graded_metrics if self.questions else self.reported_metrics
        return [name for name in told if name in named]
