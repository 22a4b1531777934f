"""Write ``annotation.hdf5`` of a synthetic episode: the 65 datasets of a real one, in the real layout."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.synthetic import mocap, sensors
from omni_mlflow.spine.synthetic.caption import caption_json
from omni_mlflow.spine.synthetic.motion import body_pose, draw_head_path
from omni_mlflow.spine.synthetic.rig import calibration
from omni_mlflow.spine.synthetic.world import FPS, SessionWorld

GENERATOR = {"synthetic": True, "generator": "omni-mlflow"}
"""Written as JSON to ``metadata/other``: no synthetic episode can be taken for a real one."""

BODY_HEIGHT_M = (1.55, 1.90)
_RECORDED_FROM = datetime(2026, 1, 1, tzinfo=UTC)

Datasets = dict[str, NDArray[np.generic] | bytes]


def write_annotation(path: Path, world: SessionWorld, *, invalid_body_share: float) -> None:
    """Write the annotation of ``world``: contiguous, uncompressed, without attributes or clocks.

    Args:
        invalid_body_share: share (0..1) of the frames whose body could not be fitted; NaN rows, in runs.
    """
    import h5py

    text = h5py.string_dtype("ascii")
    with h5py.File(path, "w") as file:
        for name, value in sorted(datasets_of(world, invalid_body_share=invalid_body_share).items()):
            file.create_dataset(name, data=value, dtype=text if isinstance(value, bytes) else None)


def datasets_of(world: SessionWorld, *, invalid_body_share: float) -> Datasets:
    """Return every dataset of the annotation by its path."""
    rng = np.random.default_rng([world.seed, 4])
    timestamps = _clock(rng, world)
    path = draw_head_path(rng)
    body_height_m = float(rng.uniform(*BODY_HEIGHT_M))
    pose = body_pose(world, path, body_height_m=body_height_m)
    invalid = mocap.invalid_runs(rng, frames=world.frames, share=invalid_body_share)
    in_contact = world.contacts()[: world.frames]
    groups: dict[str, dict[str, Any]] = {
        "calibration": dict(calibration(rng)),
        "slam": sensors.slam(rng, path, timestamps),
        "depth": sensors.depth(rng, world),
        "hand_mocap": mocap.hands(rng, pose, path),
        "full_body_mocap": mocap.full_body(rng, pose, path, in_contact=in_contact, invalid=invalid),
        "imu": sensors.imu(rng, path, timestamps),
        "video": {
            "device_timestamp": np.array([str(stamp) for stamp in timestamps], dtype="S14"),
            "frame_number": np.arange(world.frames),
            "length_sec": np.array(world.frames / FPS),
        },
        "metadata": _metadata(world, body_height_m=body_height_m),
    }
    found: Datasets = {
        f"{group}/{name}": value for group, members in groups.items() for name, value in members.items()
    }
    found["caption"] = caption_json(world, timestamps.tolist()).encode()
    return found


def device_clock(world: SessionWorld) -> NDArray[np.int64]:
    """Return the device time of every frame in nanoseconds, as in the annotation of ``world``."""
    return _clock(np.random.default_rng([world.seed, 4]), world)


def identity(world: SessionWorld) -> dict[str, bytes]:
    """Return what ``metadata`` says about where and when a session was recorded, whatever it shows."""
    recorded = _RECORDED_FROM + timedelta(hours=world.seed)
    return {
        "device_id": f"72{world.seed:08d}".encode(),
        "time_created": recorded.isoformat(timespec="microseconds").encode(),
        "health_report": json.dumps(_health_report(world, recorded), indent=2).encode(),
    }


def _clock(rng: np.random.Generator, world: SessionWorld) -> NDArray[np.int64]:
    return sensors.frame_clock(rng, seed=world.seed, frames=world.frames)


def _metadata(world: SessionWorld, *, body_height_m: float) -> Datasets:
    return {
        **identity(world),
        "body_height": np.array(body_height_m),
        "device_version": b"v2",
        "other": json.dumps(GENERATOR).encode(),
    }


def _health_report(world: SessionWorld, recorded: datetime) -> dict[str, Any]:
    root = f"/recordings/{world.seed}"
    drops = {"drop_event_count": 0, "drop_events": [], "drop_rate": 0.0, "ok": True}
    integrity = {
        "complete": True,
        "expected": {"files": ["imu.csv", "metadata.json", "mjpeg.bin"], "missing": [], "wav_missing": False},
        "failed": 0,
        "ok": 4,
        "total": 4,
    }
    recording = {
        "path": root,
        "ok": True,
        "failures": [],
        "file_integrity": integrity,
        "frame_drops": {
            "cam": {**drops, "expected_fps": float(FPS), "total_samples": world.frames},
            "imu": {**drops, "expected_fps": 200.0},
        },
        "mjpeg_corruption": {"corrupted_count": 0, "ok": True, "total_frames": world.frames + 1},
        "wav_mjpeg_overlap": {"errors": [], "gap_sec": 0.0, "ok": True},
    }
    return {"generated_at": recorded.isoformat(), "root": root, "recordings": [recording]}
