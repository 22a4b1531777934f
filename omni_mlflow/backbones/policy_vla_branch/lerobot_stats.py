"""What is normal in a LeRobotDataset: one set of numbers per column, as its readers expect them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Stats = dict[str, list[Any]]
"""``min, max, mean, std, q01, q10, q50, q90, q99`` of every number, and ``count`` of frames."""

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
LEVELS = 256


def column_stats(values: NDArray[Any], known: NDArray[np.bool_] | None) -> Stats:
    """Describe a column, shape (frames,) or (frames, numbers).

    Args:
        known: same shape; numbers that are not known count nowhere. One that is never known is 0.
    """
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    taken = np.ones(table.shape, dtype=bool) if known is None else known.reshape(table.shape)
    each = [_described(column[mask]) for column, mask in zip(table.T, taken.T, strict=True)]
    return {**{name: [found[name] for found in each] for name in each[0]}, "count": [len(values)]}


def histogram(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count every level of every colour of an RGB picture, shape (3, 256)."""
    return np.stack([np.bincount(picture[..., colour].ravel(), minlength=LEVELS) for colour in range(3)])


def picture_stats(levels: NDArray[np.int64], *, num_frames: int) -> Stats:
    """Describe pictures by their histogram (:func:`histogram`); every number has shape (3, 1, 1), 0 to 1."""
    each = [_of_histogram(counts) for counts in levels]
    return {**{name: [[[found[name]]] for found in each] for name in each[0]}, "count": [num_frames]}


def _described(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        values = np.zeros(1)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        **{
            _name(q): float(found) for q, found in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
        },
    }


def _of_histogram(counts: NDArray[np.int64]) -> dict[str, float]:
    shares = counts / max(int(counts.sum()), 1)
    levels = np.arange(LEVELS) / (LEVELS - 1)
    seen = np.flatnonzero(counts) if counts.any() else np.zeros(1, dtype=np.int64)
    mean = float(shares @ levels)
    reached = np.cumsum(shares)
    return {
        "min": float(levels[seen[0]]),
        "max": float(levels[seen[-1]]),
        "mean": mean,
        "std": float(np.sqrt(shares @ np.square(levels - mean))),
        **{_name(q): float(levels[min(int(np.searchsorted(reached, q)), LEVELS - 1)]) for q in QUANTILES},
    }


def _name(quantile: float) -> str:
    return f"q{round(100 * quantile):02d}"
