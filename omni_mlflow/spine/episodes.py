"""One Xperience-10M episode folder: its frames, clock, poses, hands, body, IMU, depth and captions.

Row i of every array belongs to decoded frame i of every video. Frames of reference: *world* has z up and
its origin near the start of SLAM; *camera* is the rectified left camera (x right, y down, z forward);
*body* is the rig, not the person. All lengths are metres. What is absent or invalid is masked, never
repaired: a masked row is NaN.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import ANNOTATION, AnnotationFile, UnreadableEpisodeError
from omni_mlflow.spine.caption_references import CaptionRule
from omni_mlflow.spine.captions import FrameCaptions, map_captions
from omni_mlflow.spine.poses import Bools, Floats, inverse, rigid_motions
from omni_mlflow.spine.sensors import DepthRows, Imu, nearest

__all__ = ["ANNOTATION", "EpisodeFile", "UnreadableEpisodeError", "open_episode"]

NOMINAL_FPS = 20.0
SIDES = ("left", "right")
CONTACT_GROUPS = {"hands": (19, 20), "feet": (6, 7, 9, 10)}
"""Columns of ``contacts``: column c belongs to SMPL-H joint c + 1, so 19 and 20 are the wrists."""

_MIN_CONFIDENCE = 0.2
_COVERAGE_DEPTH_ROWS = 16
_IMU_GAP_NS = 10_000_000
_GROUND_HEIGHT_M = -1.75
_POSE_ARRAYS = ("slam/quat_wxyz", "slam/trans_xyz", "calibration/cam01/T_c0_b")
_IMU_ARRAYS = ("imu/device_timestamp_ns", "imu/accel_xyz", "imu/gyro_xyz")
_SOURCES = {
    "camera_pose": _POSE_ARRAYS,
    "hand_mocap_left": ("hand_mocap/left_joints_3d",),
    "hand_mocap_right": ("hand_mocap/right_joints_3d",),
    "body_mocap": ("full_body_mocap/keypoints",),
    "contact": ("full_body_mocap/contacts",),
    "imu": _IMU_ARRAYS,
    "depth": ("depth/depth", "depth/confidence"),
}
"""What each modality is read from; labels come from the caption."""


@contextmanager
def open_episode(folder: Path) -> Iterator[EpisodeFile]:
    """Open the annotation in an episode folder; arrays are read when they are asked for.

    Raises:
        UnreadableEpisodeError: the annotation is absent, empty, cut short, or holds no frame.
    """
    with AnnotationFile(folder / ANNOTATION) as annotation:
        yield EpisodeFile(folder, annotation)


class EpisodeFile:
    """What an ``annotation.hdf5`` says about an episode. ``N`` below is ``num_frames``."""

    def __init__(self, folder: Path, annotation: AnnotationFile) -> None:
        self.folder = folder
        self.annotation = annotation
        self.num_frames = annotation.num_frames
        self._captions: dict[CaptionRule, FrameCaptions | None] = {}
        if self.num_frames == 0:
            raise UnreadableEpisodeError(
                annotation.path, "it holds no array with a row per frame", "leave this episode out"
            )

    @cached_property
    def frame_names(self) -> tuple[str, ...]:
        """``<device timestamp>.jpg``, also where SLAM failed; ``frame_<i>.jpg`` where there is no clock."""
        if all(name in self.annotation for name in ("slam/frame_names", "slam/quat_wxyz", "slam/trans_xyz")):
            return self.annotation.texts("slam/frame_names")
        if "video/device_timestamp" in self.annotation:
            return tuple(f"{stamp}.jpg" for stamp in self.annotation.texts("video/device_timestamp"))
        return tuple(f"frame_{index:06d}.jpg" for index in range(self.num_frames))

    @cached_property
    def device_timestamps_ns(self) -> NDArray[np.int64] | None:
        """Time of each frame on the device's own monotonic clock, shape (N,); None when not recorded."""
        for name in ("video/device_timestamp", "slam/frame_names"):
            if name in self.annotation:
                stems = [text.rsplit(".", 1)[0] for text in self.annotation.texts(name)]
                if all(stem.isdecimal() for stem in stems):
                    return np.array(stems, dtype=np.int64)
        return None

    @property
    def device_clock_ns(self) -> tuple[int, int] | None:
        clock = self.device_timestamps_ns
        return None if clock is None else (int(clock[0]), int(clock[-1]))

    @cached_property
    def fps(self) -> float:
        """Frames per second by the device clock; the nominal 20 where there is none."""
        clock = self.device_timestamps_ns
        if clock is None or len(clock) < 2 or clock[-1] <= clock[0]:
            return NOMINAL_FPS
        return float((len(clock) - 1) * 1e9 / (clock[-1] - clock[0]))

    def seconds_at(self, frame: int) -> float:
        """Time of a frame after frame 0 by the device clock; beyond the last one at the mean rate."""
        clock = self.device_timestamps_ns
        if clock is None:
            return frame / self.fps
        last = min(frame, len(clock) - 1)
        return float(clock[last] - clock[0]) / 1e9 + (frame - last) / self.fps

    @cached_property
    def device_id(self) -> str | None:
        return _plain(self.annotation.text("metadata/device_id"))

    @cached_property
    def synthetic(self) -> bool:
        """Whether this project's generator wrote the episode: it says so in ``metadata/other``."""
        try:
            other = json.loads(self.annotation.text("metadata/other") or "{}")
        except ValueError:
            return False
        return isinstance(other, dict) and other.get("synthetic") is True

    @cached_property
    def ground_height(self) -> float:
        """World height of the floor: stored, or the wearer's height below the origin, else -1.75 m."""
        for group in ("", "metadata/"):
            for name, sign in (("ground_height", 1.0), ("floor_z", 1.0), ("body_height", -1.0)):
                if group + name in self.annotation:
                    height = float(self.annotation.array(group + name).reshape(-1)[0])
                    if np.isfinite(height):
                        return sign * height
        return _GROUND_HEIGHT_M

    @cached_property
    def main_task(self) -> str | None:
        captions = self.captions()
        return None if captions is None else captions.main_task

    def captions(self, rule: CaptionRule = "new") -> FrameCaptions | None:
        """Return the caption laid out over all frames; None when there is none that can be read."""
        if rule not in self._captions:
            stored = [self.annotation.text(name) for name in ("caption", "captions")]
            mapped = (
                map_captions(self._linked(text), self.frame_names, rule=rule) for text in stored if text
            )
            self._captions[rule] = next((captions for captions in mapped if captions), None)
        return self._captions[rule]

    def camera_to_world(self) -> tuple[Floats, Bools]:
        """Return T_world_camera, shape (N, 4, 4), and which frames have one, shape (N,).

        SLAM stores world to body and the calibration body to camera, so T_camera_world = T_c0_b T_b_w.
        """
        if not all(name in self.annotation for name in _POSE_ARRAYS):
            return np.full((self.num_frames, 4, 4), np.nan), np.zeros(self.num_frames, dtype=bool)
        quaternions, translations = (self.annotation.floats(name) for name in _POSE_ARRAYS[:2])
        body_from_world, valid = rigid_motions(quaternions, translations)
        camera_from_body = self.annotation.array(_POSE_ARRAYS[2]).astype(np.float64)
        poses = inverse(camera_from_body @ body_from_world)
        return poses, valid & np.isfinite(poses).all(axis=(1, 2))

    def hands(self) -> tuple[NDArray[np.float32], Bools]:
        """Return the joints of both hands, shape (2, N, 21, 3), camera frame, and validity, shape (2, N).

        Left hand first. Joint 0 is the wrist, 4, 8, 12, 16, 20 are the tips, thumb first.
        """
        hands, valid = zip(
            *(self.annotation.joints(f"hand_mocap/{side}_joints_3d", 21) for side in SIDES), strict=True
        )
        return np.stack(hands), np.stack(valid)

    def body(self) -> tuple[NDArray[np.float32], Bools]:
        """Return the 52 SMPL-H joints of the person, shape (N, 52, 3), world frame, and validity, shape (N,).

        Joint 0 is the pelvis, 15 the head, 20 and 21 the wrists.
        """
        return self.annotation.joints("full_body_mocap/keypoints", 52)

    def contacts(self, threshold: float = 0.5) -> tuple[Bools, Bools]:
        """Return which joints 1..21 touch something, shape (N, 21), and validity, shape (N,).

        The stored probabilities are noisy around 0, so ``> 0`` would only tell whether the body is valid.
        """
        if "full_body_mocap/contacts" not in self.annotation:
            return np.zeros((self.num_frames, 21), dtype=bool), np.zeros(self.num_frames, dtype=bool)
        probabilities = self.annotation.floats("full_body_mocap/contacts")
        _, valid = self.body()
        valid = valid & np.isfinite(probabilities).all(axis=1)
        return (probabilities > threshold) & valid[:, None], valid

    def hand_contact(self, threshold: float = 0.5) -> tuple[Bools, Bools]:
        """Return whether a wrist touches something at each frame, shape (N,), and validity, shape (N,)."""
        touching, valid = self.contacts(threshold)
        return np.logical_or.reduce(touching[:, CONTACT_GROUPS["hands"]], axis=1), valid

    def imu(self) -> Imu | None:
        """Return all inertial samples; None where samples or a clock to place them are absent."""
        clock = self.device_timestamps_ns
        if clock is None or not all(name in self.annotation for name in _IMU_ARRAYS):
            return None
        stamps, accel, gyro = (self.annotation.array(name) for name in _IMU_ARRAYS)
        count = min(len(stamps), len(accel), len(gyro))
        if count == 0:
            return None
        stamps_ns = stamps[:count].astype(np.int64)
        keyframes = nearest(stamps_ns, clock)
        covered: Bools = np.abs(stamps_ns[keyframes] - clock) <= _IMU_GAP_NS
        name = "imu/keyframe_indices"
        if name in self.annotation and self.annotation.shape(name)[0] >= self.num_frames:
            keyframes = np.clip(self.annotation.frames(name).astype(np.int64), 0, count - 1)
        return Imu(
            stamps_ns, accel[:count].astype(np.float64), gyro[:count].astype(np.float64), keyframes, covered
        )

    def depth_rows(self, start: int, stop: int) -> DepthRows | None:
        """Read the depth of frames ``[start, stop)`` only (all of it may be 2 GB); None when not recorded."""
        if "depth/depth" not in self.annotation or "depth/confidence" not in self.annotation:
            return None
        rows = slice(start, min(stop, self.num_frames))
        metres = self.annotation.array("depth/depth", rows).astype(np.float32)
        confidence = self.annotation.array("depth/confidence", rows).astype(np.float32) / 255.0
        valid = np.isfinite(metres) & (metres > 0) & (confidence >= _MIN_CONFIDENCE)
        return DepthRows(metres, confidence, valid)

    def coverage(self) -> dict[str, float]:
        """Return for each modality the share of frames (0..1) for which it is present and valid.

        Depth is judged at 16 frames spread over the episode: reading all of it would take minutes.
        """
        return {name: float(valid.mean()) for name, valid in self._validity.items()}

    @cached_property
    def _validity(self) -> dict[str, Bools]:
        captions = self.captions()
        hands, imu = self.hands()[1], self.imu()
        return {
            "camera_pose": self.camera_to_world()[1],
            "hand_mocap_left": hands[0],
            "hand_mocap_right": hands[1],
            "body_mocap": self.body()[1],
            "contact": self.contacts()[1],
            "imu": imu.covered if imu else np.zeros(1, dtype=bool),
            "depth": self._depth_covers(),
            "action": _given(captions.action if captions else ()),
            "subtask": _given(captions.subtask if captions else ()),
            "objects": _given(captions.objects if captions else ()),
        }

    def missing(self) -> dict[str, str]:
        """Return the name of each modality that no frame has, with the reason."""
        reasons = {}
        for modality, share in self.coverage().items():
            sources = _SOURCES.get(modality)
            if share == 0 and sources is None:
                reasons[modality] = "no frame is labelled"
            elif share == 0:
                absent = [name for name in sources or () if name not in self.annotation]
                reasons[modality] = f"annotation lacks {', '.join(absent)}" if absent else "no frame is valid"
        return reasons

    def _depth_covers(self) -> Bools:
        frames = np.unique(np.linspace(0, self.num_frames - 1, _COVERAGE_DEPTH_ROWS).astype(int))
        rows = [self.depth_rows(frame, frame + 1) for frame in frames.tolist()]
        return np.array([row is not None and bool(row.valid.any()) for row in rows])

    def _linked(self, caption: str | bytes) -> str | bytes:
        """Return the caption itself, or the file in the episode folder that it names."""
        name = _plain(caption) or ""
        if name and len(name) < 256 and name == Path(name).name and (self.folder / name).is_file():
            return (self.folder / name).read_bytes()
        return caption


def _given(labels: Sequence[object]) -> Bools:
    return np.array([label is not None for label in labels] or [False])


def _plain(text: str | bytes | None) -> str | None:
    """Decode, trim, and read an empty text as None."""
    decoded = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    return (decoded or "").strip().strip("\0") or None
