"""What an ``annotation.hdf5`` holds: the 65 datasets of a recording, their shapes, units and frames.

Letters in a shape: N frames, M inertial samples, P map points, H and W the size of a depth image. Frames of
reference: *world* has z up and its origin near the start of SLAM; *body* is the rig with its inertial unit
(x right, y down, z forward), not the person; *camera* is the rectified left camera (x right, y down,
z forward). ``T_a_b`` takes points of frame b to frame a.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Dataset(NamedTuple):
    """One dataset.

    Attributes:
        shape: sizes, or letters for those that differ between recordings; empty for a single value.
        unit: of its numbers; empty where there is none.
        frame: frame of reference of its numbers; empty where there is none.
        content: what it is.
    """

    shape: tuple[int | str, ...]
    unit: str
    frame: str
    content: str


def _fisheye(name: str, transform: str, what: str) -> dict[str, Dataset]:
    return {
        f"calibration/{name}/K": Dataset((4,), "px", "", "focal lengths and principal point: fx, fy, cx, cy"),
        f"calibration/{name}/D": Dataset((4,), "", "", "equidistant distortion: k1, k2, k3, k4"),
        f"calibration/{name}/{transform}": Dataset((4, 4), "m", "", what),
        f"calibration/{name}/camera_model": Dataset((), "", "", "text: pinhole"),
        f"calibration/{name}/distortion_model": Dataset((), "", "", "text: equidistant"),
    }


def _hand(side: str) -> dict[str, Dataset]:
    return {
        f"hand_mocap/{side}_joints_3d": Dataset(
            ("N", 21, 3), "m", "camera", "wrist, then 4 joints per digit"
        ),
        f"hand_mocap/{side}_translation": Dataset(("N", 3), "m", "camera", "MANO translation; not the wrist"),
        f"hand_mocap/{side}_mano_hand_pose": Dataset(("N", 135), "", "parent joint", "15 rotation matrices"),
        f"hand_mocap/{side}_mano_hand_global_orient": Dataset(("N", 9), "", "camera", "rotation matrix"),
        f"hand_mocap/{side}_mano_hand_betas": Dataset(("N", 10), "", "", "MANO shape"),
    }


DATASETS: dict[str, Dataset] = {
    **_fisheye("cam0", "T_c_b", "body to cam0"),
    **_fisheye("cam1", "T_cn_cnm1", "cam0 to cam1"),
    **_fisheye("cam2", "T_cn_cnm1", "cam1 to cam2"),
    **_fisheye("cam3", "T_cn_cnm1", "cam2 to cam3"),
    "calibration/cam01/K": Dataset((4,), "px", "", "of both rectified images: fx, fy, cx, cy"),
    "calibration/cam01/T_c0_b": Dataset((4, 4), "m", "", "body to rectified left camera"),
    "calibration/cam01/baseline": Dataset((), "m", "camera", "x of the right camera's centre"),
    "slam/quat_wxyz": Dataset(("N", 4), "", "world to body", "unit quaternion, scalar first"),
    "slam/trans_xyz": Dataset(("N", 3), "m", "world to body", "translation; the rig is at -R^T t"),
    "slam/frame_names": Dataset(("N",), "", "", "text: <device timestamp>.jpg"),
    "slam/point_cloud": Dataset(("P", 3), "m", "world", "sparse map, with far outliers"),
    "depth/depth": Dataset(("N", "H", "W"), "m", "camera", "distance along the optical axis; 0 is invalid"),
    "depth/confidence": Dataset(("N", "H", "W"), "1/255", "", "confidence in a depth; not low where it is 0"),
    "depth/scale": Dataset((), "", "", "size of a depth image by that of a video image"),
    "depth/depth_min": Dataset((), "m", "", "lower end of the display range; no bound"),
    "depth/depth_max": Dataset((), "m", "", "upper end of the display range; no bound"),
    **_hand("left"),
    **_hand("right"),
    "full_body_mocap/keypoints": Dataset(("N", 52, 3), "m", "world", "SMPL-H joints of the person"),
    "full_body_mocap/contacts": Dataset(("N", 21), "", "", "contact probability of joints 1..21, noisy"),
    "full_body_mocap/Ts_world_root": Dataset(("N", 7), "m", "world", "pelvis: qw qx qy qz, then x y z"),
    "full_body_mocap/Ts_world_cpf": Dataset(
        ("N", 7), "m", "world", "between the eyes: qw qx qy qz, then x y z"
    ),
    "full_body_mocap/body_quats": Dataset(("N", 21, 4), "", "parent joint", "wxyz rotations of joints 1..21"),
    "full_body_mocap/left_hand_quats": Dataset(("N", 15, 4), "", "parent joint", "wxyz rotations"),
    "full_body_mocap/right_hand_quats": Dataset(("N", 15, 4), "", "parent joint", "wxyz rotations"),
    "full_body_mocap/betas": Dataset(("N", 16), "", "", "SMPL-H shape"),
    "full_body_mocap/frame_nums": Dataset(("N",), "frame", "", "frame of each row, from 0"),
    "imu/device_timestamp_ns": Dataset(("M",), "ns", "", "device clock, that of the frames"),
    "imu/accel_xyz": Dataset(("M", 3), "m/s^2", "body", "specific force: gravity is in it"),
    "imu/gyro_xyz": Dataset(("M", 3), "rad/s", "body", "angular rate"),
    "imu/keyframe_indices": Dataset(("N",), "sample", "", "nearest inertial sample of each frame"),
    "video/device_timestamp": Dataset(("N",), "ns", "", "text: device clock, not the time of day"),
    "video/frame_number": Dataset(("N",), "frame", "", "from 0"),
    "video/length_sec": Dataset((), "s", "", "duration"),
    "metadata/body_height": Dataset((), "m", "", "height of the wearer"),
    "metadata/device_id": Dataset((), "", "", "text"),
    "metadata/device_version": Dataset((), "", "", "text, such as v2"),
    "metadata/time_created": Dataset((), "", "", "text: ISO time with zone"),
    "metadata/other": Dataset((), "", "", "text: JSON"),
    "metadata/health_report": Dataset((), "", "", "text: JSON, or empty"),
    "caption": Dataset((), "", "", "text: JSON, or the name of a file that holds it"),
}

MOST_OF = {"N": 72_000, "M": 1_440_000, "P": 1_000_000, "H": 2048, "W": 2048}
"""Sizes that no recording comes near, by the letter in a shape.

Recordings are cut into chunks of 300 s at 20 frames per second and 200 inertial samples per second: N allows
an hour, M twice the samples of an hour. Known maps have up to 18,000 points, and depth images 256 x 256
pixels.
"""

LARGEST = {"m": 100_000.0, "m/s^2": 10_000.0, "rad/s": 1_000.0}
"""Numbers that no recording comes near, by their unit: what is larger, either way, was not measured.

SLAM's origin is near the start of a recording of minutes, and nobody gets 100 km away on foot. Common
inertial units saturate at 16 times gravity, 157 m/s^2, and at 2,000 degrees, 35 rad, per second.
"""

MOST_BYTES = 256 * 2**20
"""Bytes that nothing but depth comes near: of the largest known file, 2.0 GB, the rest is 1.2 %, 24 MB."""


def possible(name: str, numbers: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which numbers of a dataset are finite and can have been measured, see :data:`LARGEST`."""
    unit = DATASETS[name].unit
    found: NDArray[np.bool_] = np.isfinite(numbers) & (np.abs(numbers) <= LARGEST.get(unit, np.inf))
    return found


def what_is_too_large(name: str, shape: tuple[int, ...], item_bytes: int) -> str | None:
    """Say why a declared size cannot be that of a recording; None when it can.

    A damaged or hostile file may declare terabytes that it does not hold, and reading them takes the memory
    all the same. Depth is never read whole, so it is measured by the image.

    Args:
        shape: as stored, without the axis of length 1 in front of older exports.
        item_bytes: of one element; numbers are read as 8 bytes each.
    """
    letters = DATASETS[name].shape if name in DATASETS else ()
    if len(letters) == len(shape):
        for letter, size in zip(letters, shape, strict=True):
            if isinstance(letter, str) and size > MOST_OF[letter]:
                return f"declares the size {shape}, no recording has {letter} above {MOST_OF[letter]:,}"
    held_at_once = shape[1:] if "H" in letters else shape
    num_bytes = prod(held_at_once) * max(item_bytes, 8)
    if num_bytes > MOST_BYTES:
        return f"declares {num_bytes:,} bytes, at most {MOST_BYTES:,} are read"
    return None


FRAME_ARRAYS = tuple(name for name, dataset in DATASETS.items() if dataset.shape[:1] == ("N",))
"""The datasets with one row per frame."""
