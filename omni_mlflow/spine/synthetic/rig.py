"""The head-worn camera rig: where its cameras sit in the body frame, and what their calibration says.

Body frame: x right, y down, z forward, metres; it is the frame of the inertial sensor too. World: z up.
A transform ``T_a_b`` is a 4 x 4 matrix that takes points of frame b to frame a.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.synthetic.world import FRAME_SIZES

FloatArray = NDArray[np.float64]

BASELINE_M = 0.1453
FISHEYE_PITCH_DEG = 30.0  # downwards
RECTIFIED_PITCH_DEG = 45.0
FISHEYES = {  # yaw to the right in degrees, then the centre in the body frame
    "cam0": (-30.0, (-BASELINE_M / 2, 0.03, 0.24)),
    "cam1": (30.0, (BASELINE_M / 2, 0.03, 0.24)),
    "cam2": (-120.0, (-0.09, 0.03, 0.05)),
    "cam3": (120.0, (0.09, 0.03, 0.05)),
}

REAL_FISHEYE_SIZE = (1312, 1080)  # height, width of the images that the intrinsics below belong to
REAL_FISHEYE_K = (395.0, 395.0, 540.0, 656.0)
REAL_STEREO_SIZE = (512, 512)
REAL_STEREO_K = (200.0, 200.0, 256.0, 256.0)
FISHEYE_D = (-0.057, 0.003, -0.006, 0.002)


def rigid(rotation: FloatArray, translation: FloatArray) -> FloatArray:
    """Return 4 x 4 transforms from rotations (..., 3, 3) and translations (..., 3)."""
    transform = np.zeros((*rotation.shape[:-2], 4, 4))
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1
    return transform


def inverse(transform: FloatArray) -> FloatArray:
    """Invert rigid transforms of shape (..., 4, 4)."""
    rotation = np.swapaxes(transform[..., :3, :3], -1, -2)
    return rigid(rotation, -(rotation @ transform[..., :3, 3:])[..., 0])


def moved(transform: FloatArray, points: FloatArray) -> FloatArray:
    """Take points (frames, n, 3) to another frame with transforms (frames, 4, 4)."""
    rotated = points @ np.swapaxes(transform[:, :3, :3], 1, 2)
    return np.asarray(rotated + transform[:, None, :3, 3])


def looking(*, yaw_deg: float, pitch_deg: float) -> FloatArray:
    """Return the rotation camera to body of a camera turned right by the yaw, then down by the pitch."""
    return np.asarray(Rotation.from_euler("YX", [yaw_deg, -pitch_deg], degrees=True).as_matrix())


def rectified_left() -> FloatArray:
    """Return ``T_c0_b``, body to rectified left camera; its centre is that of fisheye cam0."""
    _, centre = FISHEYES["cam0"]
    return inverse(rigid(looking(yaw_deg=0, pitch_deg=RECTIFIED_PITCH_DEG), np.array(centre)))


def fisheye(name: str) -> FloatArray:
    """Return ``T_cn_b``, body to fisheye camera."""
    yaw_deg, centre = FISHEYES[name]
    return inverse(rigid(looking(yaw_deg=yaw_deg, pitch_deg=FISHEYE_PITCH_DEG), np.array(centre)))


def calibration(rng: np.random.Generator) -> dict[str, FloatArray | bytes]:
    """Return the group ``calibration`` by path: one rig, intrinsics that differ a little by device."""
    found: dict[str, FloatArray | bytes] = {}
    for index, name in enumerate(FISHEYES):
        spread = rng.normal(0, (0.5, 0.5, 4.0, 4.0))
        found[f"{name}/K"] = _scaled(
            np.add(REAL_FISHEYE_K, spread), REAL_FISHEYE_SIZE, FRAME_SIZES[f"fisheye_{name}"]
        )
        found[f"{name}/D"] = np.array(FISHEYE_D) + rng.normal(0, 5e-4, 4)
        found[f"{name}/camera_model"] = b"pinhole"
        found[f"{name}/distortion_model"] = b"equidistant"
        if index == 0:
            found[f"{name}/T_c_b"] = fisheye(name)
        else:  # Kalibr chains each camera to the one before it
            found[f"{name}/T_cn_cnm1"] = fisheye(name) @ inverse(fisheye(f"cam{index - 1}"))
    found["cam01/K"] = _scaled(np.array(REAL_STEREO_K), REAL_STEREO_SIZE, FRAME_SIZES["stereo_left"])
    found["cam01/T_c0_b"] = rectified_left()
    found["cam01/baseline"] = np.array(BASELINE_M)
    return found


def _scaled(intrinsics: FloatArray, real: tuple[int, int], size: tuple[int, int]) -> FloatArray:
    """Scale [fx, fy, cx, cy] from the real image size to ours; both are (height, width)."""
    down, across = size[0] / real[0], size[1] / real[1]
    return np.asarray(intrinsics * [across, down, across, down])
