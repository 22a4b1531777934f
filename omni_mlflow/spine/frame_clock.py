"""The clock of an episode's frames, wherever it was read from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.types import Row

Stamps = NDArray[np.int64]

NOMINAL_FPS = 20.0


class FrameClock(Row):
    """When each frame was taken.

    Attributes:
        frames_s: after frame 0, by the device's clock where there is one, shape (frames,).
        fps: the mean rate.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    frames_s: Packed
    fps: float

    @property
    def length_s(self) -> float:
        return len(self.frames_s) / self.fps

    def seconds_at(self, frame: int) -> float:
        """Time of a frame after frame 0; beyond the last one at the mean rate."""
        return float(self.seconds_of(np.array([frame]))[0])

    def seconds_of(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Times of several frames, as :meth:`seconds_at`."""
        last = np.minimum(frames, len(self.frames_s) - 1)
        seconds: NDArray[np.float64] = self.frames_s[last] + (frames - last) / self.fps
        return seconds


def frame_clock(stamps_ns: Stamps | None, num_frames: int) -> FrameClock:
    """Return when each frame was taken by its stamp; at the nominal rate where there is none.

    Args:
        stamps_ns: see :func:`device_timestamps_ns`.
    """
    if stamps_ns is None:
        return FrameClock(frames_s=np.arange(num_frames) / NOMINAL_FPS, fps=NOMINAL_FPS)
    taken_ns = stamps_ns - stamps_ns[0]
    advances = len(taken_ns) > 1 and taken_ns[-1] > 0
    fps = float((len(taken_ns) - 1) * 1e9 / taken_ns[-1]) if advances else NOMINAL_FPS
    return FrameClock(frames_s=taken_ns / 1e9, fps=fps)
