"""What the inertial unit and the depth camera record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import AnnotationFile, UnreadableEpisodeError
from omni_mlflow.spine.clock import sample_timestamps_ns
from omni_mlflow.spine.frame_clock import Stamps
from omni_mlflow.spine.layout import possible
from omni_mlflow.spine.poses import Bools, Floats

IMU_ARRAYS = ("imu/device_timestamp_ns", "imu/accel_xyz", "imu/gyro_xyz")
DEPTH_ARRAYS = ("depth/depth", "depth/confidence")

_MIN_CONFIDENCE = 0.2
_FULL_CONFIDENCE = 255.0
_IMU_GAP_NS = 10_000_000
_MAP_SHARE = 95.0  # per cent of the map's points that are kept: the others are far outliers


@dataclass(frozen=True)
class Imu:
    """Inertial samples at about 200 Hz, on the clock of the frames.

    Attributes:
        timestamps_ns: shape (samples,), ascending.
        accel: shape (samples, 3), m/s^2, body frame, gravity included; NaN where not valid.
        gyro: shape (samples, 3), rad/s, body frame; NaN where not valid.
        valid: shape (samples,), whether all six numbers of a sample are finite and can have been measured.
        keyframes: shape (num_frames,), the sample that stands for each frame.
        covered: shape (num_frames,), whether that sample is valid and within 10 ms of the frame.
        misplaced: shape (num_frames,), whether the file names another sample, one that is not within 10 ms of
            the frame.
    """

    timestamps_ns: NDArray[np.int64]
    accel: Floats
    gyro: Floats
    valid: Bools
    keyframes: NDArray[np.int64]
    covered: Bools
    misplaced: Bools


class DepthRows(NamedTuple):
    """Depth images of the rectified left camera, shape (rows, height, width).

    Attributes:
        metres: distance along the optical axis.
        confidence: 0..1; what is stored as none of these is 0.
        valid: above 0, possible and of confidence at least 0.2.
    """

    metres: NDArray[np.float32]
    confidence: NDArray[np.float32]
    valid: Bools


def read_imu(annotation: AnnotationFile, clock: Stamps) -> Imu | None:
    """Read all inertial samples; None where they are absent.

    The sample that the file names for a frame is taken where the clock agrees to 10 ms, else the nearest one:
    also where the file does not name one for every frame, or samples were left out or put in order.

    Args:
        clock: time of each frame on the device's clock.
    """
    if not all(name in annotation for name in IMU_ARRAYS):
        return None
    stamps, known = sample_timestamps_ns(annotation)
    readings = [annotation.numbers(name) for name in IMU_ARRAYS[1:]]
    count = min(len(stamps), *map(len, readings))
    order = np.flatnonzero(known[:count])
    order = order[np.argsort(stamps[order], kind="stable")]
    if not len(order):
        return None
    stamps = stamps[order]
    accel, gyro = (reading[order] for reading in readings)
    measured = [possible(name, each) for name, each in zip(IMU_ARRAYS[1:], (accel, gyro), strict=True)]
    valid: Bools = np.logical_and.reduce(np.hstack(measured), axis=1)
    accel[~valid] = gyro[~valid] = np.nan
    closest = nearest(stamps, clock)
    in_place = len(order) == count and bool((np.diff(order) == 1).all())
    named = _named_samples(annotation, count, clock) if in_place else None
    keyframes = closest if named is None else np.where(_near(stamps[named], clock), named, closest)
    covered = _near(stamps[keyframes], clock) & valid[keyframes]
    misplaced = np.zeros(len(clock), dtype=bool) if named is None else keyframes != named
    return Imu(stamps, accel, gyro, valid, keyframes, covered, misplaced)


def _named_samples(annotation: AnnotationFile, count: int, clock: Stamps) -> NDArray[np.int64] | None:
    """Read which of ``count`` samples the file names for each frame; None where it has too few rows."""
    name = "imu/keyframe_indices"
    if name not in annotation or annotation.shape(name)[0] < len(clock):
        return None
    return np.clip(np.nan_to_num(annotation.floats(name)), 0, count - 1).astype(np.int64)


def _near(stamps: Stamps, clock: Stamps) -> Bools:
    close: Bools = np.abs(stamps - clock) <= _IMU_GAP_NS
    return close


def read_depth(annotation: AnnotationFile, rows: slice) -> DepthRows | None:
    """Read a few depth images; None when depth or its confidence is not recorded.

    Raises:
        UnreadableEpisodeError: the two do not have the same size.
    """
    if not all(name in annotation for name in DEPTH_ARRAYS):
        return None
    sizes = [annotation.shape(name)[1:] for name in DEPTH_ARRAYS]
    if sizes[0] != sizes[1]:
        reason = f"depth images of {sizes[0]} pixels have a confidence of {sizes[1]}"
        raise UnreadableEpisodeError(annotation.path, reason, "leave this episode out")
    metres, stored = (annotation.numbers(name, rows) for name in DEPTH_ARRAYS)
    confidence = np.where((stored >= 0) & (stored <= _FULL_CONFIDENCE), stored, 0).astype(np.float32)
    confidence /= _FULL_CONFIDENCE
    measured = possible(DEPTH_ARRAYS[0], metres)
    valid = measured & (metres > 0) & (confidence >= _MIN_CONFIDENCE)
    return DepthRows(np.where(measured, metres, np.nan).astype(np.float32), confidence, valid)


def read_map(annotation: AnnotationFile) -> Floats:
    """Read the points of SLAM's map, shape (points, 3), world frame; none where there is no map.

    Kept are the nearest 95 % to their median, as in the data set's toolkit.
    """
    if "slam/point_cloud" not in annotation:
        return np.zeros((0, 3))
    points = annotation.numbers("slam/point_cloud")
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return points
    distances = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    kept: Floats = points[distances <= np.percentile(distances, _MAP_SHARE)]
    return kept


def nearest(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each value the index of the nearest entry of ``ascending``; the earlier one on a tie."""
    after = np.clip(np.searchsorted(ascending, values), 1, max(len(ascending) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(ascending) - 1)
    closer = np.abs(ascending[after] - values) < np.abs(ascending[before] - values)
    return np.where(closer, after, before).astype(np.int64)
