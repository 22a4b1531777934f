"""Whole episodes as LeRobotDatasets, one folder per split, for tools that train policies of their own.

State is told in the camera of its own frame, and so could be no action: the camera moves. So an action is
where both hands are one frame later, in the world, and the camera's pose lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.camera import read_trajectories
from omni_mlflow.backbones.policy_vla_branch.hands import Hands, rot6d, usable
from omni_mlflow.backbones.policy_vla_branch.inputs import (
    POSE_NAMES,
    STATE_NAMES,
    known_numbers,
    nominal_rate,
)
from omni_mlflow.backbones.policy_vla_branch.lerobot_stats import Stats
from omni_mlflow.backbones.policy_vla_branch.lerobot_v3 import Form, Picture, Recording, write_dataset
from omni_mlflow.backbones.policy_vla_branch.sample import CAMERA, pose_of, state_of
from omni_mlflow.spine.poses import Bools, Floats, inverse, moved
from omni_mlflow.spine.types import Split, Tile, Window

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "observation.state": STATE_NAMES,
    "observation.camera_pose": ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32"),
    "observation.valid": ("camera_pose", "left_velocity", "right_velocity"),
    "action": POSE_NAMES,
    "action_valid": ("left", "right"),
}
"""Metres; rotation as two columns. State in the camera's frame, camera pose and action in the world's.

What is not known is 0, and a flag of 0 says so; poses of hands have theirs in the state.
"""

ROBOT_TYPE = "human_hands"
_FRAMES_AT_ONCE = 64


def export_episodes(
    episodes: Mapping[Split, Sequence[Window]], *, media: Mapping[Split, Path], out: Mapping[Split, Path]
) -> None:
    """Write one LeRobotDataset per split; all of them say what is normal in train.

    An episode's labels are answers, so none of them is a column; its task is the main task.
    """
    normal: dict[str, Stats] | None = None
    rate = nominal_rate([window.fps for windows in episodes.values() for window in windows])
    for split in (each for each in Split if each in episodes):  # train is the first
        windows = episodes[split]
        recordings = (_recording(window, media[split]) for window in windows)
        form = _form(windows[0], rate)
        found = write_dataset(out[split], recordings, form, split=split.value, normal=normal)
        normal = found if split is Split.TRAIN else normal


def _form(window: Window, rate: int) -> Form:
    tile = _tile(window)
    return Form(
        fps=Fraction(rate, window.modalities.media.grid_stride),
        camera=f"observation.images.{CAMERA}",
        size=(tile.height, tile.width),
        columns=COLUMNS,
        robot_type=ROBOT_TYPE,
    )


def _recording(window: Window, media: Path) -> Recording:
    shown = window.modalities.media
    assert shown.proxy_video is not None, "a sample has a picture"
    state = window.adapter_views["policy_vla_branch"]["observation"]["state"]
    trajectories = read_trajectories(media / state["path"])
    frames = np.arange(shown.num_proxy_frames) * shown.grid_stride
    tracks = Tracks.of(trajectories)
    frames = frames[frames < len(tracks.posed)]
    columns, known = columns_of(tracks, frames, fps=window.fps)
    return Recording(
        task=window.modalities.language.main_task or "",
        pictures=_pictures(media / shown.proxy_video, _tile(window), len(frames)),
        columns=columns,
        known=known,
    )


@dataclass(frozen=True)
class Tracks:
    """What moves in an episode, frame by frame.

    Attributes:
        joints, valid: of both hands, each frame in its own camera, shape (frames, 2, 21, 3) and (frames, 2).
        camera, posed: T_world_camera and whether SLAM knows it, shape (frames, 4, 4) and (frames,).
    """

    joints: Floats
    valid: Bools
    camera: Floats
    posed: Bools

    @classmethod
    def of(cls, trajectories: Mapping[str, NDArray[Any]]) -> Self:
        """Take over the arrays of ``trajectories.npz``; what is not known becomes zeros or no motion."""
        joints = np.asarray(trajectories["hands_in_camera"], dtype=np.float64).swapaxes(0, 1)
        valid = np.asarray(trajectories["hands_valid"], dtype=bool).T & usable(joints)
        posed = np.asarray(trajectories["camera_valid"], dtype=bool)
        camera = np.asarray(trajectories["camera_to_world"], dtype=np.float64)
        return cls(
            joints=np.where(valid[..., None, None], joints, 0.0),
            valid=valid,
            camera=np.where(posed[:, None, None], camera, np.eye(4)),
            posed=posed,
        )

    def state(self, k: int, *, fps: float) -> Floats:
        before = None
        if self._is_linked(k):
            to_now = inverse(self.camera[k]) @ self.camera[k - 1]
            carried = moved(to_now[None], self.joints[k - 1].reshape(1, -1, 3)).reshape(2, 21, 3)
            before = Hands(carried, self.valid[k - 1])
        return state_of(Hands(self.joints[k], self.valid[k]), before, fps=fps)

    def velocity_known(self, k: int) -> Bools:
        """Tell which hands, shape (2,), are known at ``k`` and one frame earlier, in a known camera."""
        return np.asarray(self.valid[k] & self.valid[k - 1] & self._is_linked(k))

    def _is_linked(self, k: int) -> bool:
        return bool(k > 0 and self.posed[k] and self.posed[k - 1])

    def in_world(self, frames: NDArray[np.integer]) -> Hands:
        joints = self.joints[frames].reshape(len(frames), -1, 3)
        placed = moved(self.camera[frames], joints).reshape(-1, 2, 21, 3)
        return Hands(placed, self.valid[frames] & self.posed[frames, None])


def columns_of(
    tracks: Tracks, frames: NDArray[np.integer], *, fps: float
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Bools]]:
    """Return the columns at ``frames``, and which of their numbers are known.

    Args:
        fps: source frames per second, for velocities.
    """
    state = np.stack([tracks.state(k, fps=fps) for k in frames])
    moving = np.stack([tracks.velocity_known(k) for k in frames])
    reached = tracks.in_world(np.append(frames[1:], frames[-1:]))  # the last frame's hands stay
    camera, posed = tracks.camera[frames], tracks.posed[frames, None]
    pose = np.concatenate([camera[:, :3, 3], rot6d(camera[:, :3, :3])], axis=1)
    action = np.where(reached.valid[..., None], pose_of(reached.joints), 0.0)
    columns = {
        "observation.state": state,
        "observation.camera_pose": np.where(posed, pose, 0.0),
        "observation.valid": np.concatenate([posed, moving], axis=1).astype(np.float64),
        "action": action.reshape(len(frames), -1),
        "action_valid": reached.valid.astype(np.float64),
    }
    known = {
        "observation.state": known_numbers(tracks.valid[frames], moving),
        "observation.camera_pose": np.repeat(posed, pose.shape[1], axis=1),
        "action": np.repeat(reached.valid, len(POSE_NAMES) // 2, axis=1),
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}, known


def _tile(window: Window) -> Tile:
    return next(tile for tile in window.modalities.media.tiles if tile.camera == CAMERA)


def _pictures(video: Path, tile: Tile, num_frames: int) -> Iterator[Picture]:
    from omni_mlflow.spine.video import ProxyReader

    with ProxyReader(video) as reader:
        for first in range(0, num_frames, _FRAMES_AT_ONCE):
            for whole in reader.frames(range(first, min(first + _FRAMES_AT_ONCE, num_frames))):
                yield whole[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
