"""Small episodes made by hand, in which every number is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

NUM_FRAMES = 8
FIRST_NS = 72857807732824
STAMPS_NS = [FIRST_NS + 50_000_000 * frame for frame in range(NUM_FRAMES)]


def caption(*segments: Mapping[str, Any], main_task: str | None = "Sorting blocks") -> str:
    return json.dumps({"config": {"Main Task": main_task}, "segments": list(segments)})


def segment(
    start: Any,
    end: Any,
    *actions: tuple[str, Any, Any],
    subtask: str = "Sort",
    objects: Mapping[str, Any] | None = None,
    interaction: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One segment of a caption; an action is (label, first frame, last frame)."""
    return {
        "start_frame": start,
        "end_frame": end,
        "Sub Task": subtask,
        "Current Action": [
            {"label": label, "description": "", "start_frame": first, "end_frame": last}
            for label, first, last in actions
        ],
        "objects": dict(objects or {}),
        "interaction": dict(interaction or {}),
    }


def annotation(num_frames: int = NUM_FRAMES) -> dict[str, Any]:
    """Datasets of an episode that stands still at the world's origin and sees both hands."""
    stamps = [FIRST_NS + 50_000_000 * frame for frame in range(num_frames)]
    hand = np.zeros((num_frames, 21, 3), dtype=np.float32)
    hand[..., 2] = 0.5
    body = np.zeros((num_frames, 52, 3), dtype=np.float32)
    body[:, 0, 2] = -0.75
    imu_ns = np.arange(stamps[0], stamps[-1] + 5_000_000, 5_000_000, dtype=np.float64)
    return {
        "slam/quat_wxyz": np.tile([1.0, 0, 0, 0], (num_frames, 1)),
        "slam/trans_xyz": np.zeros((num_frames, 3)),
        "slam/frame_names": np.array([f"{stamp}.jpg" for stamp in stamps], dtype="S18"),
        "slam/point_cloud": np.arange(15.0).reshape(5, 3),
        "calibration/cam01/T_c0_b": np.eye(4),
        "depth/depth": np.full((num_frames, 4, 4), 2.0, dtype=np.float32),
        "depth/confidence": np.full((num_frames, 4, 4), 204, dtype=np.uint8),
        "hand_mocap/left_joints_3d": hand,
        "hand_mocap/right_joints_3d": hand,
        "full_body_mocap/keypoints": body,
        "full_body_mocap/contacts": np.full((num_frames, 21), 1e-4, dtype=np.float32),
        "imu/device_timestamp_ns": imu_ns,
        "imu/accel_xyz": np.tile([0.0, 0.0, 10.0], (len(imu_ns), 1)),
        "imu/gyro_xyz": np.zeros((len(imu_ns), 3)),
        "imu/keyframe_indices": np.arange(num_frames) * 10,
        "video/device_timestamp": np.array([str(stamp) for stamp in stamps], dtype="S14"),
        "metadata/device_id": "7211577584",
        "metadata/body_height": 1.75,
        "caption": caption(
            segment(
                str(stamps[0]),
                str(stamps[-1]),
                ("Brush block", stamps[0], stamps[-1]),
                objects={str(stamps[0]): ["block"]},
            )
        ),
    }


def grey_of(frame: int) -> int:
    """The grey level of frame ``frame`` of a test video: tells frames apart after lossy encoding."""
    return 24 + 8 * (frame % 26)


def write_video(
    path: Path,
    num_frames: int,
    *,
    size: tuple[int, int] = (32, 32),
    audio_s: float = 0.0,
    seed: int = 0,
    fps: int = 20,
) -> Path:
    """Write an MP4 with B-frames whose frame i is all grey of level ``grey_of(i + seed)``.

    The sound, if any, is silence with one click of 10 ms at 0.1 s.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "bf": "2", "g": "12", "preset": "ultrafast", "threads": "1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="mono") if audio_s else None
        for number in range(num_frames):
            image = np.full((size[1], size[0], 3), grey_of(number + seed), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = np.zeros((1, round(audio_s * 44_100)), dtype=np.float32)
            samples[0, 4410:4851] = 0.9
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path
