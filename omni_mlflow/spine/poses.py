"""Rigid motions as 4x4 matrices. ``T_a_b`` takes a point given in frame b to frame a: X_a = T_a_b X_b."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.layout import LARGEST, possible

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# A stored unit quaternion is off by rounding only; anything farther is no rotation.
_UNIT_NORM_TOLERANCE = 0.05
_ROTATION_TOLERANCE = 0.01


def rigid_motions(quaternions_wxyz: Floats, translations: Floats) -> tuple[Floats, Bools]:
    """Build one matrix per row.

    Args:
        quaternions_wxyz: shape (rows, 4), unit, scalar first.
        translations: shape (rows, 3), metres.

    Returns:
        Matrices of shape (rows, 4, 4), and which rows are valid. A row with an impossible number or a
        quaternion that is not of unit length is invalid, and its matrix is NaN.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(quaternions_wxyz, axis=1)
        valid = np.abs(norms - 1.0) < _UNIT_NORM_TOLERANCE
    valid &= possible("slam/trans_xyz", translations).all(axis=1)
    w, x, y, z = (quaternions_wxyz[valid] / norms[valid, None]).T
    motions = np.full((len(norms), 4, 4), np.nan)
    rotations = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    motions[valid, :3, :3] = np.moveaxis(np.array(rotations), 2, 0)
    motions[valid, :3, 3] = translations[valid]
    motions[valid, 3] = (0.0, 0.0, 0.0, 1.0)
    return motions, valid


def inverse(motions: Floats) -> Floats:
    """Invert rigid motions, shape (..., 4, 4); NaN stays NaN."""
    rotations = np.swapaxes(motions[..., :3, :3], -1, -2)
    inverted = motions.copy()
    inverted[..., :3, :3] = rotations
    inverted[..., :3, 3] = -(rotations @ motions[..., :3, 3, None])[..., 0]
    return inverted


def is_rigid(matrix: Floats) -> bool:
    """Whether a (4, 4) matrix is a rotation and a possible translation: no scale, no mirror, all finite."""
    rotation, translation = matrix[:3, :3], matrix[:3, 3]
    return bool(
        np.isfinite(matrix).all()
        and (np.abs(translation) <= LARGEST["m"]).all()
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE)
        and np.linalg.det(rotation) > 0
        and np.allclose(matrix[3], (0, 0, 0, 1), atol=_ROTATION_TOLERANCE)
    )


def moved(motions: Floats, points: NDArray[np.floating]) -> Floats:
    """Take points from frame b to frame a: ``motions`` (rows, 4, 4), ``points`` (rows, n, 3), metres."""
    rotations = np.swapaxes(motions[:, :3, :3], 1, 2)
    result: Floats = points @ rotations + motions[:, None, :3, 3]
    return result
