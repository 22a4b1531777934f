"""Motions that need no model: what a forecast must beat before it says anything.

Each takes groups of points (two hands, a body) now and one frame earlier, shape (N, groups, points, 3) in one
frame of reference, and returns them at the steps 1 .. horizon, shape (N, horizon, groups, points, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Motion = Callable[[FloatArray, FloatArray, int], FloatArray]

DAMPING = 0.8
"""Each step of one that slows down is this share of the step before it; the first one is whole."""


def constant_position(now: FloatArray, before: FloatArray, horizon: int) -> FloatArray:  # noqa: ARG001
    return _along(now, np.zeros_like(now), np.zeros(horizon))


def constant_velocity(now: FloatArray, before: FloatArray, horizon: int) -> FloatArray:
    return _along(now, now - before, np.arange(1.0, horizon + 1))


def damped_velocity(now: FloatArray, before: FloatArray, horizon: int) -> FloatArray:
    """Go on ever more slowly: 1, 1.8, 2.44 ... times the last step."""
    return _along(now, now - before, np.cumsum(DAMPING ** np.arange(horizon)))


MOTIONS: Mapping[str, Motion] = {
    "constant_position": constant_position,
    "constant_velocity": constant_velocity,
    "damped_velocity": damped_velocity,
}


def _along(now: FloatArray, step: FloatArray, times: FloatArray) -> FloatArray:
    return now[:, None] + times[None, :, None, None, None] * step[:, None]
