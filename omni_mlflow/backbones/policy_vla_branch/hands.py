"""Two hands as 21 joints each, and the pose of a hand that those joints define.

Joint 0 is the wrist; then thumb, index, middle, ring and little finger follow with four joints each, base
to tip. The left hand comes first. Metres. An array of both hands ends in ``(2, 21, 3)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.poses import Bools, Floats

SIDES = ("left", "right")
NUM_JOINTS = 21
FINGER_JOINTS = tuple(
    f"{finger}{joint}" for finger in ("thumb", "index", "middle", "ring", "little") for joint in range(1, 5)
)
JOINT_NAMES = ("wrist", *FINGER_JOINTS)

WRIST, THUMB_TIP, INDEX_KNUCKLE, INDEX_TIP, MIDDLE_KNUCKLE, LITTLE_KNUCKLE = 0, 4, 5, 8, 9, 17

_OUT_OF_THE_BACK = np.array([-1.0, 1.0])  # x cross (little to index) leaves a right hand through its back
_ONE_SHAPE = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])  # mirrors the left hand onto the right one
_SMALLEST_PALM_M = 1e-3
_TINY = 1e-9


@dataclass(frozen=True)
class Points:
    """Groups of points that are known or not on their own, all in one frame of reference.

    Attributes:
        joints: shape (..., groups, points, 3), metres; what an invalid group holds means nothing.
        valid: shape (..., groups).
    """

    joints: Floats
    valid: Bools


class Hands(Points):
    """Both hands: joints (..., 2, 21, 3), valid (..., 2)."""


def usable(joints: NDArray[np.floating]) -> Bools:
    """Tell which hands have a pose: finite, and with a palm that spans a plane, as zeros do not.

    Ask this of joints as they were recorded: a hand that was not seen is a row of zeros there, and after
    any change of the frame of reference it looks like a hand.

    Args:
        joints: shape (..., 21, 3), in the camera's own frame.
    """
    finite = np.isfinite(joints).all(axis=(-2, -1))
    known = np.where(finite[..., None, None], joints, 0.0).astype(np.float64)
    along = _unit(known[..., MIDDLE_KNUCKLE, :] - known[..., WRIST, :])
    across = known[..., INDEX_KNUCKLE, :] - known[..., LITTLE_KNUCKLE, :]
    palm_m = np.linalg.norm(np.cross(along, across), axis=-1)
    result: Bools = finite & (palm_m > _SMALLEST_PALM_M)
    return result


def wrist_frames(joints: Floats) -> Floats:
    """Return the rotation of each hand, shape (..., 2, 3, 3): the hand's axes as columns.

    x points from the wrist to the middle knuckle, z out of the back of the hand, y = z cross x. Where a hand
    is not :func:`usable` the matrix is finite but no rotation.

    Args:
        joints: shape (..., 2, 21, 3).
    """
    x = _unit(joints[..., MIDDLE_KNUCKLE, :] - joints[..., WRIST, :])
    across = joints[..., INDEX_KNUCKLE, :] - joints[..., LITTLE_KNUCKLE, :]
    z = _unit(np.cross(x, across)) * _OUT_OF_THE_BACK[:, None]
    return np.stack([x, np.cross(z, x), z], axis=-1)


def rot6d(rotations: Floats) -> Floats:
    """Return the first column, then the second one: (..., 3, 3) to (..., 6) (Zhou et al., CVPR 2019)."""
    return np.concatenate([rotations[..., 0], rotations[..., 1]], axis=-1)


def rotation(sixes: Floats) -> Floats:
    """Return the rotation next to any six numbers, by Gram-Schmidt: (..., 6) to (..., 3, 3)."""
    first = _unit(sixes[..., :3])
    second = sixes[..., 3:]
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def fingers_in_wrist(joints: Floats) -> Floats:
    """Return the finger joints as both hands hold them alike, shape (..., 2, 60).

    They are given in the wrist's frame, and those of the left hand are mirrored (y changes its sign), so one
    shape of the fingers has the same numbers on either hand.

    Args:
        joints: shape (..., 2, 21, 3).
    """
    from_wrist = joints[..., 1:, :] - joints[..., :1, :]
    alike = (from_wrist @ wrist_frames(joints)) * _ONE_SHAPE[:, None, :]
    return np.asarray(alike.reshape(*joints.shape[:-2], 60))


def placed(wrists: Floats, rotations: Floats, fingers: Floats) -> Floats:
    """Put fingers onto wrists: the inverse of :func:`fingers_in_wrist`.

    Args:
        wrists: shape (..., 2, 3).
        rotations: shape (..., 2, 3, 3).
        fingers: shape (..., 2, 60).
    """
    own = fingers.reshape(*fingers.shape[:-1], 20, 3) * _ONE_SHAPE[:, None, :]
    from_wrist = own @ np.swapaxes(rotations, -1, -2)
    return np.concatenate([wrists[..., None, :], wrists[..., None, :] + from_wrist], axis=-2)


def apertures(joints: Floats) -> Floats:
    """Return the distance from the tip of the thumb to that of the index finger, (..., 21, 3) to (...)."""
    distances: Floats = np.linalg.norm(joints[..., THUMB_TIP, :] - joints[..., INDEX_TIP, :], axis=-1)
    return distances


def _unit(vectors: Floats) -> Floats:
    """Scale to length 1; what has no length stays zero."""
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)
    return unit
