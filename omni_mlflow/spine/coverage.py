"""At which frames each modality of an episode is present and valid, and why one is absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omni_mlflow.spine.calibration import LEFT_FROM_BODY
from omni_mlflow.spine.poses import Bools
from omni_mlflow.spine.sensors import DEPTH_ARRAYS, IMU_ARRAYS

if TYPE_CHECKING:
    from omni_mlflow.spine.episodes import EpisodeFile

_SAMPLED_DEPTH_FRAMES = 16
_SOURCES = {
    "camera_pose": ("slam/quat_wxyz", "slam/trans_xyz", LEFT_FROM_BODY),
    "hand_mocap_left": ("hand_mocap/left_joints_3d",),
    "hand_mocap_right": ("hand_mocap/right_joints_3d",),
    "body_mocap": ("full_body_mocap/keypoints",),
    "contact": ("full_body_mocap/contacts",),
    "imu": IMU_ARRAYS,
    "depth": DEPTH_ARRAYS,
}
"""What each modality is read from; labels come from the caption."""


def valid_frames(episode: EpisodeFile) -> dict[str, Bools]:
    """Return for each modality which frames have it.

    Depth is judged at 16 frames spread over the episode: reading all of it would take minutes.
    """
    captions = episode.captions()
    hands, imu = episode.hands()[1], episode.imu()
    return {
        "camera_pose": episode.camera_to_world()[1],
        "hand_mocap_left": hands[0],
        "hand_mocap_right": hands[1],
        "body_mocap": episode.body()[1],
        "contact": episode.contacts()[1],
        "imu": imu.covered if imu else np.zeros(1, dtype=bool),
        "depth": _depth_covers(episode),
        "action": _given(captions.action if captions else ()),
        "subtask": _given(captions.subtask if captions else ()),
        "objects": _given(captions.objects if captions else ()),
    }


def reason_for_absence(episode: EpisodeFile, modality: str) -> str:
    """Say why no frame has ``modality``."""
    sources = _SOURCES.get(modality)
    if sources is None:
        return "no frame is labelled"
    absent = [name for name in sources if name not in episode.annotation]
    return f"annotation lacks {', '.join(absent)}" if absent else "no frame is valid"


def _depth_covers(episode: EpisodeFile) -> Bools:
    frames = np.unique(np.linspace(0, episode.num_frames - 1, _SAMPLED_DEPTH_FRAMES).astype(int))
    rows = [episode.depth_rows(frame, frame + 1) for frame in frames.tolist()]
    return np.array([row is not None and bool(row.valid.any()) for row in rows])


def _given(labels: Sequence[object]) -> Bools:
    return np.array([label is not None for label in labels] or [False])
