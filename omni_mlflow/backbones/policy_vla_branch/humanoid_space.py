"""The motion of a body as poses of the CMU humanoid, and the actions between them.

An action says where the humanoid's root will be at steps t+1 .. t+H in the axes of the root at the last
observed frame t, and by how much each joint angle differs from the one at t. Decoding adds the angles of now
and asks forward kinematics; each joint of the person rides on the body that follows it, as far from it as it
is now, like a marker. The joints that the person really had stay the truth of every score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.backbones.policy_vla_branch.action_space_file import TargetKind
from omni_mlflow.backbones.policy_vla_branch.camera import HORIZON_LEAVES, hands_around, read_trajectories
from omni_mlflow.backbones.policy_vla_branch.hands import Points, rot6d, rotation
from omni_mlflow.backbones.policy_vla_branch.humanoid import (
    JOINT_OF_BODY,
    NUM_ANGLES,
    Follower,
    HumanoidMotion,
    followed_joints,
    leg_m,
    the_humanoid,
)
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs, SeenBody, rounded
from omni_mlflow.backbones.policy_vla_branch.motion import Ahead, Motion
from omni_mlflow.backbones.policy_vla_branch.round_trip import RetargetingMaps, bound_of
from omni_mlflow.backbones.policy_vla_branch.settings import HUMANOID_SPACE
from omni_mlflow.backbones.policy_vla_branch.space import (
    AXES,
    POSITION_FLOOR_M,
    ROTATION_FLOOR,
    ROTATION_NAMES,
    Dimension,
    Moving,
    Space,
)
from omni_mlflow.spine.poses import Bools, Floats

NO_BODY_NOW = "no body is valid at the last observed frame"
NO_BODY_AFTER = "no body is valid after the last observed frame"

ANGLE_FLOOR_RAD = 0.05
TOLERANCE = 1.6
"""Of 23 made-up wearers, in 2000 draws of three for train and eight others, the worst step of these lost at
most 1.58 times as much as the worst of train."""
FOLLOWING_CEILING_MM = 25.0
"""The model stays 14 to 17 mm from made-up wearers and from the real one; joints at rest: 225 or more."""
STILL_SHARE = 0.25
"""How far what comes back may be off, as a share of how far people get: a model that stands still has 1."""
NUM_ROOT = len(AXES) + len(ROTATION_NAMES)

_SHORTEST_LEG_M = 0.1
_SOURCES = ("full_body_mocap/keypoints",)
_RULE = "joints finite, not all zero, legs longer than 0.1 m; the body is valid at t and at the step"
_BODIES = list(JOINT_OF_BODY)

BODY = Moving(
    kinds=("retargeted_humanoid_action",),
    source_fields=_SOURCES,
    rule=_RULE,
    reasons=("valid", "the body is unknown at the step"),
    unknown=(
        "the body is unknown at the step",
        "the body is unknown one frame before now, so a velocity baseline has no answer",
    ),
    wrists=(("left", 0, _BODIES.index("lhand")), ("right", 0, _BODIES.index("rhand"))),
    right_and_down=(-1.0, -1.0),
    seen="as someone looks at them who stands behind the person",
)


class NoBodiesError(Exception):
    """There is no valid body in the train episodes to measure the round trip on."""


class NotFollowedError(Exception):
    """The humanoid does not do what the people of the train episodes do."""


@dataclass(frozen=True)
class Bodies(Points):
    """The followed joints of people, and the humanoid in their pose.

    Attributes:
        joints: shape (..., 1, 14, 3), metres in the person's size, axes of the humanoid's root at t.
        poses: root relative to t (position in the model's size, rotation as two columns), then the absolute
            angles in radians; shape (..., 65).
        scale: size of the humanoid over that of the person, shape (N,).
    """

    poses: Floats
    scale: Floats


class BodyMaps(RetargetingMaps):
    """What the space takes from the model, and what it loses. Nothing in it but the bound hangs on data.

    Attributes:
        limits: smallest and largest angle of each joint, radians.
        rest: where the followed bodies of the model are before anything moves, metres.
        num_bodies: valid steps that the round trip was measured on.
        following_mm: how far the model's own bodies are from the joints that they follow there, mean.
        scales: smallest and largest size of the humanoid over that of a train person.
    """

    limits: tuple[tuple[float, float], ...]
    rest: tuple[tuple[float, float, float], ...]
    num_bodies: int
    following_mm: float
    scales: tuple[float, float]

    @property
    def num_examples(self) -> tuple[int, ...]:
        return (self.num_bodies,)


class HumanoidPoses(Space[Bodies, BodyMaps]):
    """Root and 56 joint angles of the CMU humanoid, all relative to now."""

    name = HUMANOID_SPACE
    kind: ClassVar[TargetKind] = "retargeted_humanoid_action"
    groups: ClassVar[int] = 1
    moving: ClassVar[Moving] = BODY
    frame_of_reference: ClassVar[str] = (
        "root of the CMU humanoid (humanoid_CMU_V2020.xml of dm_control) at frame t: x left, y up, z ahead; "
        "metres in the model's size"
    )
    validity_rule: ClassVar[str] = _RULE
    source_fields: ClassVar[tuple[str, ...]] = _SOURCES
    reference = "root relative to frame t; each joint angle minus that angle at frame t"
    rotation_convention = "first two columns of R_t^T R_k, column after column"
    order = "position of the root, rotation of the root, 56 hinge joints in the order of the model"

    def dimensions(self) -> tuple[Dimension, ...]:
        return self._dimensions

    @cached_property
    def _dimensions(self) -> tuple[Dimension, ...]:
        humanoid = the_humanoid()
        joints = zip(humanoid.angle_names, humanoid.limits.tolist(), strict=True)
        return (
            *(Dimension(f"root_{axis}", "m", POSITION_FLOOR_M) for axis in AXES),
            *(Dimension(f"root_{entry}", "1", ROTATION_FLOOR) for entry in ROTATION_NAMES),
            *(Dimension(name, "rad", ANGLE_FLOOR_RAD, (low, high)) for name, (low, high) in joints),
        )

    def ahead(self, trajectories: Path, t: int, horizon: int) -> Ahead | str:
        person = _person(trajectories, trajectories.stat().st_mtime_ns)
        after = slice(t + 1, t + 1 + horizon)
        if after.stop > len(person.valid):
            return HORIZON_LEAVES
        if not person.valid[t]:
            return NO_BODY_NOW
        if not person.valid[after].any():
            return NO_BODY_AFTER
        now, before = hands_around(read_trajectories(trajectories), t)
        valid, motion = person.valid[after], person.follower.between(t, after.stop)
        joints = _seen_from_root(person.joints[after], motion)
        first = max(0, t - 1)
        earlier = _seen_from_root(person.joints[first : t + 1], motion)
        body = SeenBody(
            now=rounded(earlier[-1]),
            before=rounded(earlier[0]) if first < t and person.valid[first] else None,
            angles=rounded(motion.angles[0]),
            scale=motion.scale,
        )
        arrays: dict[str, NDArray[np.generic]] = {
            "future_body": np.where(valid[:, None, None], joints, 0.0).astype(np.float32),
            "future_pose": relative_poses(motion)[1:].astype(np.float32),
            "future_valid": valid,
            "future_reason": (~valid).astype(np.uint8),
        }
        return Ahead(now=now, before=before, body=body, arrays=arrays)

    def read(self, arrays: Arrays, inputs: Sequence[Inputs]) -> Motion[Bodies]:
        seen = [each.body for each in inputs if each.body is not None]
        now = np.array([each.now for each in seen]).reshape(-1, 1, len(_BODIES), 3)
        before = np.array([each.before or each.now for each in seen]).reshape(now.shape)
        still = np.tile(_STILL, (len(seen), 1))
        angles = np.array([each.angles for each in seen]).reshape(-1, NUM_ANGLES)
        scale = np.array([each.scale for each in seen])
        known = np.array([[each.before is not None] for each in seen], dtype=bool).reshape(-1, 1)
        return Motion(
            future=Bodies(
                joints=np.asarray(arrays["future_body"], dtype=np.float64)[:, :, None],
                valid=np.asarray(arrays["future_valid"], dtype=bool)[..., None],
                poses=np.asarray(arrays["future_pose"], dtype=np.float64),
                scale=scale,
            ),
            reason=np.asarray(arrays["future_reason"], dtype=np.uint8)[..., None],
            now=Bodies(now, np.ones_like(known), np.concatenate([still, angles], axis=1), scale),
            before=Points(before, known),
        )

    def fit(self, motion: Motion[Bodies], *, episodes: Sequence[str]) -> BodyMaps:
        """Take the model as it is, and measure it on the train people: nothing of it is learned from them.

        Raises:
            NoBodiesError: no step is valid.
            NotFollowedError: the model is too far from the people, or hardly moves when they do.
        """
        valid = motion.future.valid[..., 0]
        if not valid.any():
            raise NoBodiesError("no body is valid in the train episodes; add episodes with full_body_mocap")
        back = self._points(self._actions(motion), motion.now)
        errors_mm = 1000.0 * np.linalg.norm(back - motion.future.joints, axis=-1).mean(axis=(-1, -2))
        following_mm = self.following_mm(motion)[valid]
        gone = motion.future.joints - motion.now.joints[:, None]
        still_mm = 1000.0 * np.linalg.norm(gone, axis=-1).mean(axis=(-1, -2))[valid]
        _check_followed(float(following_mm.mean()), float(errors_mm[valid].mean()), float(still_mm.mean()))
        _, of_episode = np.unique(np.array(episodes), return_inverse=True)
        groups = np.broadcast_to(of_episode[:, None], valid.shape)[valid]
        humanoid, scale = the_humanoid(), motion.now.scale
        return BodyMaps(
            limits=tuple((low, high) for low, high in humanoid.limits.tolist()),
            rest=tuple((x, y, z) for x, y, z in humanoid.rest.tolist()),
            num_bodies=int(valid.sum()),
            following_mm=float(following_mm.mean()),
            scales=(float(scale.min()), float(scale.max())),
            round_trip={self.name: bound_of(errors_mm[valid], groups, tolerance=TOLERANCE)},
        )

    def actions(self, motion: Motion[Bodies], maps: BodyMaps) -> Floats:  # noqa: ARG002
        return self._actions(motion)

    def decode(self, actions: Floats, now: Bodies, maps: BodyMaps) -> Floats:  # noqa: ARG002
        return self._points(actions, now)

    def reached(self, actions: Floats, now: Bodies) -> Floats:
        return np.asarray(actions + _only_angles(now.poses)[:, None])

    def _actions(self, motion: Motion[Bodies]) -> Floats:
        return np.asarray(motion.future.poses - _only_angles(motion.now.poses)[:, None])

    def following_mm(self, motion: Motion[Bodies]) -> Floats:
        scale = motion.now.scale[:, None, None, None]
        own = _bodies(motion.future.poses)[..., :3, 3] / scale
        apart = own - motion.future.joints[:, :, 0]
        return np.asarray(1000.0 * np.linalg.norm(apart, axis=-1).mean(axis=-1))

    def _points(self, actions: Floats, now: Bodies) -> Floats:
        scale = now.scale[:, None, None]
        carrying, bodies = _bodies(now.poses), _bodies(self.reached(actions, now))
        apart = scale * now.joints[:, 0] - carrying[..., :3, 3]
        riding = (apart[..., None, :] @ carrying[..., :3, :3])[:, None, :, 0, :, None]
        points = (bodies[..., :3, :3] @ riding)[..., 0] + bodies[..., :3, 3]
        return np.asarray((points / scale[:, None])[:, :, None])


def _check_followed(following_mm: float, lost_mm: float, still_mm: float) -> None:
    """The bound of the round trip is measured with the same model, so it grows with a solver that fails."""
    if following_mm > FOLLOWING_CEILING_MM or lost_mm > STILL_SHARE * still_mm:
        raise NotFollowedError(
            f"the humanoid stays {following_mm:.1f} mm from train people ({FOLLOWING_CEILING_MM:g} at most) "
            f"and loses {lost_mm:.1f} mm of their motion; a body that stands still loses {still_mm:.1f} "
            f"(a share of {STILL_SHARE:g} at most); look at full_body_mocap of the train episodes, "
            "and at the versions of mink and daqp"
        )


_STILL = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
"""A root that is where it was, turned as it was."""


def relative_poses(motion: HumanoidMotion) -> Floats:
    """Return every frame's root in the axes of the first frame's, then its angles; shape (frames, 65)."""
    towards_now = motion.root[0, :3, :3].T
    places = (motion.root[:, :3, 3] - motion.root[0, :3, 3]) @ towards_now.T
    turned = rot6d(towards_now @ motion.root[:, :3, :3])
    return np.concatenate([places, turned, motion.angles], axis=1)


def _seen_from_root(joints: Floats, motion: HumanoidMotion) -> Floats:
    """Put joints of the world, (frames, 14, 3) metres, into the axes of the motion's first root."""
    return (joints - motion.root[0, :3, 3] / motion.scale) @ motion.root[0, :3, :3]


def _bodies(poses: Floats) -> Floats:
    """Return rotation and place of the followed bodies, (..., 65) to (..., 14, 4, 4).

    NaN stays NaN, and so does a rotation of which no axis is left.
    """
    rows = poses.reshape(-1, poses.shape[-1])
    turned = rotation(rows[:, 3:NUM_ROOT])
    told = np.isfinite(rows).all(axis=1) & (np.linalg.det(turned) > 0.5)  # two columns of zeros turn nowhere
    root = np.tile(np.eye(4), (int(told.sum()), 1, 1))
    root[:, :3, 3] = rows[told, :3]
    root[:, :3, :3] = turned[told]
    found = np.full((len(rows), len(_BODIES), 4, 4), np.nan)
    found[told] = the_humanoid().bodies(root, rows[told, NUM_ROOT:])
    return found.reshape(*poses.shape[:-1], *found.shape[1:])


def _only_angles(poses: Floats) -> Floats:
    """Return poses with zeros for the root, which an action tells relative to now already."""
    kept = poses.copy()
    kept[..., :NUM_ROOT] = 0.0
    return kept


@dataclass(frozen=True)
class _Person:
    """The body of one episode: its followed joints in the world, (frames, 14, 3), and the model behind it."""

    joints: Floats
    valid: Bools
    follower: Follower


@lru_cache(maxsize=2)  # windows come episode by episode, so each person is followed once and only so far
def _person(trajectories: Path, _changed_ns: int) -> _Person:
    arrays = read_trajectories(trajectories)
    body = np.asarray(arrays["body_in_world"], dtype=np.float64)
    joints = followed_joints(body)
    recorded = np.asarray(arrays["body_valid"], dtype=bool) & np.isfinite(joints).all(axis=(1, 2))
    valid = recorded & (leg_m(np.where(recorded[:, None, None], joints, 0.0)) > _SHORTEST_LEG_M)
    return _Person(joints, valid, Follower(the_humanoid(), body, valid))
