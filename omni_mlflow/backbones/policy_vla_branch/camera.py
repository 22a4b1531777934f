"""What both hands do after the anchor, as the camera of the last frame before it would see them.

Hands are recorded in the rectified left camera of their own frame, and the head moves as far as the hands
do. So every frame is carried into one camera, that of the last observed frame t = anchor - 1, by SLAM:
``X_t = inverse(T_world_camera(t)) T_world_camera(k) X_k``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.hands import Hands, usable
from omni_mlflow.spine.poses import Bools, Floats, inverse, moved

HORIZON_LEAVES = "the horizon leaves the episode"
NO_POSE_NOW = "the camera's pose is unknown at the last observed frame"
NO_HAND_NOW = "no hand is valid at the last observed frame"
NO_HAND_AFTER = "no hand that is valid at the last observed frame is valid after it"

MASK_REASONS = (
    "valid",
    "the hand is unknown at the last observed frame",
    "the camera's pose is unknown at the step",
    "the hand is unknown at the step",
)
"""Why a hand is left out at a step, by the code in ``HandsAhead.future_reason``; the first reason counts."""


class HandsAhead(NamedTuple):
    """Hands around an anchor, all in the rectified left camera of the last observed frame t.

    Attributes:
        future_hands: frames t + 1 .. t + horizon, shape (horizon, 2, 21, 3), metres; zeros where invalid.
        future_valid: shape (horizon, 2).
        now: frame t, joints (2, 21, 3); zeros where invalid.
        before: frame t - 1; None where the episode begins at t or SLAM lost that frame.
        future_reason: shape (horizon, 2), index into :data:`MASK_REASONS`.
    """

    future_hands: NDArray[np.float32]
    future_valid: Bools
    now: Hands
    before: Hands | None
    future_reason: NDArray[np.uint8]


@lru_cache(maxsize=4)  # windows come episode by episode, and each episode has one file
def _trajectories(path: Path, _changed_ns: int) -> dict[str, NDArray[np.generic]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def read_trajectories(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the ``trajectories.npz`` of an episode."""
    return _trajectories(path, path.stat().st_mtime_ns)


def hands_around(trajectories: Mapping[str, NDArray[np.generic]], t: int) -> tuple[Hands, Hands | None]:
    """Return the hands at frame ``t`` and one frame earlier, both in the camera of ``t``; none need be valid.

    The earlier ones are None where the episode begins at ``t`` or SLAM lost either frame.
    """
    first = max(0, t - 1)
    recorded, seen = _recorded(trajectories, slice(first, t + 1))
    posed = np.asarray(trajectories["camera_valid"][first : t + 1], dtype=bool)
    now = Hands(np.where(seen[-1][..., None, None], recorded[-1], 0.0), seen[-1])
    if first == t or not posed.all():
        return now, None
    to_world = np.asarray(trajectories["camera_to_world"][first : t + 1], dtype=np.float64)
    return now, Hands(_in_camera_of(1, to_world, recorded, seen)[0], seen[0])


def future_in_anchor_camera(
    trajectories: Mapping[str, NDArray[np.generic]], t: int, horizon: int
) -> HandsAhead | str:
    """Return the hands around frame ``t``, or why there is nothing to foretell.

    A hand counts at a step if it is valid there and at ``t``, and SLAM knows the camera at both. Whether a
    hand is valid is asked of the recorded joints, before any change of the frame of reference.

    Args:
        trajectories: the arrays of an episode's ``trajectories.npz``.
        t: the last observed frame.
    """
    posed = np.asarray(trajectories["camera_valid"], dtype=bool)
    if t + horizon >= len(posed):
        return HORIZON_LEAVES
    if not posed[t]:
        return NO_POSE_NOW
    first = max(0, t - 1)
    frames = slice(first, t + horizon + 1)
    recorded, seen = _recorded(trajectories, frames)
    to_world = np.asarray(trajectories["camera_to_world"][frames], dtype=np.float64)
    posed, at = posed[frames], t - first
    joints = _in_camera_of(at, to_world, recorded, seen)
    after = slice(at + 1, None)
    reason = _mask_reasons(seen[at], seen[after], posed[after])
    if not seen[at].any():
        return NO_HAND_NOW
    if (reason > 0).all():
        return NO_HAND_AFTER
    valid = reason == 0
    return HandsAhead(
        future_hands=np.where(valid[..., None, None], joints[after], 0.0).astype(np.float32),
        future_valid=valid,
        now=Hands(joints[at], seen[at]),
        before=Hands(joints[0], seen[0]) if at == 1 and posed[0] else None,
        future_reason=reason,
    )


def _recorded(trajectories: Mapping[str, NDArray[np.generic]], frames: slice) -> tuple[Floats, Bools]:
    """Return the hands of some frames as recorded, (frames, 2, 21, 3), and which are usable."""
    recorded = np.asarray(trajectories["hands_in_camera"][:, frames], dtype=np.float64).swapaxes(0, 1)
    return recorded, np.asarray(trajectories["hands_valid"][:, frames], dtype=bool).T & usable(recorded)


def _in_camera_of(at: int, to_world: Floats, joints: Floats, seen: Bools) -> Floats:
    """Carry the hands of every frame into the camera of frame ``at``; unseen ones become zeros."""
    to_now = inverse(to_world[at]) @ to_world
    together = moved(to_now, joints.reshape(len(joints), -1, 3)).reshape(joints.shape)
    return np.where(seen[..., None, None], together, 0.0)


def _mask_reasons(seen_now: Bools, seen: Bools, posed: Bools) -> NDArray[np.uint8]:
    reason = np.where(seen, 0, 3)
    reason = np.where(posed[:, None], reason, 2)
    return np.where(seen_now, reason, 1).astype(np.uint8)
