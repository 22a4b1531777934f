"""When each frame was taken, and what captions call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import AnnotationFile
from omni_mlflow.spine.frame_clock import Stamps

_STAMPS_BY_FRAME = ("video/device_timestamp", "slam/frame_names")
_IMU_STAMPS, _IMU_FRAMES = "imu/device_timestamp_ns", "imu/keyframe_indices"
_LONGEST_STAMP = 18  # digits that surely fit 64 bits
_LARGEST_STAMP = 2**62  # and so does the difference of any two up to here


def frame_names(annotation: AnnotationFile) -> tuple[str, ...]:
    """Return ``<device timestamp>.jpg`` of each frame, also where SLAM failed.

    SLAM's own names are taken where it names every frame. Where there is no clock either, frames are counted:
    ``frame_000000.jpg`` and so on, as the data set's toolkit does.
    """
    if "slam/frame_names" in annotation:
        names = annotation.texts("slam/frame_names")
        if len(names) == annotation.num_frames and all(names):
            return names
    stamps = device_timestamps_ns(annotation)
    if stamps is not None:
        return tuple(f"{stamp}.jpg" for stamp in stamps.tolist())
    return tuple(f"frame_{index:06d}.jpg" for index in range(annotation.num_frames))


def device_timestamps_ns(annotation: AnnotationFile) -> Stamps | None:
    """Return the time of each frame on the device's own monotonic clock, shape (N,); None when unknown.

    Where no array holds it, the inertial sample nearest to each frame tells it to about 3 ms, unless two
    frames are said to share one.
    """
    for name in _STAMPS_BY_FRAME:
        stamps = _stamps_in(annotation, name)
        if stamps is not None:
            return stamps
    return _imu_time_of_frames(annotation)


def clock_array(annotation: AnnotationFile) -> str:
    """Name the array that :func:`device_timestamps_ns` is read from."""
    told = (name for name in _STAMPS_BY_FRAME if _stamps_in(annotation, name) is not None)
    return next(told, _IMU_STAMPS)


def _stamps_in(annotation: AnnotationFile, name: str) -> Stamps | None:
    if name not in annotation:
        return None
    return _whole_numbers([text.rsplit(".", 1)[0] for text in annotation.texts(name)])


def sample_timestamps_ns(annotation: AnnotationFile) -> tuple[Stamps, NDArray[np.bool_]]:
    """Return the time of each inertial sample, and which of them are known; the others are 0."""
    stored = annotation.array(_IMU_STAMPS)
    if stored.dtype.kind not in "fiu":
        stored = np.array([_number_or_nan(value) for value in stored.tolist()], dtype=np.float64)
    known = np.isfinite(stored) & (np.abs(stored) < _LARGEST_STAMP)
    return np.where(known, stored, 0).astype(np.int64), known


def is_recorded(annotation: AnnotationFile) -> bool:
    """Whether the time of each frame is stored, not only told by the inertial samples."""
    return any(name in annotation for name in _STAMPS_BY_FRAME)


def _imu_time_of_frames(annotation: AnnotationFile) -> Stamps | None:
    if _IMU_STAMPS not in annotation or _IMU_FRAMES not in annotation:
        return None
    stamps, known = sample_timestamps_ns(annotation)
    stored = annotation.floats(_IMU_FRAMES)
    if len(stored) < annotation.num_frames or not ((stored >= 0) & (stored < len(stamps))).all():
        return None
    nearest = stored.astype(np.int64)
    advances = (np.diff(stamps[nearest]) > 0).all()
    return stamps[nearest] if known[nearest].all() and advances else None


def _whole_numbers(texts: Sequence[str]) -> Stamps | None:
    if not all(text.isascii() and text.isdecimal() and len(text) <= _LONGEST_STAMP for text in texts):
        return None
    return np.array(texts, dtype=np.int64)


def _number_or_nan(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan
