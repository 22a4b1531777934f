"""What the inertial unit and the depth camera record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.poses import Bools, Floats


@dataclass(frozen=True)
class Imu:
    """Inertial samples at about 200 Hz, on the clock of the frames.

    Attributes:
        timestamps_ns: shape (samples,).
        accel: shape (samples, 3), m/s^2, gravity included.
        gyro: shape (samples, 3), rad/s.
        keyframes: shape (num_frames,), the sample nearest to each frame.
        covered: shape (num_frames,), whether the IMU was running within 10 ms of the frame.
    """

    timestamps_ns: NDArray[np.int64]
    accel: Floats
    gyro: Floats
    keyframes: NDArray[np.int64]
    covered: Bools


class DepthRows(NamedTuple):
    """Depth images of the rectified left camera, shape (rows, height, width).

    Attributes:
        metres: distance along the optical axis.
        confidence: 0..1.
        valid: finite, above 0 and of confidence at least 0.2.
    """

    metres: NDArray[np.float32]
    confidence: NDArray[np.float32]
    valid: Bools


def nearest(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each value the index of the nearest entry of ``ascending``; the earlier one on a tie."""
    after = np.clip(np.searchsorted(ascending, values), 1, max(len(ascending) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(ascending) - 1)
    closer = np.abs(ascending[after] - values) < np.abs(ascending[before] - values)
    return np.where(closer, after, before).astype(np.int64)
