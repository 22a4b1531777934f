"""Models held against each other on the same held-out anchors, with what chance alone could do.

A *row* of a comparison is one trained model, or several that differ in nothing but their training seed. Every
other row is held against the first one, the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import isfinite
from statistics import fmean, stdev
from typing import Self

import numpy as np

from omni_mlflow.metrics.errors import UnpairedError, or_none
from omni_mlflow.metrics.measures import Measure
from omni_mlflow.metrics.pairing import Pairing
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
        low, high: 95 % interval over episodes; None where there is none.
    """

    row: str
    value: float
    low: float | None
    high: float | None
    seeds: Spread | None


class Contrast(Row):
    """By how much a row is better than the reference on the same anchors.

    Attributes:
        low, high: 95 % interval over episodes; None where there is none.
        p_value: of the sign-flip test over episodes, exact up to 16 of them.
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
        title: as pages call it, with its unit and direction.
        question: the label question that it grades; None where the rows hold its values themselves.
        anchors, episodes: those whose truth is known.
        contrasts: one per row after the first, in order.
    """

    metric: str
    title: str
    unit: str | None
    question: str | None
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


def compare_rows(pairing: Pairing, members: Members, measures: Iterable[Measure]) -> list[ComparedMetric]:
    """Score every row on every measure, and hold each but the first against the first."""
    by_metric = {measure.metric: measure for measure in measures}
    estimates = {name: estimates_of(pairing, members, measure) for name, measure in by_metric.items()}
    contrasts = _contrasts(by_metric, estimates, list(members))
    return [
        ComparedMetric(
            metric=name,
            title=measure.kind.full_title,
            unit=measure.kind.unit,
            question=measure.question,
            anchors=measure.num_graded(next(iter(pairing.rows.values()))),
            episodes=len(next(iter(estimates[name].values())).episodes),
            scores=tuple(_score(row, pairing, names, measure) for row, names in members.items()),
            contrasts=tuple(contrasts[name]),
        )
        for name, measure in by_metric.items()
    ]


def estimates_of(pairing: Pairing, members: Members, measure: Measure) -> dict[str, EpisodeEstimate]:
    """The metric by row of the comparison; all over the same episodes."""
    return {
        row: mean_of([measure.estimate(pairing.rows[name]) for name in names])
        for row, names in members.items()
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
    measures: Mapping[str, Measure],
    estimates: Mapping[str, Mapping[str, EpisodeEstimate]],
    rows: Sequence[str],
) -> dict[str, list[Contrast]]:
    reference, *others = rows
    differences = {
        (metric, row): measures[metric].better_by(found[row], found[reference])
        for metric, found in estimates.items()
        for row in others
    }
    p_values = [sign_flip_p_value(difference) for difference in differences.values()]
    contrasts: dict[str, list[Contrast]] = {metric: [] for metric in estimates}
    for ((metric, row), difference), p_value, adjusted_p in zip(
        differences.items(), p_values, holm(p_values), strict=True
    ):
        low, high = _bounds(difference)
        contrasts[metric].append(
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


def _score(row: str, pairing: Pairing, names: Sequence[str], measure: Measure) -> Score:
    estimates = {name: measure.estimate(pairing.rows[name]) for name in names}
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


def _bounds(estimate: EpisodeEstimate) -> tuple[float | None, float | None]:
    """Nothing where there is one episode, or where identical ones bound what may lie anywhere."""
    found = or_none(interval, estimate)
    if found is None or not (isfinite(found.low) and isfinite(found.high)):
        return None, None
    return _rounded(found.low), _rounded(found.high)


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
