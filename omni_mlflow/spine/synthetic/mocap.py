"""Body and hand capture of a posed wearer, in the layout and frames of reference of the data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.synthetic.motion import HeadPath
from omni_mlflow.spine.synthetic.rig import FloatArray, inverse, moved, rectified_left, rigid
from omni_mlflow.spine.synthetic.skeleton import LEFT_ARM, RIGHT_ARM, Arm, Pose, hand_joints
from omni_mlflow.spine.synthetic.world import FPS

CONTACT_NOISE = 1e-4
FEET = (6, 7, 9, 10)  # contact index c belongs to joint c + 1: ankles and feet
WRISTS = (19, 20)
HAND_NOISE_M = 0.0015
CPF_IN_RIG_M = (0.0, 0.09, 0.08)  # between the eyes
CPF_NOISE_M = 0.0005
MANO_WRIST_M = (0.0957, 0.0064, 0.0062)
"""The wrist in MANO's rest pose; its x is negative for a left hand."""

DUPLICATED = ("keypoints", "contacts", "Ts_world_root", "body_quats", "left_hand_quats", "right_hand_quats")
"""Their first row repeats the second, as in the data set; they are also what a failed body fit leaves out."""


def full_body(
    rng: np.random.Generator,
    pose: Pose,
    path: HeadPath,
    *,
    in_contact: NDArray[np.bool_],
    invalid: NDArray[np.bool_],
) -> dict[str, NDArray[np.generic]]:
    """Return the group ``full_body_mocap``; world frame, metres, quaternions wxyz.

    Args:
        in_contact: hands touch something, by frame.
        invalid: frames without a body; their rows are NaN.
    """
    frames = len(in_contact)
    contacts = rng.normal(0, CONTACT_NOISE, (frames, 21))
    contacts[:, FEET] = 1.0
    contacts[:, WRISTS] += in_contact[:, None]
    cpf = path.rig_to_world(np.arange(frames) / FPS) @ rigid(np.eye(3), np.array(CPF_IN_RIG_M))
    cpf[:, :3, 3] += rng.normal(0, CPF_NOISE_M, (frames, 3))
    found = {
        "keypoints": pose.joints,
        "contacts": contacts,
        "Ts_world_root": _seven(pose.turned[:, 0], pose.joints[:, 0]),
        "Ts_world_cpf": _seven(cpf[:, :3, :3], cpf[:, :3, 3]),
        "body_quats": _wxyz(pose.local[:, 1:22]),
        "left_hand_quats": _wxyz(pose.local[:, LEFT_ARM.fingers]),
        "right_hand_quats": _wxyz(pose.local[:, RIGHT_ARM.fingers]),
        "betas": np.tile(rng.normal(0, 0.05, 16), (frames, 1)),
    }
    for name in DUPLICATED:
        found[name][0] = found[name][1]
        found[name][invalid] = np.nan
    single = {name: values.astype(np.float32) for name, values in found.items()}
    return {**single, "frame_nums": np.arange(frames)}


def hands(rng: np.random.Generator, pose: Pose, path: HeadPath) -> dict[str, NDArray[np.generic]]:
    """Return the group ``hand_mocap``: metres, rectified left camera frame."""
    rig_to_world = path.rig_to_world(np.arange(len(pose.joints)) / FPS)
    world_to_camera = rectified_left() @ inverse(rig_to_world)
    return {
        f"{name}_{key}": values.astype(np.float32)
        for name, arm in (("left", LEFT_ARM), ("right", RIGHT_ARM))
        for key, values in _hand(rng, pose, arm, world_to_camera).items()
    }


def invalid_runs(rng: np.random.Generator, *, frames: int, share: float) -> NDArray[np.bool_]:
    """Mark ``share`` of the frames as without a body, in one run per 120 frames; the first two are valid."""
    invalid = np.zeros(frames, bool)
    for stretch in np.array_split(np.arange(2, frames), max(1, frames // 120)):
        length = round(share * len(stretch))
        start = int(rng.integers(len(stretch) - length + 1))
        invalid[stretch[start : start + length]] = True
    return invalid


def _hand(
    rng: np.random.Generator, pose: Pose, arm: Arm, world_to_camera: FloatArray
) -> dict[str, FloatArray]:
    joints = moved(world_to_camera, hand_joints(pose, arm))
    joints += rng.normal(0, HAND_NOISE_M, joints.shape)
    frames = len(joints)
    return {
        "joints_3d": joints,
        "translation": joints[:, 0] - np.multiply(MANO_WRIST_M, (-arm.side, 1, 1)),
        "mano_hand_pose": pose.local[:, arm.fingers].reshape(frames, 135),
        "mano_hand_global_orient": (world_to_camera[:, :3, :3] @ pose.turned[:, arm.wrist]).reshape(
            frames, 9
        ),
        "mano_hand_betas": np.tile(rng.normal(0, 0.02, 10), (frames, 1)),
    }


def _wxyz(rotations: FloatArray) -> FloatArray:
    quats = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat(scalar_first=True)
    return np.asarray(quats.reshape(*rotations.shape[:-2], 4))


def _seven(rotations: FloatArray, positions: FloatArray) -> FloatArray:
    """Return poses as qw qx qy qz tx ty tz."""
    return np.concatenate([_wxyz(rotations), positions], axis=1)
