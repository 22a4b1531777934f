"""Models held against each other on the same held-out anchors, with what chance alone could do.

A *row* of a comparison is one trained model, or several that differ in nothing but their training seed. Every
other row is held against the first one, the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from statistics import fmean, stdev
from typing import Self

import numpy as np

from omni_mlflow.metrics.errors import UnpairedError, or_none
from omni_mlflow.metrics.labels import score_rows
from omni_mlflow.metrics.pairing import Pairing, num_graded
from omni_mlflow.metrics.questions import METRIC_OF, ROW_SCORES
from omni_mlflow.metrics.uncertainty import EpisodeEstimate, interval, sign_flip_p_value
from omni_mlflow.spine.types import Row

SIGNIFICANCE = 0.05
_DIGITS = 9  # as in metrics.json: the last bits of a limit differ between processors


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    TIED = "tied"


class Spread(Row):
    """How far the training seed alone moves a value.

    Attributes:
        by_run: the value of each run.
        deviation: standard deviation over them (n - 1).
    """

    by_run: dict[str, float]
    deviation: float
    low: float
    high: float


class Score(Row):
    """One row of a comparison on one metric; of several seeds the mean.

    Attributes:
        low, high: 95 % interval over episodes; None with a single episode.
    """

    row: str
    value: float
    low: float | None
    high: float | None
    seeds: Spread | None


class Contrast(Row):
    """By how much a row is better than the reference on the same anchors.

    Attributes:
        low, high: 95 % interval over episodes; None with a single episode.
        p_value: of the exact sign-flip test over episodes.
        adjusted_p: after Holm over every contrast of the comparison.
        verdict: None where the evidence allows no statement about quality.
    """

    row: str
    reference: str
    difference: float
    low: float | None
    high: float | None
    p_value: float
    adjusted_p: float
    verdict: Verdict | None


class ComparedMetric(Row):
    """Every row on one metric.

    Attributes:
        anchors, episodes: those whose truth is known.
        contrasts: one per row after the first, in order.
    """

    metric: str
    question: str
    anchors: int
    episodes: int
    scores: tuple[Score, ...]
    contrasts: tuple[Contrast, ...]

    def without_verdicts(self) -> Self:
        """The same numbers, and nothing said about which row is better."""
        bare = tuple(each.model_copy(update={"verdict": None}) for each in self.contrasts)
        return self.model_copy(update={"contrasts": bare})


Members = Mapping[str, Sequence[str]]
"""By row of a comparison, the names of its runs; the first row is the reference."""


def compare_rows(pairing: Pairing, members: Members, questions: Iterable[str]) -> list[ComparedMetric]:
    """Score every row on every question, and hold each but the first against the first."""
    asked = list(questions)
    estimates = {question: estimates_of(pairing, members, question) for question in asked}
    contrasts = _contrasts(estimates, list(members))
    return [
        ComparedMetric(
            metric=METRIC_OF[question],
            question=question,
            anchors=num_graded(next(iter(pairing.rows.values())), question),
            episodes=len(next(iter(estimates[question].values())).episodes),
            scores=tuple(_score(row, pairing, names, question) for row, names in members.items()),
            contrasts=tuple(contrasts[question]),
        )
        for question in asked
    ]


def estimates_of(pairing: Pairing, members: Members, question: str) -> dict[str, EpisodeEstimate]:
    """The metric of a question by row of the comparison; all over the same episodes."""
    return {
        row: mean_of([_estimate(pairing, name, question) for name in names]) for row, names in members.items()
    }


def mean_of(estimates: Sequence[EpisodeEstimate]) -> EpisodeEstimate:
    """The mean of several models on the same episodes, as one estimate over those episodes.

    Its interval says how sure the mean of just these models is; how far another seed may lie is its
    :class:`Spread`.
    """
    first = estimates[0]
    if any(each.episodes != first.episodes for each in estimates):
        raise UnpairedError("a mean of estimates over different episodes")
    return EpisodeEstimate(
        value=fmean(each.value for each in estimates),
        influence=np.mean([each.influence for each in estimates], axis=0),
        episodes=first.episodes,
        low=first.low,
        high=first.high,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that at most 5 % of comparisons hold a wrong rejection (Holm, Scand. J. Stat. 1979).

    The k-th smallest of m is multiplied by m - k + 1; none comes out below that of a smaller p-value.
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def verdict_of(low: float | None, high: float | None, adjusted_p: float) -> Verdict:
    """Better or worse only where the interval excludes zero and the adjusted test rejects; else tied."""
    if low is None or high is None or adjusted_p > SIGNIFICANCE:
        return Verdict.TIED
    return Verdict.BETTER if low > 0 else Verdict.WORSE if high < 0 else Verdict.TIED


def _contrasts(
    estimates: Mapping[str, Mapping[str, EpisodeEstimate]], rows: Sequence[str]
) -> dict[str, list[Contrast]]:
    reference, *others = rows
    differences = {
        (question, row): found[row] - found[reference]
        for question, found in estimates.items()
        for row in others
    }
    p_values = [sign_flip_p_value(difference) for difference in differences.values()]
    contrasts: dict[str, list[Contrast]] = {question: [] for question in estimates}
    for ((question, row), difference), p_value, adjusted_p in zip(
        differences.items(), p_values, holm(p_values), strict=True
    ):
        low, high = _bounds(difference)
        contrasts[question].append(
            Contrast(
                row=row,
                reference=reference,
                difference=_rounded(difference.value),
                low=low,
                high=high,
                p_value=_rounded(p_value),
                adjusted_p=_rounded(adjusted_p),
                verdict=verdict_of(low, high, adjusted_p),
            )
        )
    return contrasts


def _score(row: str, pairing: Pairing, names: Sequence[str], question: str) -> Score:
    estimates = {name: _estimate(pairing, name, question) for name in names}
    mean = mean_of(list(estimates.values()))
    low, high = _bounds(mean)
    values = {name: _rounded(estimate.value) for name, estimate in estimates.items()}
    return Score(
        row=row,
        value=_rounded(mean.value),
        low=low,
        high=high,
        seeds=Spread(
            by_run=values,
            deviation=_rounded(stdev(values.values())),
            low=min(values.values()),
            high=max(values.values()),
        )
        if len(values) > 1
        else None,
    )


def _estimate(pairing: Pairing, name: str, question: str) -> EpisodeEstimate:
    return score_rows(pairing.rows[name], ROW_SCORES[METRIC_OF[question]])


def _bounds(estimate: EpisodeEstimate) -> tuple[float | None, float | None]:
    found = or_none(interval, estimate)
    return (None, None) if found is None else (_rounded(found.low), _rounded(found.high))


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
