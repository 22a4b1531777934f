"""What runs are held against each other on: something that every row of predictions adds to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

from omni_mlflow.metrics.answers import PredictionRow, RowScore
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.labels import score_rows
from omni_mlflow.metrics.metric import LABEL_METRICS, Metric
from omni_mlflow.metrics.metrics_file import is_number
from omni_mlflow.metrics.questions import METRIC_OF, ROW_SCORES
from omni_mlflow.metrics.uncertainty import EpisodeEstimate

_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


@dataclass(frozen=True)
class Measure:
    """One metric, row by row.

    Attributes:
        question: the label question that it grades; None where the rows hold its values themselves.
        score: what a row adds; None where a row does not take part.
    """

    metric: str
    question: str | None
    kind: Metric
    score: RowScore

    def estimate(self, rows: Iterable[PredictionRow]) -> EpisodeEstimate:
        """The metric over rows, within the range that it is declared with.

        Raises:
            NothingToScoreError: no row takes part.
        """
        low, high = self.kind.limits
        return replace(score_rows(rows, self.score), low=low, high=high)

    def num_graded(self, rows: Iterable[PredictionRow]) -> int:
        return sum(self.score(row) is not None for row in rows)

    def better_by(self, one: EpisodeEstimate, other: EpisodeEstimate) -> EpisodeEstimate:
        """The paired difference, positive where ``one`` is better."""
        return other - one if self.kind.better == "lower" else one - other


def measure_of_question(question: str) -> Measure:
    metric = METRIC_OF[question]
    return Measure(metric, question, LABEL_METRICS[metric], ROW_SCORES[metric])


def measure_of_form(metric: str) -> Measure:
    """A metric of the form of replies, such as their validity as JSON."""
    return Measure(metric, None, LABEL_METRICS[metric], ROW_SCORES[metric])


def measure_of_column(metric: str, kind: Metric) -> Measure:
    """The mean of the values that rows hold under the name of the metric; null takes no part.

    A row that adds more than one value holds their ``sum`` and how many it is a sum ``of``, each above zero.
    """

    def score(row: PredictionRow) -> tuple[float, float] | None:
        cell = row[metric]
        if not isinstance(cell, Mapping):
            return None if cell is None else (float(cell), 1.0)
        return float(cell["sum"]), float(cell["of"])  # of nothing it weighs nothing, and its episode is there

    return Measure(metric, None, kind, score)


def why_no_column(
    metric: str, kind: Metric, rows: Iterable[PredictionRow], *, reported: float | None
) -> str | None:
    """Say why the rows do not hold the values that a metric is the mean of; None where they do.

    Args:
        reported: the metric as ``metrics.json`` gives it.
    """
    found = list(rows)
    if any(metric not in row for row in found):
        return "no column of its name holds its value for each row of the predictions"
    if not all(_is_cell(row[metric]) for row in found):
        return "the column of its name holds something else than numbers and null"
    measure = measure_of_column(metric, kind)
    if outside := [value for value in _means(measure, found) if not _is_within(kind, value)]:
        low, high = kind.limits
        return f"the column of its name holds {outside[0]:.6g}, and its range is {low:g} to {high:g}"
    try:
        mean = measure.estimate(found).value
    except NothingToScoreError:
        return "the column of its name holds no number"
    if reported is None:
        return "metrics.json gives it no value"
    if not isclose(mean, reported, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE):
        return f"the column of its name has the mean {mean:.6g}, and metrics.json says {reported}"
    return None


def _means(measure: Measure, rows: Iterable[PredictionRow]) -> Iterator[float]:
    scores = (measure.score(row) for row in rows)
    return (top / bottom for top, bottom in filter(None, scores) if bottom)


def _is_within(kind: Metric, value: float) -> bool:
    """Whether a value lies in the metric's range, up to what rounding adds to it."""
    nearest = min(max(value, kind.limits[0]), kind.limits[1])
    return isclose(value, nearest, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _is_cell(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.keys() == {"sum", "of"} and all(is_number(each) for each in value.values())
    return value is None or is_number(value)
