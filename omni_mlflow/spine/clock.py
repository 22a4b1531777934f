"""When each frame was taken, and what captions call it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import AnnotationFile
from omni_mlflow.spine.frame_clock import NOMINAL_FPS, Stamps
from omni_mlflow.spine.lost_frames import num_recorded

_STAMPS_BY_FRAME = ("video/device_timestamp", "slam/frame_names")
_IMU_STAMPS, _IMU_FRAMES = "imu/device_timestamp_ns", "imu/keyframe_indices"
_LONGEST_STAMP = 18  # digits that surely fit 64 bits
_NOMINAL_PERIOD_NS = round(1e9 / NOMINAL_FPS)
_LARGEST_STAMP = 2**62  # and so does the difference of any two up to here


def frame_names(annotation: AnnotationFile) -> tuple[str, ...]:
    """Return ``<device timestamp>.jpg`` of each frame, also where SLAM failed, of *all* that were recorded.

    Those are as many as the longest frame array has rows, however short another one is: a caption speaks of
    the frames after the cut, too, and what it says of them must not fall to the last one before it.

    SLAM's own names are taken where it names every frame. Frames that no array stamps follow at the nominal
    rate. Where there is no clock at all, frames are counted: ``frame_000000.jpg`` and so on, as the data
    set's toolkit does.
    """
    names = _named_by_slam(annotation)
    if len(names) == num_recorded(annotation):
        return names
    if stamps := _longest_clock(annotation):
        missing = num_recorded(annotation) - len(stamps)
        stamps += [stamps[-1] + frame * _NOMINAL_PERIOD_NS for frame in range(1, missing + 1)]
        return tuple(f"{stamp}.jpg" for stamp in stamps)
    if len(names) >= annotation.num_frames:
        return names
    return tuple(f"frame_{index:06d}.jpg" for index in range(num_recorded(annotation)))


def _named_by_slam(annotation: AnnotationFile) -> tuple[str, ...]:
    """Return SLAM's names up to the first that is empty."""
    if "slam/frame_names" not in annotation:
        return ()
    return tuple(takewhile(bool, annotation.texts("slam/frame_names")))


def _longest_clock(annotation: AnnotationFile) -> list[int]:
    """Return the stamps of the array that has most of them; none where all lack a frame that is used."""
    clocks = [_leading_stamps(annotation, name) for name in _STAMPS_BY_FRAME if name in annotation]
    longest = max(clocks, key=len, default=[])
    if len(longest) >= annotation.num_frames:
        return longest
    told = _imu_time_of_frames(annotation)
    return [] if told is None else told.tolist()


def _leading_stamps(annotation: AnnotationFile, name: str) -> list[int]:
    stems = (text.rsplit(".", 1)[0] for text in annotation.texts(name))
    return [int(stem) for stem in takewhile(_is_stamp, stems)]


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
    return _whole_numbers(
        [text.rsplit(".", 1)[0] for text in annotation.texts(name)[: annotation.num_frames]]
    )


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
    return np.array(texts, dtype=np.int64) if all(map(_is_stamp, texts)) else None


def _is_stamp(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_STAMP


def _number_or_nan(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan
