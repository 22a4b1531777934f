"""What train actions and states look like, dimension by dimension, and how it normalises them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.poses import Bools, Floats
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import SCHEMA_VERSION, FittedOnTrain, Row

STATS_NAME = "normalization_stats.json"

EPSILON = 1e-8
"""Added to a standard deviation before dividing, as the processor of pi0 does."""


class NothingToNormaliseError(Exception):
    """A dimension has no valid value in the train episodes, or no floor for its standard deviation."""


class DimensionStats(Row):
    """Statistics of each dimension over the valid values of the train episodes; one number per dimension.

    Attributes:
        std: never below the floor of its dimension.
        q01, q99: 1 % and 99 % quantile, linearly interpolated.
        count: valid values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    std: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    count: tuple[int, ...]

    def normalised(self, values: NDArray[np.floating]) -> Floats:
        """Return ``(values - mean) / (std + 1e-8)``, shape (..., D)."""
        return np.asarray((values - np.array(self.mean)) / (np.array(self.std) + EPSILON))

    def denormalised(self, values: NDArray[np.floating]) -> Floats:
        """Return physical values: the inverse of :meth:`normalised`."""
        return np.asarray(values * (np.array(self.std) + EPSILON) + np.array(self.mean))


class NormalizationStats(FittedOnTrain):
    """``normalization_stats.json``: of actions and states, with the episodes that contributed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    action_space: str
    actions: DimensionStats
    state: DimensionStats

    @classmethod
    def of(
        cls, space: str, actions: DimensionStats, state: DimensionStats, *, episodes: Sequence[str]
    ) -> NormalizationStats:
        """Bring both together with the distinct ids of the episodes they were fitted on."""
        ids = tuple(sorted(set(episodes)))
        return cls(
            episode_ids=ids,
            episodes_digest=digest_of(ids),
            action_space=space,
            actions=actions,
            state=state,
        )


def fit_stats(values: NDArray[np.floating], valid: Bools, *, floors: Floats) -> DimensionStats:
    """Describe each dimension by its valid values, in float64.

    Values are sorted before they are added, so neither the order of episodes nor of samples changes a bit.

    Args:
        values: shape (..., D), physical units.
        valid: same shape.
        floors: smallest standard deviation of each dimension, shape (D,), above zero.

    Raises:
        NothingToNormaliseError: a dimension has no valid value, or its floor is not above zero.
    """
    columns = [
        np.sort(values[..., place][valid[..., place]].astype(np.float64)) for place in range(len(floors))
    ]
    if empty := [place for place, column in enumerate(columns) if len(column) == 0]:
        raise NothingToNormaliseError(
            f"dimensions {empty} of {len(floors)} have no valid value in the train episodes; "
            "add episodes in which both hands are tracked"
        )
    if not (floors > 0).all():
        raise NothingToNormaliseError(
            f"floors of the standard deviation must be above zero, not {floors.tolist()}"
        )
    means = [float(column.sum() / len(column)) for column in columns]
    spreads = [
        float(np.sqrt(np.square(column - mean).sum() / len(column))) for column, mean in zip(columns, means)
    ]
    quantiles = np.array([np.quantile(column, [0.01, 0.99]) for column in columns])
    return DimensionStats(
        mean=tuple(means),
        std=tuple(np.maximum(spreads, floors).tolist()),
        q01=tuple(quantiles[:, 0].tolist()),
        q99=tuple(quantiles[:, 1].tolist()),
        count=tuple(len(column) for column in columns),
    )
