"""Wearers whose head and hands move through a known world, for the tests of the policy branch."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from omni_mlflow.backbones.policy_vla_branch.hands import Hands
from omni_mlflow.spine.poses import inverse, moved
from omni_mlflow.spine.synthetic.skeleton import LEFT_ARM, RIGHT_ARM, forward_kinematics, hand_joints


def waves(rng: np.random.Generator, frames: int, numbers: int, *, size: float) -> np.ndarray:
    """Smooth curves, shape (frames, numbers), within ``size`` of zero."""
    at = np.arange(frames)[:, None] / 20
    return size * np.sin(2 * np.pi * rng.uniform(0.1, 0.8, numbers) * at + rng.uniform(0, 6, numbers))


def hands_in_world(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Both hands of one person, shape (frames, 2, 21, 3): every arm and finger joint bends on its own."""
    local = np.broadcast_to(np.eye(3), (frames, 52, 3, 3)).copy()
    for arm in (LEFT_ARM, RIGHT_ARM):
        for joint in (arm.shoulder, arm.elbow, arm.wrist):
            turn = Rotation.from_rotvec(waves(rng, frames, 3, size=0.5))
            local[:, joint] = turn.as_matrix()
        for finger in range(5):
            curl = 0.5 + waves(rng, frames, 3, size=0.3)
            for bone in range(3):
                bent = Rotation.from_euler("z", -arm.side * curl[:, [bone]])
                local[:, arm.fingers.start + 3 * finger + bone] = bent.as_matrix()
    pose = forward_kinematics(local, waves(rng, frames, 3, size=0.1), scale=float(rng.uniform(0.9, 1.1)))
    return np.stack([hand_joints(pose, LEFT_ARM), hand_joints(pose, RIGHT_ARM)], axis=1)


def wearer(seed: int, *, frames: int = 40) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the arrays of a ``trajectories.npz``, and the hands in the world that they were made from."""
    rng = np.random.default_rng(seed)
    world = hands_in_world(rng, frames)
    camera = np.broadcast_to(np.eye(4), (frames, 4, 4)).copy()
    camera[:, :3, :3] = Rotation.from_rotvec(waves(rng, frames, 3, size=0.7)).as_matrix()
    camera[:, :3, 3] = waves(rng, frames, 3, size=0.3)
    seen = moved(inverse(camera), world.reshape(frames, -1, 3)).reshape(world.shape)
    return {
        "camera_to_world": camera,
        "camera_valid": np.ones(frames, dtype=bool),
        "hands_in_camera": seen.swapaxes(0, 1).copy(),
        "hands_valid": np.ones((2, frames), dtype=bool),
    }, world


def chunks(seed: int, *, rows: int, horizon: int = 4) -> tuple[np.ndarray, Hands]:
    """Hands at (rows, horizon) steps and now, all in one camera."""
    world = hands_in_world(np.random.default_rng(seed), rows + horizon)
    after = np.arange(rows)[:, None] + np.arange(1, horizon + 1)
    return world[after], Hands(world[:rows], np.ones((rows, 2), dtype=bool))
