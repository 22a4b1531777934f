"""What a test split can show before anything is trained on it again: the power of a paired comparison."""

from __future__ import annotations

from math import ceil, log2, sqrt

import numpy as np

from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.uncertainty import EpisodeEstimate
from omni_mlflow.spine.types import Row

SIGNIFICANCE = 0.05
POWER = 0.8
LARGER_SPLITS = (32, 64)


class Power(Row):
    """What a paired difference of this spread needs.

    Attributes:
        deviation: standard deviation of the paired differences between episodes.
        episodes: of this split.
        detectable: by number of episodes, the smallest true difference that a two-sided test at 5 % finds in
            80 % of splits of that size: of this split, and of larger ones.
    """

    metric: str
    row: str
    against: str
    deviation: float
    episodes: int
    detectable: dict[int, float]


def power_of(difference: EpisodeEstimate, *, metric: str, row: str, against: str) -> Power:
    """Plan from the paired differences that were found.

    Raises:
        NothingToScoreError: fewer than two episodes, or all of them show the same difference.
    """
    episodes = len(difference.episodes)
    if episodes < 2:
        raise NothingToScoreError("the spread between episodes needs at least two of them")
    deviation = float(np.std(difference.per_episode, ddof=1))
    if deviation < 1e-12:
        raise NothingToScoreError("every episode shows the same difference, so its spread is unknown")
    sizes = sorted({episodes, *(size for size in LARGER_SPLITS if size > episodes)})
    return Power(
        metric=metric,
        row=row,
        against=against,
        deviation=round(deviation, 9),
        episodes=episodes,
        detectable={size: round(detectable_difference(deviation, size), 9) for size in sizes},
    )


def detectable_difference(deviation: float, episodes: int) -> float:
    """Smallest true mean difference found with 80 % power by a two-sided paired t-test at 5 %.

    The multiplier of the standard error is t(0.975) + t(0.80), both with ``episodes - 1`` degrees of freedom
    (Bloom, Minimum detectable effects, Evaluation Review 19(5), 1995).

    Args:
        deviation: standard deviation of the paired differences between episodes.
        episodes: at least 2.
    """
    from scipy import stats

    multiplier = sum(float(stats.t.ppf(level, episodes - 1)) for level in (1 - SIGNIFICANCE / 2, POWER))
    return multiplier * deviation / sqrt(episodes)


def fewest_episodes(tests: int) -> int:
    """How many episodes a sign-flip test needs before any of ``tests`` can reject at 5 % after Holm.

    The smallest p-value over G episodes is ``2 ** (1 - G)``; Holm multiplies the smallest one by ``tests``.
    """
    return ceil(1 + log2(tests / SIGNIFICANCE))
