"""The true motion of samples: groups of points now, one frame earlier, and at every step of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.hands import Hands, Points
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs, SeenBody

PointsT = TypeVar("PointsT", bound=Points)


@dataclass(frozen=True)
class Motion(Generic[PointsT]):
    """What moves in N samples, all of a sample in one frame of reference.

    Attributes:
        future: at the steps t + 1 .. t + H, points (N, H, groups, points, 3).
        reason: why a group is left out at a step, shape (N, H, groups): index into the space's reasons.
        now: at the last observed frame t, points (N, groups, points, 3).
        before: one frame earlier; the points of now, marked invalid, where nothing is known of it.
    """

    future: PointsT
    reason: NDArray[np.uint8]
    now: PointsT
    before: Points


@dataclass(frozen=True)
class Ahead:
    """What an episode tells about a frame t and the steps after it.

    Attributes:
        now, before: both hands at t and one frame earlier, in the rectified left camera of t.
        body: at t; None where the action space follows no body.
        arrays: the true motion after t by name, as the action space reads it again.
    """

    now: Hands
    before: Hands | None
    body: SeenBody | None
    arrays: Mapping[str, NDArray[np.generic]]


def hands_now(inputs: Sequence[Inputs]) -> Hands:
    """Return the hands at the last observed frame of every sample, joints (N, 2, 21, 3)."""
    return Hands(
        joints=np.array([each.hands.now for each in inputs], dtype=np.float64).reshape(-1, 2, 21, 3),
        valid=np.array([each.hands.valid for each in inputs], dtype=bool).reshape(-1, 2),
    )


def hands_before(inputs: Sequence[Inputs]) -> Hands:
    """Return the hands one frame earlier; those of now, marked invalid, where nothing is known of them."""
    return Hands(
        joints=np.array([each.hands.before or each.hands.now for each in inputs]).reshape(-1, 2, 21, 3),
        valid=np.array([each.hands.before_valid for each in inputs], dtype=bool).reshape(-1, 2),
    )
