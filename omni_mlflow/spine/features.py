"""Sensor features of windows: what the rig, the hands, the body, the IMU and the depth camera did.

No answer is in them: neither captions nor contacts. Where a sensor is absent or invalid its numbers are 0
and its ``*_share`` says so; the length of a row never changes. A row looks at no frame after its window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.episodes import SIDES, EpisodeFile
from omni_mlflow.spine.poses import Bools, Floats, inverse, moved
from omni_mlflow.spine.types import Span

Columns = Mapping[str, Floats]

_THUMB_TIP, _INDEX_TIP = 4, 8
_PELVIS = 0
_DEPTH_PIXELS = 64  # about so many columns of a depth image are read: a median needs no more

_CAMERA = (
    "camera_share",
    "camera_right_m",
    "camera_down_m",
    "camera_forward_m",
    "camera_displacement_m",
    "camera_rotation_deg",
    "camera_speed_m_s",
    "camera_height_m",
)
_HAND = (
    "share",
    "wrist_right_m",
    "wrist_down_m",
    "wrist_forward_m",
    "wrist_displacement_m",
    "aperture_m",
)
_BODY = ("body_share", "pelvis_height_m")
_IMU = ("imu_share", "accel_mean_m_s2", "accel_std_m_s2", "gyro_mean_rad_s")
_DEPTH = ("depth_share", "depth_median_m", "depth_valid_share", "depth_confidence")

FEATURE_GROUPS: dict[str, tuple[str, ...]] = {
    "pose": _CAMERA,
    "mocap": (*(f"{side}_{name}" for side in SIDES for name in _HAND), *_BODY),
    "imu": _IMU,
    "depth": _DEPTH,
}
"""Names of the features, by the kind of sensor they come from."""

FEATURE_NAMES: tuple[str, ...] = tuple(name for group in FEATURE_GROUPS.values() for name in group)
"""What each column of :func:`window_features` is; units are the ends of the names.

``camera_right/down/forward`` is where the camera went, seen from where it looked at the window's start;
``wrist_right/down/forward`` is the mean place of the wrist in the camera's view of each frame;
``wrist_displacement`` is measured in the world, so a moving head does not count as a moving hand;
``camera_height`` and ``pelvis_height`` are above the ground.
"""


def window_features(episode: EpisodeFile, spans: Sequence[Span]) -> NDArray[np.float32]:
    """Return one row of features per span, shape (spans, len(FEATURE_NAMES)); every number is finite."""
    windows = _Windows(spans, episode.num_frames)
    poses, posed = episode.camera_to_world()
    columns: dict[str, Floats] = {
        **_camera(windows, episode, poses, posed),
        **_hands(windows, episode, poses, posed),
        **_body(windows, episode),
        **_imu(windows, episode),
        **_depth(windows, episode),
    }
    return np.stack([columns[name] for name in FEATURE_NAMES], axis=1).astype(np.float32)


def describe_features(row: Sequence[float] | NDArray[np.floating]) -> str:
    """Say the six most useful facts of a row in one line of at most 64 characters; ``-`` is not known.

    How far a hand moved in the world is known only where the head's pose is known too.
    """
    value = dict(zip(FEATURE_NAMES, (float(number) for number in row), strict=True))

    def fact(text: str, *shares: str) -> str:
        return text.format(**value) if all(value[share] > 0 for share in shares) else "-"

    return "; ".join(
        (
            "head " + fact("{camera_displacement_m:.2f}m {camera_rotation_deg:.0f}deg", "camera_share"),
            "left " + fact("{left_wrist_displacement_m:.2f}m", "left_share", "camera_share"),
            "right " + fact("{right_wrist_displacement_m:.2f}m", "right_share", "camera_share"),
            "depth " + fact("{depth_median_m:.2f}m", "depth_share"),
            "shake " + fact("{accel_std_m_s2:.1f}", "imu_share"),
        )
    )


class _Windows:
    """Vectorised questions about the frames ``[start, stop)`` of every window."""

    def __init__(self, spans: Sequence[Span], num_frames: int) -> None:
        self.starts = np.array([span.start for span in spans], dtype=np.int64)
        self.stops = np.minimum([span.stop for span in spans], num_frames).astype(np.int64)
        self.lengths = self.stops - self.starts

    def share(self, valid: Bools) -> Floats:
        return _sums(valid.astype(np.float64), self.starts, self.stops) / self.lengths

    def mean(self, values: Floats, valid: Bools) -> Floats:
        """Mean of the valid frames of each window; 0 where there is none."""
        counts = _sums(valid.astype(np.float64), self.starts, self.stops)
        totals = _sums(np.where(valid, values, 0.0), self.starts, self.stops)
        return totals / np.maximum(counts, 1.0)

    def ends(self, valid: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64], Bools]:
        """First and last valid frame of each window, and whether there is one at all."""
        frames = np.arange(len(valid))
        latest = np.maximum.accumulate(np.where(valid, frames, -1))
        following = np.where(valid, frames, len(valid))[::-1]
        following = np.minimum.accumulate(following)[::-1]
        first, last = following[self.starts], latest[self.stops - 1]
        found: Bools = (first < self.stops) & (last >= self.starts)
        return np.where(found, first, self.starts), np.where(found, last, self.starts), found


def _sums(values: Floats, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Floats:
    totals = np.concatenate(([0.0], np.cumsum(values)))
    return totals[stops] - totals[starts]


def _camera(windows: _Windows, episode: EpisodeFile, poses: Floats, posed: Bools) -> Columns:
    first, last, found = windows.ends(posed)
    relative = inverse(poses[first]) @ poses[last]
    relative[~found] = np.eye(4)
    steps = relative[:, :3, 3]
    displacement = np.linalg.norm(steps, axis=1)
    cosine = (np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1.0) / 2.0
    seconds = episode.seconds_of(last) - episode.seconds_of(first)
    height = poses[:, 2, 3] - episode.ground_height
    return {
        "camera_share": windows.share(posed),
        "camera_right_m": steps[:, 0],
        "camera_down_m": steps[:, 1],
        "camera_forward_m": steps[:, 2],
        "camera_displacement_m": displacement,
        "camera_rotation_deg": np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))),
        "camera_speed_m_s": np.divide(displacement, seconds, out=np.zeros_like(seconds), where=seconds > 0),
        "camera_height_m": windows.mean(height, posed),
    }


def _hands(windows: _Windows, episode: EpisodeFile, poses: Floats, posed: Bools) -> Columns:
    columns: dict[str, Floats] = {}
    for side, joints, seen in zip(SIDES, *episode.hands(), strict=True):
        wrists = joints[:, 0].astype(np.float64)
        placed = seen & posed
        first, last, found = windows.ends(placed)
        in_world = moved(poses, wrists[:, None])[:, 0]
        aperture = np.linalg.norm(joints[:, _THUMB_TIP] - joints[:, _INDEX_TIP], axis=1).astype(np.float64)
        columns |= {
            f"{side}_share": windows.share(seen),
            f"{side}_wrist_right_m": windows.mean(wrists[:, 0], seen),
            f"{side}_wrist_down_m": windows.mean(wrists[:, 1], seen),
            f"{side}_wrist_forward_m": windows.mean(wrists[:, 2], seen),
            f"{side}_wrist_displacement_m": np.where(
                found, np.linalg.norm(in_world[last] - in_world[first], axis=1), 0.0
            ),
            f"{side}_aperture_m": windows.mean(aperture, seen),
        }
    return columns


def _body(windows: _Windows, episode: EpisodeFile) -> Columns:
    body, valid = episode.body()
    height = body[:, _PELVIS, 2].astype(np.float64) - episode.ground_height
    return {"body_share": windows.share(valid), "pelvis_height_m": windows.mean(height, valid)}


def _imu(windows: _Windows, episode: EpisodeFile) -> Columns:
    imu = episode.imu()
    if imu is None:
        return {name: np.zeros(len(windows.starts)) for name in _IMU}
    starts = imu.keyframes[windows.starts]
    stops = np.maximum(imu.keyframes[windows.stops - 1], starts) + 1
    counts = np.maximum(_sums(imu.valid.astype(np.float64), starts, stops), 1.0)
    accel = np.where(imu.valid, np.linalg.norm(imu.accel, axis=1), 0.0)
    gyro = np.where(imu.valid, np.linalg.norm(imu.gyro, axis=1), 0.0)
    mean = _sums(accel, starts, stops) / counts
    variance = _sums(accel * accel, starts, stops) / counts - mean * mean
    return {
        "imu_share": windows.share(imu.covered),
        "accel_mean_m_s2": mean,
        "accel_std_m_s2": np.sqrt(np.maximum(variance, 0.0)),
        "gyro_mean_rad_s": _sums(gyro, starts, stops) / counts,
    }


def _depth(windows: _Windows, episode: EpisodeFile) -> Columns:
    """Two frames speak for a window, at a quarter and at three quarters of it: depth is 99 % of a file."""
    quarters = (windows.lengths // 4, 3 * windows.lengths // 4)
    sampled = np.stack([windows.starts + quarter for quarter in quarters], axis=1)
    frames, places = np.unique(sampled, return_inverse=True)
    facts = np.array([_depth_facts(episode, frame) for frame in frames.tolist()]).reshape(-1, len(_DEPTH))
    seen = facts[places.reshape(sampled.shape)]
    with_depth = seen[..., 0].sum(axis=1)
    means = seen.sum(axis=1) / np.maximum(with_depth, 1.0)[:, None]
    means[:, 0] = with_depth / sampled.shape[1]
    return dict(zip(_DEPTH, means.T, strict=True))


def _depth_facts(episode: EpisodeFile, frame: int) -> tuple[float, ...]:
    """Whether there is a valid pixel, then the median in metres, the valid share and the mean confidence."""
    rows = episode.depth_rows(frame, frame + 1)
    if rows is None:
        return (0.0,) * len(_DEPTH)
    step = max(1, rows.metres.shape[-1] // _DEPTH_PIXELS)
    metres, confidence, valid = (array[0, ::step, ::step] for array in rows)
    if not valid.any():
        return (0.0,) * len(_DEPTH)
    return 1.0, float(np.median(metres[valid])), float(valid.mean()), float(confidence.mean())
