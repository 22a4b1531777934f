"""The CMU humanoid as a model that follows a person. That is a simulation model, no robot.

The person is scaled to the model by the length of the legs. Differential inverse kinematics (mink) then moves
14 bodies of the model to 14 joints of the person, frame after frame, within the model's joint limits: the
pose at a frame hangs on no later one. The model comes with dm_control. All of it is the optional extra
``omni-mlflow[humanoid]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from omni_mlflow.backbones.policy_vla_branch.settings import INSTALL_HUMANOID
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
_MODEL = "locomotion/walkers/assets/humanoid_CMU_V2020.xml"
_LEGS = (("lfemur", "ltibia"), ("ltibia", "lfoot"), ("rfemur", "rtibia"), ("rtibia", "rfoot"))
_FIRST_ITERATIONS, _NEXT_ITERATIONS = 60, 5
_STEP_S = 0.1
_DAMPING = 1e-2
_POSTURE_COST = 1e-3


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
        scale: size of the model over that of the person.
    """

    root: Floats
    angles: Floats
    scale: float


class Humanoid:
    """The model with a root that is free to move. Its root looks along z; x points to its left, y up.

    Raises:
        HumanoidExtraMissingError: see the message for how to install what it needs.
    """

    def __init__(self) -> None:
        self.mujoco, self.mink, assets = _libraries()
        spec = self.mujoco.MjSpec.from_file(str(assets / _MODEL))
        spec.body("root").add_freejoint()
        self.model = spec.compile()
        self._followed = [self.model.body(name).id for name in JOINT_OF_BODY]

    @cached_property
    def angle_names(self) -> tuple[str, ...]:
        return tuple(self.model.joint(index).name for index in range(1, self.model.njnt))

    @cached_property
    def limits(self) -> Floats:
        """Smallest and largest angle of each joint, shape (56, 2), radians."""
        return np.array(self.model.jnt_range[1:], dtype=np.float64)

    @cached_property
    def rest(self) -> Floats:
        """Where the 14 bodies are before anything moves, shape (14, 3)."""
        return np.asarray(self.bodies(np.eye(4)[None], np.zeros((1, NUM_ANGLES)))[0, :, :3, 3])

    def bodies(self, root: Floats, angles: Floats) -> Floats:
        """Return rotation and place of the 14 bodies, by forward kinematics, metres in the model's size.

        Args:
            root: shape (rows, 4, 4), in any frame of reference, which is that of the result.
            angles: shape (rows, 56).

        Returns:
            Shape (rows, 14, 4, 4).
        """
        from scipy.spatial.transform import Rotation

        data = self.mujoco.MjData(self.model)
        quaternions = Rotation.from_matrix(root[:, :3, :3]).as_quat(scalar_first=True)
        found = np.tile(np.eye(4), (len(root), len(self._followed), 1, 1))
        for row, configuration in enumerate(np.concatenate([root[:, :3, 3], quaternions, angles], axis=1)):
            data.qpos[:] = configuration
            self.mujoco.mj_kinematics(self.model, data)
            found[row, :, :3, 3] = data.xpos[self._followed]
            found[row, :, :3, :3] = data.xmat[self._followed].reshape(-1, 3, 3)
        return found


@lru_cache(maxsize=1)  # compiling the model takes longer than following a person for a second
def the_humanoid() -> Humanoid:
    return Humanoid()


class Follower:
    """Lets the model follow one person, frame after frame, as far as it is asked to.

    Args:
        body: SMPL-H joints, shape (frames, 52, 3), world frame (z up), metres.
        valid: shape (frames,). In a frame without a body the model keeps the pose of the frame before it.
    """

    def __init__(self, humanoid: Humanoid, body: Floats, valid: Bools) -> None:
        self._humanoid = humanoid
        self._targets = followed_joints(body)
        self._valid = valid
        self._chase = _Chase(humanoid.mink, humanoid.model)
        self._found: list[Floats] = []
        self._scale: float | None = None

    def between(self, start: int, stop: int) -> HumanoidMotion:
        """Return the motion of frames [start, stop); what it says of a frame hangs on none after it.

        The size is that of the first valid frame: the bones of SMPL-H keep their lengths.

        Raises:
            NoBodyError: no frame before ``stop`` has a body.
        """
        for frame in range(len(self._found), stop):
            if self._valid[frame]:
                self._follow(frame)
            self._found.append(self._chase.configuration.q.copy())
        if self._scale is None:
            raise NoBodyError(f"none of the first {stop} frames has a body that a humanoid could follow")
        return _motion(np.array(self._found[start:stop]), self._scale)

    def _follow(self, frame: int) -> None:
        lost = frame == 0 or not self._valid[frame - 1]
        if self._scale is None:
            rest = self._humanoid.rest
            self._scale = float(leg_m(rest) / leg_m(self._targets[frame]))
            self._chase.stand(rest, self._scale * self._targets[frame])
        iterations = _FIRST_ITERATIONS if lost else _NEXT_ITERATIONS
        self._chase.follow(self._scale * self._targets[frame], iterations)


def followed_joints(body: Floats) -> Floats:
    """Return the 14 joints that are followed, (..., 52, 3) to (..., 14, 3)."""
    return np.asarray(body[..., list(JOINT_OF_BODY.values()), :], dtype=np.float64)


def leg_m(positions: Floats) -> Floats:
    """Return the mean length of both legs, (..., 14, 3) to (...)."""
    names = list(JOINT_OF_BODY)
    bones = [
        positions[..., names.index(upper), :] - positions[..., names.index(lower), :]
        for upper, lower in _LEGS
    ]
    return np.asarray(np.linalg.norm(bones, axis=-1).sum(axis=0) / 2)


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
        from scipy.spatial.transform import Rotation

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
            f"retargeting to the humanoid needs {error.name or error}; {INSTALL_HUMANOID}"
        ) from error
    return mujoco, mink, Path(dm_control.__file__).parent


def _motion(configurations: Floats, scale: float) -> HumanoidMotion:
    from scipy.spatial.transform import Rotation

    root = np.tile(np.eye(4), (len(configurations), 1, 1))
    root[:, :3, 3] = configurations[:, :3]
    root[:, :3, :3] = Rotation.from_quat(configurations[:, 3:7], scalar_first=True).as_matrix()
    return HumanoidMotion(root, configurations[:, 7:], scale)
