"""One Xperience-10M episode folder: its frames, clock, poses, hands, body, IMU, depth and captions.

Row i of every array belongs to decoded frame i of every video. Frames of reference: *world* has z up and
its origin near the start of SLAM; *camera* is the rectified left camera (x right, y down, z forward);
*body* is the rig, not the person. All lengths are metres. What is absent or invalid is masked, never
repaired: a masked row is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine import clock
from omni_mlflow.spine.annotation import ANNOTATION, AnnotationFile, UnreadableEpisodeError
from omni_mlflow.spine.calibration import Camera, depth_intrinsics, read_camera
from omni_mlflow.spine.caption_references import CaptionRule
from omni_mlflow.spine.caption_texts import caption_texts
from omni_mlflow.spine.captions import FrameCaptions, map_captions
from omni_mlflow.spine.coverage import reason_for_absence, sampled_frames, valid_frames
from omni_mlflow.spine.frame_clock import NOMINAL_FPS, FrameClock, frame_clock
from omni_mlflow.spine.layout import DATASETS, LARGEST, MOST_OF, possible
from omni_mlflow.spine.poses import Bools, Floats, inverse, rigid_motions
from omni_mlflow.spine.sensors import DepthRows, Imu, nearest, read_depth, read_imu, read_map
from omni_mlflow.spine.strict_json import NotAJsonObjectError
from omni_mlflow.spine.types import CAMERAS

__all__ = ["ANNOTATION", "NOMINAL_FPS", "EpisodeFile", "UnreadableEpisodeError", "nearest", "open_episode"]

SIDES = ("left", "right")
CONTACT_GROUPS = {
    "hands": (19, 20),
    "feet": (6, 7, 9, 10),
    "other": (0, 1, 2, 3, 4, 5, 8, *range(11, 19)),
}
"""Columns of ``contacts``: column c belongs to SMPL-H joint c + 1, so 19 and 20 are the wrists."""

_GROUND_HEIGHT_M = -1.75


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
        if self.num_frames > MOST_OF["N"]:
            reason = f"it declares {self.num_frames:,} frames, and a recording has at most {MOST_OF['N']:,}"
            raise UnreadableEpisodeError(annotation.path, reason, "leave this episode out")

    @cached_property
    def frame_names(self) -> tuple[str, ...]:
        """What captions call each frame, N names: see :func:`omni_mlflow.spine.clock.frame_names`."""
        return clock.frame_names(self.annotation)[: self.num_frames]

    @cached_property
    def device_timestamps_ns(self) -> NDArray[np.int64] | None:
        """Time of each frame on the device's own monotonic clock, shape (N,); None when not recorded."""
        return clock.device_timestamps_ns(self.annotation)

    @property
    def device_clock_ns(self) -> tuple[int, int] | None:
        clock = self.device_timestamps_ns
        return None if clock is None else (int(clock[0]), int(clock[-1]))

    @cached_property
    def frame_clock(self) -> FrameClock:
        """When each frame was taken, and how many there are in a second."""
        return frame_clock(self.device_timestamps_ns, self.num_frames)

    @property
    def fps(self) -> float:
        """Frames per second by the device clock; the nominal 20 where there is none."""
        return self.frame_clock.fps

    @property
    def length_s(self) -> float:
        return self.frame_clock.length_s

    def seconds_at(self, frame: int) -> float:
        """Time of a frame after frame 0, see :meth:`~omni_mlflow.spine.frame_clock.FrameClock.seconds_at`."""
        return self.frame_clock.seconds_at(frame)

    def seconds_of(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Times of several frames after frame 0."""
        return self.frame_clock.seconds_of(frames)

    @cached_property
    def device_id(self) -> str | None:
        return self.annotation.plain_text("metadata/device_id")

    @cached_property
    def synthetic(self) -> bool:
        """Whether this project's generator wrote the episode: it says so in ``metadata/other``."""
        try:
            return self.annotation.document("metadata/other").get("synthetic") is True
        except NotAJsonObjectError:
            return False

    @cached_property
    def ground_height(self) -> float:
        """World height of the floor: stored, or the wearer's height below the origin, else -1.75 m."""
        for group in ("", "metadata/"):
            for name, sign in (("ground_height", 1.0), ("floor_z", 1.0), ("body_height", -1.0)):
                height = self.annotation.number(group + name)
                if height is not None and abs(height) <= LARGEST["m"]:
                    return sign * height
        return _GROUND_HEIGHT_M

    @cached_property
    def main_task(self) -> str | None:
        captions = self.captions()
        return None if captions is None else captions.main_task

    def captions(self, rule: CaptionRule = "new") -> FrameCaptions | None:
        """Return the caption laid out over the N frames; None when there is none that can be read."""
        captions = self.recorded_captions(rule)
        return None if captions is None else captions.until(self.num_frames)

    def recorded_captions(self, rule: CaptionRule = "new") -> FrameCaptions | None:
        """Return the caption laid out over all frames that were recorded, also those after the N in use."""
        if rule not in self._captions:
            texts, names = self.caption_texts.values(), clock.frame_names(self.annotation)
            mapped = (map_captions(text, names, rule=rule) for text in texts)
            self._captions[rule] = next((captions for captions in mapped if captions), None)
        return self._captions[rule]

    @cached_property
    def caption_texts(self) -> dict[str, str | bytes]:
        """What may be the caption, by the name of the dataset that holds it or of the file beside it."""
        return caption_texts(self.annotation, self.folder)

    def video_files(self, *, swap_fisheye_cam0_cam2: bool = False) -> dict[str, Path]:
        """Return the video of each camera that has one, in the order of ``CAMERAS``.

        In some recordings ``fisheye_cam0.mp4`` and ``fisheye_cam2.mp4`` seem to hold each other's pictures:
        the calibration is sound, the names of the files are not. Nothing in the annotation tells.

        Args:
            swap_fisheye_cam0_cam2: take each of the two cameras from the other one's file.
        """
        other = {"fisheye_cam0": "fisheye_cam2", "fisheye_cam2": "fisheye_cam0"}
        swapped = other if swap_fisheye_cam0_cam2 else {}
        paths = {camera: self.folder / f"{swapped.get(camera, camera)}.mp4" for camera in CAMERAS}
        return {camera: path for camera, path in paths.items() if path.is_file()}

    def camera(self, name: str) -> Camera:
        """Return how one of the six cameras sees and where it sits on the rig.

        The calibration is that of the camera called ``name``. Whether the file of that name is that camera's
        is another question: see ``swap_fisheye_cam0_cam2`` in a contract's ``windows``.
        """
        return read_camera(self.annotation, name)

    @property
    def depth_intrinsics(self) -> Floats | None:
        """fx, fy, cx, cy in pixels of the depth images, shape (4,); None when not recorded."""
        return depth_intrinsics(self.annotation)

    def camera_to_world(self, camera: str = "stereo_left") -> tuple[Floats, Bools]:
        """Return T_world_camera of one camera, shape (N, 4, 4), and which frames have one, shape (N,).

        SLAM stores world to body and the calibration body to camera: T_camera_world = T_camera_body T_b_w.
        """
        return self._posed(self.camera(camera).from_body)

    def body_to_world(self) -> tuple[Floats, Bools]:
        """Return T_world_body of the rig, shape (N, 4, 4), and which frames have one, shape (N,)."""
        return self._posed(np.eye(4))

    def point_cloud(self) -> Floats:
        """Return the map that SLAM made, shape (points, 3), world frame: without its 5 % of far outliers."""
        return read_map(self.annotation)

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

    def mocap(self, name: str) -> tuple[NDArray[np.float32], Bools]:
        """Return any array of a hand or of the body, one row per frame, and validity, shape (N,).

        A row is valid where the hand or the body itself is and all of its numbers are possible; others are
        NaN, and so is every row when the array is absent.

        Args:
            name: such as ``hand_mocap/left_translation``; :data:`omni_mlflow.spine.layout.DATASETS` says what
                it holds.

        Raises:
            KeyError: a recording has no array of that name.
            UnreadableEpisodeError: it has an unknown shape, holds no numbers, or its bytes cannot be read.
        """
        if name not in DATASETS or not name.startswith(("hand_mocap/", "full_body_mocap/")):
            raise KeyError(f"{name!r} is no array of a hand or of the body; see layout.DATASETS")
        sizes = (int(size) for size in DATASETS[name].shape[1:])
        rows = np.full((self.num_frames, *sizes), np.nan)
        if name in self.annotation:
            rows = self.annotation.floats(name)
        side = next(
            (place for place, side in enumerate(SIDES) if name.startswith(f"hand_mocap/{side}_")), None
        )
        seen = self.body()[1] if side is None else self.hands()[1][side]
        valid = seen & possible(name, rows).reshape(len(rows), -1).all(axis=1)
        rows[~valid] = np.nan
        return rows.astype(np.float32), valid

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

    def contact_of(self, group: str, threshold: float = 0.5) -> tuple[Bools, Bools]:
        """Return whether a joint of ``CONTACT_GROUPS[group]`` touches something, and validity, shape (N,)."""
        touching, valid = self.contacts(threshold)
        return np.logical_or.reduce(touching[:, CONTACT_GROUPS[group]], axis=1), valid

    def hand_contact(self) -> tuple[Bools, Bools]:
        """Return whether a wrist touches something at each frame, shape (N,), and validity, shape (N,).

        This is the contact that windows are labelled with and that is reported.
        """
        return self.contact_of("hands")

    def published_contact(self) -> Bools:
        """Return the contact label of earlier published results, shape (N,): any probability above 0.

        It is noise wherever there is a body and False wherever there is none. Kept to reproduce their
        numbers; nothing of ours is labelled with it.
        """
        if "full_body_mocap/contacts" not in self.annotation:
            return np.zeros(self.num_frames, dtype=bool)
        above: Bools = np.logical_or.reduce(self.annotation.floats("full_body_mocap/contacts") > 0, axis=1)
        return above

    def imu(self) -> Imu | None:
        """Return all inertial samples; None where samples or a clock to place them are absent."""
        stamps = self.device_timestamps_ns
        return None if stamps is None else read_imu(self.annotation, stamps)

    def depth_rows(self, start: int, stop: int) -> DepthRows | None:
        """Read the depth of frames ``[start, stop)`` only (all of it may be 2 GB); None when not recorded."""
        return read_depth(self.annotation, slice(start, min(stop, self.num_frames)))

    def coverage(self) -> dict[str, float]:
        """Return for each modality the share of frames (0..1) for which it is present and valid.

        It is an estimate for what :meth:`sampled` names.
        """
        return {name: float(valid.mean()) for name, valid in self.valid_frames.items()}

    def sampled(self) -> dict[str, int]:
        """Return how many frames, spread evenly over the episode, a coverage was estimated from.

        Depth alone is: reading all of it would take minutes. The coverage of all else looked at every frame.
        """
        return sampled_frames(self)

    def missing(self) -> dict[str, str]:
        """Return the name of each modality that no frame has, with the reason."""
        return {name: reason_for_absence(self, name) for name, share in self.coverage().items() if share == 0}

    @cached_property
    def valid_frames(self) -> dict[str, Bools]:
        return valid_frames(self)

    def _posed(self, camera_from_body: Floats) -> tuple[Floats, Bools]:
        if "slam/quat_wxyz" not in self.annotation or "slam/trans_xyz" not in self.annotation:
            return np.full((self.num_frames, 4, 4), np.nan), np.zeros(self.num_frames, dtype=bool)
        quaternions = self.annotation.floats("slam/quat_wxyz")
        translations = self.annotation.floats("slam/trans_xyz")
        body_from_world, valid = rigid_motions(quaternions, translations)
        poses = inverse(camera_from_body @ body_from_world)
        return poses, valid & np.isfinite(poses).all(axis=(1, 2))
