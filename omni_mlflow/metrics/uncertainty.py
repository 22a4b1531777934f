"""How sure a held-out number is, when the windows of one episode resemble each other.

Episodes are the independent units, so everything here works on one number per episode. A metric enters
as an :class:`EpisodeEstimate`: its value and how far each episode pulls it away from that value. With
this form the same two intervals serve means, ratios, F1 scores and paired differences.

The printed interval is the outer hull of a cluster-t and a studentised bootstrap interval: of the
methods tried it keeps closest to 95 % coverage with 8 to 16 episodes (``benchmarks/interval_coverage.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import fsum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError

FloatArray = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 9_999
SEED = 20_260
SMALLEST_RELATIVE_ERROR = 0.1
"""A resample that drew (nearly) the same episode over and over has no spread of its own; its standard
error counts as this share of the observed one. That keeps limits finite; where episode means are
continuous it changes no coverage, where they are all 0 or 1 it takes some of the over-coverage away."""

_NO_SPREAD = 1e-12
_MOST_ENUMERATED = 16
_DRAWN_FLIPS = 65_535
_CHUNK = 1_000


@dataclass(frozen=True)
class EpisodeEstimate:
    """A metric over episodes.

    Attributes:
        episodes: their ids, ascending.
        influence: shape (episodes,), mean zero: episode g moves the value by ``influence[g] / episodes``.
            For a mean over equally long episodes it is the episode's mean minus the value.
        low, high: the range of the metric.
    """

    value: float
    influence: FloatArray
    episodes: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0

    def __sub__(self, other: Self) -> EpisodeEstimate:
        """Return the paired difference.

        Raises:
            UnpairedError: the two were not measured on the same episodes.
        """
        if self.episodes != other.episodes:
            alone = sorted(set(self.episodes) ^ set(other.episodes))
            raise UnpairedError(f"paired difference over different episodes; not in both: {alone[:5]}")
        return EpisodeEstimate(
            value=self.value - other.value,
            influence=self.influence - other.influence,
            episodes=self.episodes,
            low=self.low - other.high,
            high=self.high - other.low,
        )

    @property
    def standard_error(self) -> float:
        """Cluster-robust standard error, with the small-sample factor G / (G - 1).

        Raises:
            NothingToScoreError: there is only one episode.
        """
        count = len(self.episodes)
        if count < 2:
            raise NothingToScoreError("an interval over episodes needs at least two of them")
        return float(np.sqrt(np.square(self.influence).sum() / (count * (count - 1))))

    @property
    def per_episode(self) -> FloatArray:
        """One number per episode whose plain mean is the value."""
        return self.value + self.influence


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    method: str


def ratio_estimate(
    numerators: Sequence[float], denominators: Sequence[float], episodes: Sequence[str]
) -> EpisodeEstimate:
    """Estimate ``sum(numerators) / sum(denominators)``, e.g. an accuracy or a micro-averaged F1.

    All three have one entry per sample; their order does not matter, not even to the last bit.

    Raises:
        NothingToScoreError: the denominators sum to zero.
    """
    order = sorted(range(len(episodes)), key=lambda i: episodes[i])
    names, tops, bottoms = [], [], []
    for name, members in groupby(order, key=lambda i: episodes[i]):
        indices = list(members)
        names.append(name)
        tops.append(fsum(numerators[i] for i in indices))
        bottoms.append(fsum(denominators[i] for i in indices))
    top, bottom = fsum(tops), fsum(bottoms)
    if bottom == 0:
        raise NothingToScoreError("no sample to average over")
    value = top / bottom
    without = [
        (top - tops[g]) / (bottom - bottoms[g]) if bottom > bottoms[g] else value for g in range(len(names))
    ]
    return jackknife_estimate(value, without, names)


def mean_estimate(values: Sequence[float], episodes: Sequence[str]) -> EpisodeEstimate:
    """Estimate the mean over samples. Raises :class:`NothingToScoreError` when there is none."""
    return ratio_estimate(values, [1.0] * len(values), episodes)


def jackknife_estimate(value: float, without: Sequence[float], episodes: Sequence[str]) -> EpisodeEstimate:
    """Estimate any statistic from its values without each episode in turn (Miller, Biometrika 1974).

    With episodes of unequal length this covers better than linearisation; with equal ones they agree.

    Args:
        without: ``without[g]`` is the statistic when ``episodes[g]`` is left out; episodes ascending.
    """
    pulls = (len(episodes) - 1) * (value - np.asarray(without, dtype=float))
    return EpisodeEstimate(value, pulls - pulls.mean(), tuple(episodes))


def interval(estimate: EpisodeEstimate) -> Interval:
    """Return the 95 % interval that reports print.

    Raises:
        NothingToScoreError: there is only one episode.
    """
    if estimate.standard_error < _NO_SPREAD:
        return no_variation_bound(estimate)
    by_t, by_bootstrap = cluster_t(estimate), studentised_bootstrap(estimate)
    return Interval(
        min(by_t.low, by_bootstrap.low),
        max(by_t.high, by_bootstrap.high),
        "cluster_t_and_studentised_bootstrap",
    )


def cluster_t(estimate: EpisodeEstimate) -> Interval:
    """Value ± Student's t with episodes - 1 degrees of freedom times the standard error."""
    from scipy import stats

    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(estimate.episodes) - 1))
    half = quantile * estimate.standard_error
    return _inside(estimate, estimate.value - half, estimate.value + half, "cluster_t")


def studentised_bootstrap(estimate: EpisodeEstimate) -> Interval:
    """Bootstrap-t over episodes (Hall, Annals of Statistics 1988): asymmetric where the data are skewed."""
    count = len(estimate.episodes)
    error = estimate.standard_error
    if error < _NO_SPREAD:
        return Interval(estimate.value, estimate.value, "studentised_bootstrap")
    ratios = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _CHUNK):
        weights = _resamples(count)[start : start + _CHUNK].astype(float)
        means = weights @ estimate.influence / count
        squares = weights @ np.square(estimate.influence) / count - np.square(means)
        errors = np.sqrt(np.maximum(squares, 0.0) / (count - 1))
        ratios[start : start + _CHUNK] = means / np.maximum(errors, SMALLEST_RELATIVE_ERROR * error)
    lower, upper = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = estimate.value - upper * error, estimate.value - lower * error
    return _inside(estimate, float(low), float(high), "studentised_bootstrap")


def no_variation_bound(estimate: EpisodeEstimate) -> Interval:
    """What identical episodes still allow: a share of unseen, different ones that 5 % of draws would miss.

    With G identical episodes that share is ``1 - 0.05 ** (1 / G)``; those episodes may lie anywhere in the
    range of the metric. For eight perfect episodes the lower limit is 0.69, whatever the correlation.
    """
    unseen = 1 - (1 - LEVEL) ** (1 / len(estimate.episodes))
    kept = (1 - unseen) * estimate.value
    return Interval(kept + unseen * estimate.low, kept + unseen * estimate.high, "no_variation_bound")


def sign_flip_p_value(estimate: EpisodeEstimate) -> float:
    """Two-sided p-value of "this difference is zero": each episode's sign could as well be the other.

    Exact for up to 16 episodes (all ``2 ** episodes`` sign patterns), otherwise 65,535 seeded draws.
    """
    scores = estimate.per_episode
    count = len(scores)
    if count <= _MOST_ENUMERATED:
        return float(_as_extreme(_all_flips(count) @ scores, scores).mean())
    random = np.random.default_rng(SEED)
    hits = 0
    for start in range(0, _DRAWN_FLIPS, _CHUNK):
        drawn = random.integers(0, 2, size=(min(_CHUNK, _DRAWN_FLIPS - start), count))
        hits += int(_as_extreme((1.0 - 2.0 * drawn) @ scores, scores).sum())
    return (1 + hits) / (1 + _DRAWN_FLIPS)


def intraclass_correlation(values: Sequence[float], episodes: Sequence[str]) -> float:
    """Share of the variance that lies between episodes: one-way ANOVA estimator, at most 1.

    Raises:
        NothingToScoreError: fewer than two episodes, one sample per episode, or no variation at all.
    """
    groups = _by_episode(values, episodes)
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    means = np.array([group.mean() for group in groups])
    within = float(sum(np.square(group - group.mean()).sum() for group in groups))
    return anova_correlation(sizes, means, within)


def anova_correlation(sizes: NDArray[np.int64], means: FloatArray, within: float) -> float:
    """As :func:`intraclass_correlation`, from the sizes and means of the episodes.

    Args:
        within: sum of the squared distances of samples from the mean of their episode.
    """
    count, samples = len(sizes), int(sizes.sum())
    if count < 2 or samples == count:
        raise NothingToScoreError("an intraclass correlation needs two episodes and repeated samples")
    grand = float((sizes * means).sum() / samples)
    between = float((sizes * np.square(means - grand)).sum()) / (count - 1)
    inside = within / (samples - count)
    typical_size = (samples - np.square(sizes).sum() / samples) / (count - 1)
    spread = between + (typical_size - 1) * inside
    if spread < _NO_SPREAD:
        raise NothingToScoreError("every sample has the same value, so there is no variance to divide")
    return float((between - inside) / spread)


def effective_sample_size(values: Sequence[float], episodes: Sequence[str]) -> float:
    """How many independent samples would give the same standard error; at most the number of samples.

    Raises:
        NothingToScoreError: fewer than two episodes, or the episodes do not differ.
    """
    estimate = mean_estimate(values, episodes)
    spread = float(np.square(np.asarray(values) - np.mean(values)).sum())
    return size_of_independent_sample(estimate, len(values), spread)


def size_of_independent_sample(estimate: EpisodeEstimate, samples: int, spread: float) -> float:
    """As :func:`effective_sample_size`, for a mean.

    Args:
        spread: sum of the squared distances of all samples from it.
    """
    error = estimate.standard_error
    if error < _NO_SPREAD:
        raise NothingToScoreError("the episodes do not differ, so their correlation cannot be estimated")
    return min(float(samples), spread / (samples - 1) / error**2)


def _by_episode(values: Sequence[float], episodes: Sequence[str]) -> list[FloatArray]:
    groups: dict[str, list[float]] = {}
    for value, episode in zip(values, episodes, strict=True):
        groups.setdefault(episode, []).append(value)
    return [np.array(sorted(groups[name]), dtype=float) for name in sorted(groups)]


def _inside(estimate: EpisodeEstimate, low: float, high: float, method: str) -> Interval:
    return Interval(max(low, estimate.low), min(high, estimate.high), method)


def _as_extreme(flipped_sums: FloatArray, scores: FloatArray) -> NDArray[np.bool_]:
    tolerance = 1e-9 * float(np.abs(scores).sum())
    return np.abs(flipped_sums) >= abs(float(scores.sum())) - tolerance


@lru_cache(maxsize=8)
def _all_flips(count: int) -> FloatArray:
    """Every pattern of signs: (2 ** count, count)."""
    codes = np.arange(2**count)
    return np.where((codes[:, None] >> np.arange(count)) & 1, -1.0, 1.0)


@lru_cache(maxsize=8)
def _resamples(count: int) -> NDArray[np.uint8]:
    """How often each of ``count`` episodes occurs in each bootstrap resample: (RESAMPLES, count)."""
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.uint8)
