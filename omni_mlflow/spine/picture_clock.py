"""Where the sound of a file belongs on the clock of an episode, by the pictures that it sounds with.

A window ends at the time of a frame by the device's clock. A container has a clock of its own: where it
claims another rate, or the device lost frames and it did not, the two drift apart. Picture k is frame k,
whatever either clock says, so what sounds from picture k on belongs to the time of frame k.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omni_mlflow.spine.poses import Floats
from omni_mlflow.spine.sound import Joint

JITTER_S = 0.01
"""So far sound may come before its time and still go on, sample by sample: clocks jitter and round. From the
first joint on, it may not: every joint lies so much later than its frame."""

LATE_S = 0.05
"""So far it may come after its time: a frame period. Nothing is heard too early then, and a clock that
trembles cuts nothing."""


def picture_times(mp4: Path) -> Floats:
    """Return when each picture is shown, in seconds after the start of the video, shape (pictures,).

    Raises:
        UnreadableVideoError: the pictures have no certain times.
    """
    from omni_mlflow.spine.frame_plan import display_order, opened, video_of

    with opened(mp4) as container:
        stream = video_of(mp4, container)
        time_base, start = stream.time_base, stream.start_time or 0
    return np.array([float((tick - start) * time_base) for tick in display_order(mp4).pts])


def joints_of(pictures_s: Floats, frames_s: Floats) -> tuple[Joint, ...]:
    """Return where the sound must be joined anew to be in time; the first joint alone where clocks agree.

    Args:
        pictures_s: the time of each picture, by the file's clock, shape (pictures,).
        frames_s: the time of each frame after frame 0, by the device's clock, same shape.
    """
    found = [Joint(0.0, 0.0)]
    frame = 0
    while True:
        late_s = found[-1].episode_s + pictures_s[frame:] - found[-1].track_s - frames_s[frame:]
        early_s = JITTER_S if len(found) == 1 else 0.0
        off = np.flatnonzero((late_s < -early_s - 1e-6) | (late_s > LATE_S + 1e-6))
        if not len(off):
            return tuple(found)
        frame += int(off[0])
        # So that jitter brings nothing too early.
        found.append(Joint(float(pictures_s[frame]), float(frames_s[frame]) + JITTER_S))


def clock_off_s(joints: Sequence[Joint]) -> float:
    """Return how far the two clocks are apart where the sound was joined anew, at most."""
    return max((abs(episode_s - JITTER_S - track_s) for track_s, episode_s in joints[1:]), default=0.0)
