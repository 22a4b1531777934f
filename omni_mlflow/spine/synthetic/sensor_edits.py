"""Sensors that failed, and groups of the annotation that are absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.sensors import nearest
from omni_mlflow.spine.synthetic.edits import (
    edit_caption,
    editing,
    frame_clock,
    replace,
    retimed,
    write_frame_clock,
)
from omni_mlflow.spine.synthetic.mocap import DUPLICATED
from omni_mlflow.spine.synthetic.sensors import IMU_PERIOD_NS, NANOSECONDS
from omni_mlflow.spine.synthetic.video_edits import delay_pictures
from omni_mlflow.spine.synthetic.world import FPS


def removed(*names: str) -> Callable[[Path], None]:
    """Return an edit that unlinks these groups or datasets; the file does not shrink."""

    def edit(folder: Path) -> None:
        with editing(folder) as file:
            for name in names:
                del file[name]

    return edit


def invalid_runs(folder: Path) -> None:
    with editing(folder) as file:
        for name in DUPLICATED:
            for run in (slice(20, 25), slice(40, 48)):
                file[f"full_body_mocap/{name}"][run] = np.nan
        file["full_body_mocap/keypoints"][52] = 0
        for name in file["hand_mocap"]:
            rows, value = (slice(0, 15), 0) if name.startswith("right") else (slice(30, 34), np.nan)
            file[f"hand_mocap/{name}"][rows] = value


def bad_slam(folder: Path) -> None:
    with editing(folder) as file:
        file["slam/quat_wxyz"][7] = 0
        file["slam/quat_wxyz"][8] = np.nan


def sample_axis(folder: Path) -> None:
    with editing(folder) as file:
        for name in ("full_body_mocap/keypoints", "full_body_mocap/contacts"):
            replace(file, name, file[name][()][None])


def compressed(folder: Path) -> None:
    names: list[str] = []
    with editing(folder) as file:
        file.visit(names.append)
        for name in names:
            if getattr(file[name], "shape", ()):
                replace(file, name, file[name][()], compression="gzip")


def dropped_frames(folder: Path) -> None:
    """Lose one frame at three places: the next one comes 100 ms after the one before, also in the videos."""
    with editing(folder) as file:
        old = frame_clock(file)
        lost_after = [len(old) * quarter // 4 for quarter in (1, 2, 3)]
        periods = np.searchsorted(lost_after, np.arange(len(old)))
        new = old + periods * (NANOSECONDS // FPS)
        write_frame_clock(file, new)
        time_of = dict(zip(old.tolist(), new.tolist()))
        edit_caption(file, lambda document: retimed(document, lambda stamp: time_of.get(stamp, stamp)))
        _stretch_imu(file, old, new)
    delay_pictures(folder, after=lost_after)


def _stretch_imu(file: Any, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
    """Let the inertial samples go on at their rate while the frames wait: ``old`` and ``new`` clock, (N,)."""
    stamps = file["imu/device_timestamp_ns"][()]
    added = np.arange(1, (new[-1] - old[-1]) // IMU_PERIOD_NS + 1)
    stretched = np.concatenate([stamps, stamps[-1] + IMU_PERIOD_NS * added])
    moments = np.interp(stretched, new, old)
    for name in ("imu/accel_xyz", "imu/gyro_xyz"):
        axes = [np.interp(moments, stamps, axis) for axis in file[name][()].T]
        replace(file, name, np.stack(axes, axis=1))
    replace(file, "imu/device_timestamp_ns", stretched)
    file["imu/keyframe_indices"][...] = nearest(stretched.astype(np.int64), new)
