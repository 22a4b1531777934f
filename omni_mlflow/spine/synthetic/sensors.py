"""What the rig itself records besides pictures and sound: clock, poses, inertial samples, depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.synthetic.motion import HeadPath
from omni_mlflow.spine.synthetic.rig import inverse
from omni_mlflow.spine.synthetic.world import FPS, FRAME_SIZES, SessionWorld

NANOSECONDS = 1_000_000_000
FIRST_FRAME_NS = 10_000 * NANOSECONDS  # 14 digits, as all that follow
SLOT_NS = 300 * NANOSECONDS  # the longest episodes last as long
NUM_SLOTS = 299
FIRST_GAP_NS = 47_052_875
GAP_JITTER_NS = 300_000

IMU_PERIOD_NS = 5_011_500
IMU_JITTER_NS = 400_000
IMU_START_NS = 3_300_000
GRAVITY = 9.81
ACCEL_NOISE, GYRO_NOISE = 0.05, 0.01  # m/s^2, rad/s

NUM_MAP_POINTS = 47
DEPTH_SCALE = 0.5  # depth maps have half the size of the stereo images
TABLE_DEPTH_M = (1.4, 0.7)  # top and bottom row
BLOCK_ABOVE_TABLE_M = 0.15
NO_OVERLAP_COLUMNS = 2  # the right camera does not see what the left one sees there


def frame_clock(rng: np.random.Generator, *, seed: int, frames: int) -> NDArray[np.int64]:
    """Return the device time of every frame in nanoseconds: 20 Hz with jitter, after a short first gap.

    Sessions whose seeds differ by less than ``NUM_SLOTS`` do not overlap.
    """
    gaps = NANOSECONDS // FPS + rng.integers(-GAP_JITTER_NS, GAP_JITTER_NS, frames)
    gaps[0] = 0
    gaps[1] = FIRST_GAP_NS
    start = FIRST_FRAME_NS + (seed % NUM_SLOTS) * SLOT_NS + int(rng.integers(NANOSECONDS))
    return np.asarray(start + np.cumsum(gaps), np.int64)


def slam(
    rng: np.random.Generator, path: HeadPath, timestamps: NDArray[np.int64]
) -> dict[str, NDArray[np.generic]]:
    """Return the group ``slam``: world to body as unit quaternion and translation, and a sparse map."""
    world_to_rig = inverse(path.rig_to_world(np.arange(len(timestamps)) / FPS))
    cloud = rng.normal((0, 0, -0.8), (1.5, 1.5, 0.5), (NUM_MAP_POINTS, 3))
    cloud[:2] *= 40  # maps hold a few points that are nowhere near
    return {
        "quat_wxyz": Rotation.from_matrix(world_to_rig[:, :3, :3]).as_quat(scalar_first=True),
        "trans_xyz": world_to_rig[:, :3, 3],
        "frame_names": np.array([f"{stamp}.jpg" for stamp in timestamps], dtype="S18"),
        "point_cloud": cloud,
    }


def imu(
    rng: np.random.Generator, path: HeadPath, timestamps: NDArray[np.int64]
) -> dict[str, NDArray[np.generic]]:
    """Return the group ``imu``: about 200 Hz, gravity included, body frame.

    ``keyframe_indices`` is the nearest sample of each frame.
    """
    samples = int((timestamps[-1] - timestamps[0]) // IMU_PERIOD_NS) + 3  # past the last frame
    ticks = IMU_START_NS + IMU_PERIOD_NS * np.arange(samples)
    stamps = timestamps[0] + ticks + rng.integers(-IMU_JITTER_NS // 2, IMU_JITTER_NS // 2, samples)
    seconds = (stamps - timestamps[0]) / NANOSECONDS
    rig_to_world = path.rig_to_world(seconds)[:, :3, :3]
    force = np.gradient(np.gradient(path.position(seconds), seconds, axis=0), seconds, axis=0)
    force[:, 2] += GRAVITY
    accel = np.swapaxes(rig_to_world, 1, 2) @ force[:, :, None]
    steps = np.swapaxes(rig_to_world[:-1], 1, 2) @ rig_to_world[1:]
    gyro = Rotation.from_matrix(steps).as_rotvec() / np.diff(seconds)[:, None]
    return {
        "device_timestamp_ns": stamps.astype(np.float64),
        "accel_xyz": accel[:, :, 0] + rng.normal(0, ACCEL_NOISE, (samples, 3)),
        "gyro_xyz": np.vstack([gyro, gyro[-1:]]) + rng.normal(0, GYRO_NOISE, (samples, 3)),
        "keyframe_indices": _nearest(stamps, timestamps),
    }


def depth(rng: np.random.Generator, world: SessionWorld) -> dict[str, NDArray[np.generic]]:
    """Return the group ``depth``: metres along the optical axis of the rectified left camera, 0 = invalid.

    A table that comes nearer towards the lower edge, and the block on it where the left camera sees it.
    """
    size = int(FRAME_SIZES["stereo_left"][0] * DEPTH_SCALE)
    table = np.repeat(np.linspace(*TABLE_DEPTH_M, size)[:, None], size, axis=1)
    metres = np.repeat(table[None].astype(np.float32), world.frames, axis=0)
    for frame in range(world.frames) if "stereo_left" in world.appearance.views else ():
        rows, columns = (_shrunk(side) for side in world.block_at("stereo_left", frame))
        metres[frame, rows, columns] -= BLOCK_ABOVE_TABLE_M
    metres += 0.01 * rng.standard_normal(metres.shape, np.float32)
    lowest, highest = np.percentile(metres, [0.1, 99.9])  # a display range, not bounds
    metres[:, :, :NO_OVERLAP_COLUMNS] = 0
    confidence = 124 + 25 * rng.standard_normal(metres.shape, np.float32)
    return {
        "depth": metres,
        "confidence": np.clip(confidence, 28, 205).astype(np.uint8),
        "scale": np.array(DEPTH_SCALE),
        "depth_min": np.array(lowest, np.float64),
        "depth_max": np.array(highest, np.float64),
    }


def _nearest(stamps: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    after = np.clip(np.searchsorted(stamps, wanted), 1, len(stamps) - 1)
    earlier_is_nearer = wanted - stamps[after - 1] <= stamps[after] - wanted
    return np.asarray(after - earlier_is_nearer, np.int64)


def _shrunk(pixels: slice) -> slice:
    return slice(int(pixels.start * DEPTH_SCALE), int(pixels.stop * DEPTH_SCALE))
