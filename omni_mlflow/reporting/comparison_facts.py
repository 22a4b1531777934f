"""What the pages of a comparison are told: the content of ``comparison.json``."""

from __future__ import annotations

from omni_mlflow.metrics.comparison import ComparedMetric
from omni_mlflow.metrics.power import Power
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.types import SCHEMA_VERSION, Row


class ComparedRun(Row):
    """One evaluation.

    Attributes:
        name: a letter for its row, with a number where the row has several seeds.
        given: the run id, or workspace and backbone.
        key: of the run in the journals.
        unanswered: by reason, how many anchors another run answers and this one does not.
    """

    name: str
    given: str
    key: str
    backbone: str
    checkpoint_digest: str
    dataset_digest: str
    seed: str | None
    evidence: Evidence
    anchors: int
    unanswered: dict[str, int]


class ComparedRow(Row):
    """One trained model, or several that differ in nothing but their training seed.

    Attributes:
        settings: those in which the rows differ, by dotted name.
    """

    name: str
    backbone: str
    settings: dict[str, str]
    runs: tuple[ComparedRun, ...]

    @property
    def title(self) -> str:
        differing = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.name}: {self.backbone}" + "".join(
            f", {part}" for part in (differing, self._mean) if part
        )

    @property
    def _mean(self) -> str:
        runs, seeds = len(self.runs), len({run.seed for run in self.runs})
        if runs == 1:
            return ""
        return f"mean of {runs} seeds" if runs == seeds else f"mean of {runs} runs with {seeds} seeds"


class ComparisonFacts(Row):
    """A whole comparison. It holds no clock: the same runs give the same bytes.

    Attributes:
        evidence: the lowest class of its runs.
        shortcomings: by name of a run, why it is no held-out result.
        rows: the first one is the reference.
        anchors, episodes: those that every run answers.
        not_compared: by question or primary metric, why.
        fewest_episodes: how many a split needs before any verdict but *tied* is possible.
        disagreements: rows of ``disagreements.csv``.
    """

    schema_version: int = SCHEMA_VERSION
    evidence: Evidence
    shortcomings: dict[str, tuple[str, ...]]
    split_digest: str
    rows: tuple[ComparedRow, ...]
    anchors: int
    episodes: int
    metrics: tuple[ComparedMetric, ...]
    not_compared: dict[str, str]
    power: tuple[Power, ...]
    fewest_episodes: int
    disagreements: int


_LOWEST_FIRST = (Evidence.SYNTHETIC, Evidence.SMOKE, Evidence.HELD_OUT)


def lowest(classes: list[Evidence]) -> Evidence:
    """The class of a comparison: it claims no more than the weakest of its runs."""
    return min(classes, key=_LOWEST_FIRST.index)
