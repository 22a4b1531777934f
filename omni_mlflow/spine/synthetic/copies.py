"""Episodes that share something with another session, under another name: what a leak detector must find.

Every function gets the folder of a written episode, the world of its own session (``own``), and that of the
session which it has something of (``source``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import ANNOTATION
from omni_mlflow.spine.sensors import nearest
from omni_mlflow.spine.synthetic.annotation import device_clock, identity, write_annotation
from omni_mlflow.spine.synthetic.caption import caption_json
from omni_mlflow.spine.synthetic.caption_edits import paraphrased
from omni_mlflow.spine.synthetic.edits import editing, frame_clock, move_clock, replace, write_frame_clock
from omni_mlflow.spine.synthetic.sensors import IMU_PERIOD_NS, NANOSECONDS
from omni_mlflow.spine.synthetic.video_edits import recode_videos
from omni_mlflow.spine.synthetic.videos import write_video
from omni_mlflow.spine.synthetic.world import FPS, SessionWorld

COPIED_CAMERA = "stereo_left"
NOISE = 1e-4  # of a copy, relative: no array keeps its bytes, and nothing of what it says is lost
CUT_SHARE = 8  # a trimmed copy loses an eighth at either end; a shifted one starts as much later
FRAME_NS = NANOSECONDS // FPS

Copy = Callable[[Path, SessionWorld, SessionWorld], None]


def same_device_time(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    """Other contents, yet recorded by the device of ``source`` from the middle of its recording on."""
    with editing(folder) as file:
        replace(file, "metadata/device_id", identity(source)["device_id"])
        move_clock(file, int(device_clock(source)[own.frames // 2]))


def copied_annotation(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    write_annotation(folder / ANNOTATION, source, invalid_body_share=0)
    with editing(folder) as file:
        _rename(file, own)
        file.attrs["exported_for"] = str(own.seed)


def copied_video(folder: Path, _own: SessionWorld, source: SessionWorld) -> None:
    write_video(folder / f"{COPIED_CAMERA}.mp4", source, COPIED_CAMERA, sound=None)


def recoded(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    recode_videos(folder, first=0, stop=source.frames + 1)
    _disguise(folder, own)


def trimmed(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    cut = source.frames // CUT_SHARE
    recode_videos(folder, first=cut, stop=source.frames + 1 - cut)
    with editing(folder) as file:
        _recut_imu(file, first=cut, stop=source.frames - cut)
        _recut(file, first=cut, stop=source.frames - cut)
        _find_keyframes(file)
    _disguise(folder, own)


def time_shifted(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    """Everything happens later: the first frame is held, and as much is cut at the end."""
    late = source.frames // CUT_SHARE
    recode_videos(folder, first=-late, stop=source.frames + 1 - late)
    with editing(folder) as file:
        _recut_imu(file, first=-late, stop=source.frames - late)
        _recut(file, first=-late, stop=source.frames - late)
        _find_keyframes(file)
    _disguise(folder, own)


def mirrored(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    """Pictures are exchanged left for right, and with them what the inertial sensor felt."""
    recode_videos(folder, first=0, stop=source.frames + 1, mirrored=True)
    with editing(folder) as file:
        file["imu/accel_xyz"][...] *= (-1, 1, 1)
        file["imu/gyro_xyz"][...] *= (1, -1, -1)
    _disguise(folder, own)


def repeated_caption(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    with editing(folder) as file:
        replace(file, "caption", caption_json(source, device_clock(own).tolist()).encode())


def paraphrased_caption(folder: Path, own: SessionWorld, source: SessionWorld) -> None:
    with editing(folder) as file:
        told = paraphrased(json.loads(caption_json(source, device_clock(own).tolist())))
        replace(file, "caption", json.dumps(told).encode())


def _rename(file: Any, own: SessionWorld) -> None:
    for name, text in identity(own).items():
        replace(file, f"metadata/{name}", text)


def _disguise(folder: Path, own: SessionWorld) -> None:
    """Give a copy the device and the clock of ``own``, and every array a little noise."""
    rng = np.random.default_rng([own.seed, 6])
    with editing(folder) as file:
        _rename(file, own)
        move_clock(file, int(device_clock(own)[0]))
        for name in _sensor_arrays(file):
            array = file[name][()]
            if array.dtype.kind == "f":
                file[name][...] = array * (1 + NOISE * rng.standard_normal(array.shape))
            else:
                file[name][...] = array + rng.integers(0, 2, array.shape, array.dtype)


def _sensor_arrays(file: Any) -> list[str]:
    groups = ("slam", "depth", "hand_mocap", "full_body_mocap", "imu")
    names = [f"{group}/{name}" for group in groups for name in file[group]]
    of_time = (
        "slam/frame_names",
        "full_body_mocap/frame_nums",
        "imu/device_timestamp_ns",
        "imu/keyframe_indices",
    )
    return [name for name in names if file[name].ndim and name not in of_time]


def _recut(file: Any, *, first: int, stop: int) -> None:
    """Keep frames ``[first, stop)``; those before frame 0 are frame 0, held. The caption keeps its times."""
    clock = frame_clock(file)
    rows, outside = _clipped(first, stop, len(clock))
    for name in [name for name in _arrays(file) if len(file[name]) == len(clock)]:
        replace(file, name, file[name][()][rows])
    write_frame_clock(file, clock[rows] + outside * FRAME_NS)
    for name in ("video/frame_number", "full_body_mocap/frame_nums"):
        replace(file, name, np.arange(stop - first))
    file["video/length_sec"][...] = (stop - first) / FPS


def _recut_imu(file: Any, *, first: int, stop: int) -> None:
    """Keep the samples of frames ``[first, stop)``; those before the first are that one, held."""
    keyframes = file["imu/keyframe_indices"][()]

    def sample_at(frame: int) -> int:
        inside = min(max(frame, 0), len(keyframes) - 1)
        return int(keyframes[inside]) + round((frame - inside) * FRAME_NS / IMU_PERIOD_NS)

    stamps = file["imu/device_timestamp_ns"][()]
    rows, outside = _clipped(sample_at(first), sample_at(stop), len(stamps))
    for name in ("imu/accel_xyz", "imu/gyro_xyz"):
        replace(file, name, file[name][()][rows])
    replace(file, "imu/device_timestamp_ns", stamps[rows] + outside * IMU_PERIOD_NS)


def _find_keyframes(file: Any) -> None:
    stamps = file["imu/device_timestamp_ns"][()].astype(np.int64)
    replace(file, "imu/keyframe_indices", nearest(stamps, frame_clock(file)))


def _arrays(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return [name for name in names if getattr(file[name], "shape", ())]


def _clipped(first: int, stop: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which row of ``length`` rows stands at each place, and how far before or after it that is."""
    places = np.arange(first, stop)
    rows = np.clip(places, 0, length - 1)
    return rows, places - rows
