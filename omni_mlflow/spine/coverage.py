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

    Depth is judged at 16 frames spread over the episode (:func:`sampled_frames` says so where there are
    more): reading all of it would take minutes.
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
    if absent:
        return f"annotation lacks {', '.join(absent)}"
    looked_at = sampled_frames(episode).get(modality)
    return "no frame is valid" if looked_at is None else f"none of {looked_at} sampled frames is valid"


def sampled_frames(episode: EpisodeFile) -> dict[str, int]:
    """Return each modality whose coverage is an estimate, with how many frames were looked at for it."""
    recorded = all(name in episode.annotation for name in DEPTH_ARRAYS)
    looked_at = len(_depth_frames(episode))
    return {"depth": looked_at} if recorded and looked_at < episode.num_frames else {}


def _depth_frames(episode: EpisodeFile) -> list[int]:
    spread = np.linspace(0, episode.num_frames - 1, _SAMPLED_DEPTH_FRAMES)
    frames: list[int] = np.unique(spread.astype(int)).tolist()
    return frames


def _depth_covers(episode: EpisodeFile) -> Bools:
    rows = [episode.depth_rows(frame, frame + 1) for frame in _depth_frames(episode)]
    return np.array([row is not None and bool(row.valid.any()) for row in rows])


def _given(labels: Sequence[object]) -> Bools:
    return np.array([label is not None for label in labels] or [False])
