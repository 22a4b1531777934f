"""Motion fingerprint: how fast the rig turned and was pushed, which no renaming, trim or mirror changes.

Norms of the gyroscope's and accelerometer's vectors do not depend on the body frame, and a mirror image of
a vector has the same norm. Only 0.7 to 8 Hz is kept: below, every two smooth curves look alike somewhere;
above, a copy on another time grid differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.alignment import SELF_OFFSET_S, Signal, best_match, transform_size, transformed
from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.types import Row

if TYPE_CHECKING:
    from omni_mlflow.spine.episodes import EpisodeFile

RATE_HZ = 50.0
THRESHOLD = 0.6
"""Normalised cross-correlation from which two traces are of the same motion."""

BAND_HZ = (0.7, 8.0)
LEVEL_S = 2.0
LOUDEST = 3.0  # in units of the local level: one jolt must not outweigh seconds of motion
STEPS_PER_UNIT = 40  # int8 holds -3.2 .. 3.2
STILL = (1e-4, 1e-5)  # m/s^2 and rad/s: below any sensor's noise
MIN_SECONDS = 2.0
MAX_GAP_S = 0.5


class MotionTrace(Row):
    """How the rig moved.

    Attributes:
        levels: acceleration and turning rate relative to their local level, in steps of 1/40, int8, shape
            (2, samples) at ``RATE_HZ``; 0 where nothing was measured. Sample 0 lies at frame 0.
        abstains: why this trace identifies no recording; None where it can be compared.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    levels: Packed
    abstains: str | None = None

    def signal(self) -> Signal:
        return (self.levels / STEPS_PER_UNIT).astype(np.float32)


def motion_of(source: EpisodeFile) -> MotionTrace:
    """Return the trace of an open episode."""
    imu, clock = source.imu(), source.device_timestamps_ns
    if imu is None or clock is None:
        return _abstaining("there are no inertial samples, or no clock to place them")
    seconds = (imu.timestamps_ns - clock[0]) / 1e9
    norms = np.stack([np.linalg.norm(imu.accel, axis=1), np.linalg.norm(imu.gyro, axis=1)])
    inside = (seconds >= 0) & (imu.timestamps_ns <= clock[-1])
    return motion_trace(seconds[inside], norms[:, inside])


def motion_trace(seconds: NDArray[np.float64], norms: NDArray[np.float64]) -> MotionTrace:
    """Return the trace of measured norms.

    Args:
        seconds: when each sample was taken, ascending, shape (samples,).
        norms: acceleration (m/s^2) and turning rate (rad/s), shape (2, samples).
    """
    measured = np.isfinite(norms).all(axis=0) & np.isfinite(seconds)
    seconds, norms = seconds[measured], norms[:, measured]
    if len(seconds) < 2 or seconds[-1] - seconds[0] < MIN_SECONDS:
        return _abstaining(f"it is shorter than {MIN_SECONDS:g} s")
    grid = np.arange(0, seconds[-1], 1 / RATE_HZ)
    after = np.clip(np.searchsorted(seconds, grid), 1, len(seconds) - 1)
    covered = seconds[after] - seconds[after - 1] <= MAX_GAP_S
    channels = [_levelled(seconds, norm, grid, still) for norm, still in zip(norms, STILL, strict=True)]
    levels = np.stack(channels) * covered
    found = MotionTrace(levels=np.rint(levels * STEPS_PER_UNIT).astype(np.int8))
    return found.model_copy(update={"abstains": _why_not(found)})


def _levelled(
    seconds: NDArray[np.float64], norm: NDArray[np.float64], grid: NDArray[np.float64], still: float
) -> NDArray[np.float64]:
    """Filter one channel on the grid and divide it by its own level over the seconds around."""
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, sosfiltfilt

    fine = np.arange(seconds[0], seconds[-1], 1 / (4 * RATE_HZ))
    band = butter(2, BAND_HZ, btype="bandpass", fs=4 * RATE_HZ, output="sos")
    filtered = sosfiltfilt(band, np.interp(fine, seconds, norm))
    level = np.sqrt(uniform_filter1d(filtered**2, round(4 * RATE_HZ * LEVEL_S)))
    relative = np.divide(filtered, level, out=np.zeros_like(filtered), where=level > still)
    return np.clip(np.interp(grid, fine, relative, left=0.0, right=0.0), -LOUDEST, LOUDEST)


def _why_not(found: MotionTrace) -> str | None:
    if not found.levels.any():
        return "the rig did not move at all"
    own = transformed(found.signal(), size=transform_size(found.levels.shape[1]))
    repeated = best_match(own, own, rate_hz=RATE_HZ, min_offset_s=SELF_OFFSET_S)
    if repeated is not None and repeated.score >= THRESHOLD:
        return f"it repeats itself after {abs(repeated.offset_s):.1f} s"
    return None


def _abstaining(reason: str) -> MotionTrace:
    return MotionTrace(levels=np.zeros((2, 0), np.int8), abstains=reason)
