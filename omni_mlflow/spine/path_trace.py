"""Path fingerprint: how the rig went and turned, as it felt it, below 0.7 Hz, from its poses.

A second witness of motion. Inertial samples tell fast motion from slow; noise that is added to them hides
it, and noise of a tenth of their spread, gravity included, is as large as a quiet wearer's motion. Poses
tell slow motion, of which such noise takes nothing away. Slow curves agree by chance over a few seconds, so
all six of them must agree almost exactly, and in proportion to each other.
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

RATE_HZ = 10.0
THRESHOLD = 0.97
"""Normalised cross-correlation from which two traces are of the same path."""

CUT_OFF_HZ = 0.7
LEVER_M = 0.5  # a radian a second counts as this many metres a second
LEVEL_S = 10.0
LARGEST = 3.0  # in units of the local level
STEPS_PER_UNIT = 40  # int8 holds -3.2 .. 3.2
STILL_M_PER_S = 0.01
MIN_SECONDS = 5.0
MAX_GAP_S = 0.5
FINE_HZ = 40.0

MIRROR = np.array([-1, 1, 1, 1, -1, -1], np.float32)[:, None]
"""What a mirror does to the six channels: x points right, and a turn is a pseudovector."""


class PathTrace(Row):
    """How the rig went.

    Attributes:
        levels: velocity and turning rate along x, y, z of the rig relative to their common local level, in
            steps of 1/40, int8, shape (6, samples) at ``RATE_HZ``; 0 where no pose is known. Sample 0 lies
            at frame 0.
        abstains: why this trace identifies no recording; None where it can be compared.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    levels: Packed
    abstains: str | None = None

    def signal(self) -> Signal:
        return (self.levels / STEPS_PER_UNIT).astype(np.float32)


def path_of(source: EpisodeFile) -> PathTrace:
    """Return the trace of an open episode."""
    poses, valid = source.body_to_world()
    if source.device_timestamps_ns is None or not valid.any():
        return _abstaining("there are no poses, or no clock to place them")
    clock = source.device_timestamps_ns[: len(valid)]
    return path_trace((clock - clock[0])[valid] / 1e9, poses[valid])


def path_trace(seconds: NDArray[np.float64], poses: NDArray[np.float64]) -> PathTrace:
    """Return the trace of known poses.

    Args:
        seconds: after frame 0, ascending, shape (poses,).
        poses: T_world_body, metres, shape (poses, 4, 4).
    """
    moves_on = np.diff(seconds, prepend=-np.inf) > 0
    seconds, poses = seconds[moves_on], poses[moves_on]
    if len(seconds) < 3 or seconds[-1] - seconds[0] < MIN_SECONDS:
        return _abstaining(f"it is shorter than {MIN_SECONDS:g} s")
    middles, rates = (seconds[1:] + seconds[:-1]) / 2, _rates(seconds, poses)
    grid = np.arange(0, seconds[-1], 1 / RATE_HZ)
    after = np.clip(np.searchsorted(seconds, grid), 1, len(seconds) - 1)
    covered = (seconds[after] - seconds[after - 1] <= MAX_GAP_S) & (grid >= seconds[0])
    levels = _levelled(middles, rates, grid) * covered
    found = PathTrace(levels=np.rint(levels * STEPS_PER_UNIT).astype(np.int8))
    return found.model_copy(update={"abstains": _why_not(found)})


def _rates(seconds: NDArray[np.float64], poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Velocity and turning rate between neighbouring poses, in the rig's own frame, shape (6, poses - 1)."""
    from scipy.spatial.transform import Rotation

    to_body = np.swapaxes(poses[:-1, :3, :3], 1, 2)
    steps = (to_body @ np.diff(poses[:, :3, 3], axis=0)[:, :, None])[:, :, 0]
    turns = Rotation.from_matrix(to_body @ poses[1:, :3, :3]).as_rotvec()
    rates: NDArray[np.float64] = (np.hstack([steps, LEVER_M * turns]) / np.diff(seconds)[:, None]).T
    return rates


def _levelled(
    seconds: NDArray[np.float64], rates: NDArray[np.float64], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Filter the channels and divide them by the level that all of them have in the seconds around."""
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, sosfiltfilt

    fine = np.arange(seconds[0], seconds[-1], 1 / FINE_HZ)
    low = butter(2, CUT_OFF_HZ, fs=FINE_HZ, output="sos")
    filtered = sosfiltfilt(low, np.stack([np.interp(fine, seconds, rate) for rate in rates]))
    level = np.sqrt(uniform_filter1d((filtered**2).mean(axis=0), round(FINE_HZ * LEVEL_S)))
    relative = np.divide(filtered, level, out=np.zeros_like(filtered), where=level > STILL_M_PER_S / 6**0.5)
    on_grid = np.stack([np.interp(grid, fine, channel, left=0.0, right=0.0) for channel in relative])
    clipped: NDArray[np.float64] = np.clip(on_grid, -LARGEST, LARGEST)
    return clipped


def _why_not(found: PathTrace) -> str | None:
    if not found.levels.any():
        return "the rig hardly moved"
    own = transformed(found.signal(), size=transform_size(found.levels.shape[1]))
    repeated = best_match(own, own, rate_hz=RATE_HZ, min_offset_s=SELF_OFFSET_S)
    if repeated is not None and repeated.score >= THRESHOLD:
        return f"it repeats itself after {abs(repeated.offset_s):.1f} s"
    return None


def _abstaining(reason: str) -> PathTrace:
    return PathTrace(levels=np.zeros((6, 0), np.int8), abstains=reason)
