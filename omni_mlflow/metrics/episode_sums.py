"""What the rows of each episode add to a metric: a million rows take no more memory than a thousand."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from omni_mlflow.metrics.answers import PredictionRow, RowScore
from omni_mlflow.metrics.uncertainty import (
    EpisodeEstimate,
    anova_correlation,
    ratio_estimate,
    size_of_independent_sample,
)

_BITS = 1074  # every double is a whole number of 2 ** -1074
_ONE = 1 << _BITS
_MOST_COUNTED = 4096


class EpisodeSums:
    """Sums of one metric by episode. They are exact, so no order of rows changes a bit of the result."""

    def __init__(self) -> None:
        self._of: dict[str, list[int]] = {}
        self._counted: dict[tuple[str, tuple[float, float]], int] = {}

    @classmethod
    def over(cls, rows: Iterable[PredictionRow], score: RowScore) -> EpisodeSums:
        sums = cls()
        for row in rows:
            sums.add(row["episode_id"], score(row))
        return sums

    def add(self, episode: str, part: tuple[float, float] | None, *, times: int = 1) -> None:
        """Add a numerator and a denominator, of one row or many; None where a row does not take part.

        Rows mostly add one of a few pairs, so pairs are counted, and summed up once there are many.
        """
        if part is None:
            return
        key = (episode, part)
        self._counted[key] = self._counted.get(key, 0) + times
        if len(self._counted) > _MOST_COUNTED:
            self._settle()

    def _settle(self) -> None:
        for (episode, (numerator, denominator)), count in self._counted.items():
            sums = self._of.setdefault(episode, [0, 0, 0, 0])
            sums[0] += count
            sums[1] += count * _exact(numerator)
            sums[2] += count * _exact(denominator)
            sums[3] += count * _exact(numerator * numerator)
        self._counted.clear()

    def _settled(self) -> dict[str, list[int]]:
        self._settle()
        return self._of

    @property
    def num_samples(self) -> int:
        return sum(sums[0] for sums in self._settled().values())

    def estimate(self) -> EpisodeEstimate:
        """The sum of numerators over that of denominators.

        Raises:
            NothingToScoreError: the denominators sum to zero.
        """
        sums = self._settled()
        names = sorted(sums)
        tops, bottoms = ([sums[name][place] / _ONE for name in names] for place in (1, 2))
        return ratio_estimate(tops, bottoms, names)

    def intraclass_correlation(self) -> float:
        """Of the numerators: see :func:`omni_mlflow.metrics.uncertainty.intraclass_correlation`."""
        sizes, tops, squares = self._moments()
        within = float(np.maximum(squares - np.square(tops) / np.maximum(sizes, 1), 0.0).sum())
        return anova_correlation(sizes, tops / np.maximum(sizes, 1), within)

    def effective_sample_size(self) -> float:
        """Of a mean: see :func:`omni_mlflow.metrics.uncertainty.effective_sample_size`."""
        sizes, tops, squares = self._moments()
        spread = max(float(squares.sum() - tops.sum() ** 2 / max(sizes.sum(), 1)), 0.0)
        return size_of_independent_sample(self.estimate(), int(sizes.sum()), spread)

    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cells = [cell for _, cell in sorted(self._settled().items())]
        sizes = np.array([cell[0] for cell in cells], dtype=np.int64)
        tops, squares = (np.array([cell[place] / _ONE for cell in cells], dtype=float) for place in (1, 3))
        return sizes, tops, squares


def _exact(value: float) -> int:
    """``value`` in units of 2 ** -1074: whole numbers add up without rounding."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_BITS - denominator.bit_length() + 1)
