"""The motion of the whole body as joint angles of the CMU humanoid. That is a simulation model, no robot.

The person is scaled to the model by the length of a leg. Differential inverse kinematics (mink) then moves
14 bodies of the model to 14 joints of the person, frame after frame, within the model's joint limits. The
model comes with dm_control. All of it is the optional extra ``omni-mlflow[humanoid]``. No stage calls it yet:
samples carry no motion of the body, so no window is offered this target.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from omni_mlflow.backbones.policy_vla_branch.action_space_file import (
    LAST_OBSERVED,
    ActionDimension,
    ActionSpaceFile,
)
from omni_mlflow.backbones.policy_vla_branch.hands import rot6d, rotation
from omni_mlflow.spine.poses import Bools, Floats

JOINT_OF_BODY = {
    "root": 0,
    "lfemur": 1,
    "rfemur": 2,
    "ltibia": 4,
    "rtibia": 5,
    "lfoot": 7,
    "rfoot": 8,
    "head": 12,
    "lhumerus": 16,
    "rhumerus": 17,
    "lradius": 18,
    "rradius": 19,
    "lhand": 20,
    "rhand": 21,
}
"""Which SMPL-H joint each body of the model follows. The model's head sits as low as SMPL-H's neck joint:
on a real person that pair comes within 1 mm, SMPL-H's own head joint only within 91 mm."""

NUM_ANGLES = 56
ROOT_NAMES = (
    "root_x",
    "root_y",
    "root_z",
    *(f"root_r{row}{column}" for column in (1, 2) for row in (1, 2, 3)),
)

_MODEL = "locomotion/walkers/assets/humanoid_CMU_V2020.xml"
_LEG = (("lfemur", "ltibia"), ("ltibia", "lfoot"))
_FIRST_ITERATIONS, _NEXT_ITERATIONS = 60, 15
_STEP_S = 0.1
_DAMPING = 1e-3
_POSTURE_COST = 1e-3
_LIMIT_TOLERANCE_RAD = 1e-6


class HumanoidExtraMissingError(Exception):
    """The packages that know the humanoid are not installed."""


class NoBodyError(Exception):
    """No frame has a body."""


@dataclass(frozen=True)
class HumanoidMotion:
    """A person's motion on the model.

    Attributes:
        root: rotation and place of the root in the world, shape (frames, 4, 4), metres in the model's size.
        angles: shape (frames, 56), radians, in the order of ``Humanoid.angle_names``.
        valid: shape (frames,). A frame without a body keeps the pose of the frame before it.
        scale: size of the model over that of the person.
    """

    root: Floats
    angles: Floats
    valid: Bools
    scale: float


class Humanoid:
    """The model with a root that is free to move.

    Raises:
        HumanoidExtraMissingError: see the message for how to install what it needs.
    """

    def __init__(self) -> None:
        self._mujoco, self._mink, assets = _libraries()
        spec = self._mujoco.MjSpec.from_file(str(assets / _MODEL))
        spec.body("root").add_freejoint()
        self._model = spec.compile()

    @cached_property
    def angle_names(self) -> tuple[str, ...]:
        return tuple(self._model.joint(index).name for index in range(1, self._model.njnt))

    @cached_property
    def limits(self) -> Floats:
        """Smallest and largest angle of each joint, shape (56, 2), radians."""
        return np.array(self._model.jnt_range[1:], dtype=np.float64)

    def retarget(self, body: Floats, valid: Bools) -> HumanoidMotion:
        """Let the model follow a person.

        Args:
            body: SMPL-H joints, shape (frames, 52, 3), world frame (z up), metres.
            valid: shape (frames,).

        Raises:
            NoBodyError: no frame is valid.
        """
        if not valid.any():
            raise NoBodyError("no frame has a body; nothing can be retargeted to the humanoid")
        rest = self._rest()
        targets = body[:, list(JOINT_OF_BODY.values())].astype(np.float64)
        scale = _leg_m(rest[None])[0] / float(np.median(_leg_m(targets[valid])))
        targets *= scale
        chase = _Chase(self._mink, self._model)
        chase.stand(rest, targets[valid][0])
        iterations, found = _FIRST_ITERATIONS, []
        for target, known in zip(targets, valid.tolist(), strict=True):
            if known:
                chase.follow(target, iterations)
                iterations = _NEXT_ITERATIONS
            found.append(chase.configuration.q.copy())
        return _motion(np.array(found), valid, float(scale))

    def _rest(self) -> Floats:
        """Where the 14 bodies of the model are before anything moves, shape (14, 3)."""
        data = self._mujoco.MjData(self._model)
        self._mujoco.mj_kinematics(self._model, data)
        return np.array([data.body(name).xpos for name in JOINT_OF_BODY])

    def positions(self, motion: HumanoidMotion) -> Floats:
        """Return where the 14 bodies are, shape (frames, 14, 3), world frame, metres in the person's size.

        This is forward kinematics: the inverse of :meth:`retarget`, up to what the model cannot reach.
        """
        data = self._mujoco.MjData(self._model)
        found = np.empty((len(motion.angles), len(JOINT_OF_BODY), 3))
        for frame, (root, angles) in enumerate(zip(motion.root, motion.angles, strict=True)):
            data.qpos[:] = np.concatenate([root[:3, 3], _wxyz(root[:3, :3]), angles])
            self._mujoco.mj_kinematics(self._model, data)
            found[frame] = [data.body(name).xpos for name in JOINT_OF_BODY]
        return found / motion.scale

    def errors_mm(self, body: Floats, motion: HumanoidMotion) -> Floats:
        """Return how far each body is from its joint in the valid frames, shape (valid frames, 14)."""
        wanted = body[motion.valid][:, list(JOINT_OF_BODY.values())]
        errors: Floats = 1000.0 * np.linalg.norm(self.positions(motion)[motion.valid] - wanted, axis=-1)
        return errors

    def joint_limit_violations(self, motion: HumanoidMotion) -> int:
        """Count the angles of valid frames that lie outside the limits of their joint."""
        low, high = self.limits.T
        angles = motion.angles[motion.valid]
        outside = (angles < low - _LIMIT_TOLERANCE_RAD) | (angles > high + _LIMIT_TOLERANCE_RAD)
        return int(outside.sum())

    def action_space(self, *, horizon: int, fps: float) -> ActionSpaceFile:
        """Define the action of :func:`encode`; the bounds of an angle are the limits of its joint."""
        angles = (
            ActionDimension(name=name, unit="rad", low=low, high=high)
            for name, (low, high) in zip(self.angle_names, self.limits.tolist(), strict=True)
        )
        roots = (ActionDimension(name=name, unit="m" if name[-1] in "xyz" else "1") for name in ROOT_NAMES)
        return ActionSpaceFile(
            kind="retargeted_humanoid_action",
            space="cmu_humanoid_v2020",
            dimensions=(*roots, *angles),
            frame_of_reference="root of the humanoid at frame t; metres in the model's size",
            anchor=LAST_OBSERVED,
            reference="root relative to frame t; joint angles absolute",
            rotation_convention="first two columns of R_t^T R_k, column after column",
            order="root position, root rotation, 56 hinge joints in the order of the model",
            horizon=horizon,
            fps=fps,
            validity_rule="the body is valid at t and at the step",
            source_fields=("full_body_mocap/keypoints",),
        )


def encode(motion: HumanoidMotion, t: int, horizon: int) -> tuple[Floats, Bools]:
    """Return the action of frames t + 1 .. t + horizon, shape (horizon, 65), and which steps are valid."""
    after = slice(t + 1, t + 1 + horizon)
    towards_now = motion.root[t, :3, :3].T
    places = (motion.root[after, :3, 3] - motion.root[t, :3, 3]) @ towards_now.T
    turned = rot6d(towards_now @ motion.root[after, :3, :3])
    actions = np.concatenate([places, turned, motion.angles[after]], axis=1)
    return actions, motion.valid[after] & motion.valid[t]


def decode(actions: Floats, root_now: Floats, *, valid: Bools, scale: float) -> HumanoidMotion:
    """Return the motion that actions stand for: the inverse of :func:`encode`.

    Args:
        actions: shape (horizon, 65).
        root_now: the root at the last observed frame, shape (4, 4).
    """
    root = np.tile(np.eye(4), (len(actions), 1, 1))
    root[:, :3, 3] = actions[:, :3] @ root_now[:3, :3].T + root_now[:3, 3]
    root[:, :3, :3] = root_now[:3, :3] @ rotation(actions[:, 3:9])
    return HumanoidMotion(root, actions[:, 9:], valid, scale)


class _Chase:
    """Moves the model's bodies towards targets, from wherever it stands."""

    def __init__(self, mink: ModuleType, model: Any) -> None:
        self._mink = mink
        self.configuration = mink.Configuration(model)
        self._bodies = [
            mink.FrameTask(name, "body", position_cost=1.0, orientation_cost=0.0, lm_damping=_DAMPING)
            for name in JOINT_OF_BODY
        ]
        self._posture = mink.PostureTask(model, cost=_POSTURE_COST)
        self._limits = [mink.ConfigurationLimit(model)]

    def stand(self, rest: Floats, targets: Floats) -> None:
        """Put the resting model where the person is, turned as the person is."""
        turn, _ = Rotation.align_vectors(targets - targets[0], rest - rest[0])
        start = self.configuration.q.copy()
        start[:7] = np.concatenate([targets[0], turn.as_quat(scalar_first=True)])
        self.configuration.update(start)
        self._posture.set_target(start)

    def follow(self, targets: Floats, iterations: int) -> None:
        for task, target in zip(self._bodies, targets, strict=True):
            task.set_target(self._mink.SE3.from_translation(target))
        for _ in range(iterations):
            velocity = self._mink.solve_ik(
                self.configuration,
                [*self._bodies, self._posture],
                _STEP_S,
                solver="daqp",
                damping=_DAMPING,
                limits=self._limits,
            )
            self.configuration.integrate_inplace(velocity, _STEP_S)


def _libraries() -> tuple[ModuleType, ModuleType, Path]:
    """Return mujoco, mink, and the folder of dm_control, which holds the model."""
    try:
        import daqp  # noqa: F401  the solver that mink is told to use
        import dm_control
        import mink
        import mujoco
    except ImportError as error:
        raise HumanoidExtraMissingError(
            f"retargeting to the humanoid needs {error.name}; install it with "
            "pip install 'omni-mlflow[humanoid]'"
        ) from error
    return mujoco, mink, Path(dm_control.__file__).parent


def _motion(configurations: Floats, valid: Bools, scale: float) -> HumanoidMotion:
    root = np.tile(np.eye(4), (len(configurations), 1, 1))
    root[:, :3, 3] = configurations[:, :3]
    root[:, :3, :3] = Rotation.from_quat(configurations[:, 3:7], scalar_first=True).as_matrix()
    return HumanoidMotion(root, configurations[:, 7:], valid, scale)


def _leg_m(positions: Floats) -> Floats:
    """Return the length of the left leg, (rows, 14, 3) to (rows,)."""
    names = list(JOINT_OF_BODY)
    bones = [positions[:, names.index(upper)] - positions[:, names.index(lower)] for upper, lower in _LEG]
    return np.asarray(np.linalg.norm(bones, axis=-1).sum(axis=0))


def _wxyz(matrix: Floats) -> Floats:
    return np.asarray(Rotation.from_matrix(matrix).as_quat(scalar_first=True))
