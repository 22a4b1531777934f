"""The spaces of hand motion, and all spaces by name.

An action says where both hands will be at steps t+1 .. t+H, relative to the last observed frame t and in
the axes of its rectified left camera: the wrist's position as a difference, its rotation as
``R_t^T R_k``, its fingers absolute. ``encode(decode(action)) == action`` for ``joints126`` and ``synergy32``,
and for the pose in ``ee20``, whose aperture comes back within ``Maps.aperture_bound_m``. A body is followed
by ``humanoid65`` in a module of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.backbones.policy_vla_branch.action_space_file import (
    CAMERA_OF_NOW,
    HAND_SOURCES,
    HAND_VALIDITY,
    WRIST_FRAME,
    TargetKind,
)
from omni_mlflow.backbones.policy_vla_branch.camera import (
    MASK_REASONS,
    future_in_anchor_camera,
    read_trajectories,
)
from omni_mlflow.backbones.policy_vla_branch.hands import (
    JOINT_NAMES,
    SIDES,
    WRIST,
    Hands,
    apertures,
    fingers_in_wrist,
    placed,
    rot6d,
    rotation,
    wrist_frames,
)
from omni_mlflow.backbones.policy_vla_branch.humanoid_space import HumanoidPoses
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.motion import Ahead, Motion, hands_before, hands_now
from omni_mlflow.backbones.policy_vla_branch.retargeting import NUM_SYNERGIES, Maps, fit_maps
from omni_mlflow.backbones.policy_vla_branch.space import (
    AXES,
    POSITION_FLOOR_M,
    ROTATION_FLOOR,
    ROTATION_NAMES,
    AnySpace,
    Dimension,
    Moving,
    Space,
)
from omni_mlflow.metrics.trajectories import BEFORE_UNKNOWN, HAND_UNKNOWN
from omni_mlflow.spine.poses import Floats

APERTURE_FLOOR_M, SYNERGY_FLOOR_M = 0.005, 0.010

HANDS = Moving(
    kinds=("hand_trajectory", "robot_action_token"),  # tokens are another code of the same motion
    source_fields=HAND_SOURCES,
    rule="joints finite, not all zero, palm not flat; camera known at the frame and at the last one seen",
    reasons=MASK_REASONS,
    unknown=(HAND_UNKNOWN, BEFORE_UNKNOWN),
    wrists=tuple((side, place, WRIST) for place, side in enumerate(SIDES)),
    right_and_down=(1.0, 1.0),
    seen="as the camera of the last frame seen looks at them",
)


class HandSpace(Space[Hands, Maps]):
    """The motion of two hands; first the numbers of the left hand, then those of the right.

    Attributes:
        of_a_hand: the numbers of a step that either hand has.
    """

    kind: ClassVar[TargetKind] = "hand_trajectory"
    groups: ClassVar[int] = len(SIDES)
    moving: ClassVar[Moving] = HANDS
    frame_of_reference: ClassVar[str] = CAMERA_OF_NOW
    validity_rule: ClassVar[str] = HAND_VALIDITY
    source_fields: ClassVar[tuple[str, ...]] = HAND_SOURCES
    of_a_hand: tuple[Dimension, ...]

    def dimensions(self) -> tuple[Dimension, ...]:
        return self._dimensions

    @cached_property
    def _dimensions(self) -> tuple[Dimension, ...]:
        return tuple(replace(each, name=f"{side}_{each.name}") for side in SIDES for each in self.of_a_hand)

    def ahead(self, trajectories: Path, t: int, horizon: int) -> Ahead | str:
        found = future_in_anchor_camera(read_trajectories(trajectories), t, horizon)
        if isinstance(found, str):
            return found
        arrays = {
            "future_hands": found.future_hands,
            "future_valid": found.future_valid,
            "future_reason": found.future_reason,
        }
        return Ahead(now=found.now, before=found.before, body=None, arrays=arrays)

    def read(self, arrays: Arrays, inputs: Sequence[Inputs]) -> Motion[Hands]:
        return Motion(
            future=Hands(
                np.asarray(arrays["future_hands"], dtype=np.float64),
                np.asarray(arrays["future_valid"], dtype=bool),
            ),
            reason=np.asarray(arrays["future_reason"], dtype=np.uint8),
            now=hands_now(inputs),
            before=hands_before(inputs),
        )

    def fit(self, motion: Motion[Hands], *, episodes: Sequence[str]) -> Maps:
        return fit_maps(motion.now.joints, motion.now.valid, episodes=episodes)

    def actions(self, motion: Motion[Hands], maps: Maps) -> Floats:
        return self.encode(motion.future.joints, motion.now, maps)

    @abstractmethod
    def encode(self, future: Floats, now: Hands, maps: Maps) -> Floats:
        """Write hands as actions.

        Args:
            future: shape (N, H, 2, 21, 3), metres, camera of the last observed frame.
            now: both hands at that frame, joints (N, 2, 21, 3), same camera.

        Returns:
            Shape (N, H, D). Dimensions of a hand that is invalid now or then are finite and mean nothing.
        """


class Joints(HandSpace):
    """All 21 joints of each hand, as differences from now: nothing is lost."""

    name = "joints126"
    reference = "position of every joint relative to that joint at frame t"
    rotation_convention = None
    order = "left hand, then right hand; joints from wrist to thumb .. little finger, base to tip"
    of_a_hand = tuple(
        Dimension(f"{joint}_{axis}", "m", POSITION_FLOOR_M) for joint in JOINT_NAMES for axis in AXES
    )

    def encode(self, future: Floats, now: Hands, maps: Maps) -> Floats:  # noqa: ARG002
        return (future - now.joints[:, None]).reshape(*future.shape[:2], self.dim())

    def decode(self, actions: Floats, now: Hands, maps: Maps) -> Floats:  # noqa: ARG002
        return actions.reshape(*actions.shape[:2], 2, -1, 3) + now.joints[:, None]


@dataclass(frozen=True)
class FingerCode:
    """A short code for the shape of the fingers.

    Attributes:
        reference: what its numbers are relative to, in words.
        encode: joints (..., 2, 21, 3) to codes (..., 2, n).
        decode: codes to finger joints in the wrist's frame, (..., 2, 60).
    """

    dimensions: tuple[Dimension, ...]
    reference: str
    encode: Callable[[Floats, Maps], Floats]
    decode: Callable[[Floats, Maps], Floats]


class Wrists(HandSpace):
    """The pose of each wrist, and a code for the fingers on it."""

    rotation_convention = WRIST_FRAME
    order = "left hand, then right hand; of each the wrist's position and rotation, then the fingers"

    def __init__(self, name: str, fingers: FingerCode) -> None:
        self.name = name
        self.reference = f"position and rotation of the wrist relative to frame t; {fingers.reference}"
        self._fingers = fingers
        self.of_a_hand = (
            *(Dimension(axis, "m", POSITION_FLOOR_M) for axis in AXES),
            *(Dimension(entry, "1", ROTATION_FLOOR) for entry in ROTATION_NAMES),
            *fingers.dimensions,
        )

    def encode(self, future: Floats, now: Hands, maps: Maps) -> Floats:
        wrists = future[..., 0, :] - now.joints[:, None, :, 0]
        turned = np.swapaxes(wrist_frames(now.joints), -1, -2)[:, None] @ wrist_frames(future)
        parts = [wrists, rot6d(turned), self._fingers.encode(future, maps)]
        return np.concatenate(parts, axis=-1).reshape(*future.shape[:2], self.dim())

    def decode(self, actions: Floats, now: Hands, maps: Maps) -> Floats:
        by_hand = actions.reshape(*actions.shape[:2], 2, -1)
        wrists = by_hand[..., :3] + now.joints[:, None, :, 0]
        rotations = wrist_frames(now.joints)[:, None] @ rotation(by_hand[..., 3:9])
        return placed(wrists, rotations, self._fingers.decode(by_hand[..., 9:], maps))


APERTURE = FingerCode(
    dimensions=(Dimension("aperture", "m", APERTURE_FLOOR_M),),
    reference="apertures absolute, 0 m is a closed hand",
    encode=lambda joints, _: apertures(joints)[..., None],
    decode=lambda codes, maps: maps.from_apertures(codes[..., 0]),
)
SYNERGIES = FingerCode(
    dimensions=tuple(Dimension(f"synergy{k}", "m", SYNERGY_FLOOR_M) for k in range(1, NUM_SYNERGIES + 1)),
    reference="synergies absolute",
    encode=lambda joints, maps: maps.coefficients(fingers_in_wrist(joints)),
    decode=lambda codes, maps: maps.from_coefficients(codes),
)

HAND_SPACES: Mapping[str, HandSpace] = {
    space.name: space for space in (Joints(), Wrists("synergy32", SYNERGIES), Wrists("ee20", APERTURE))
}
"""``ee20`` is what a robot with two grippers understands; ``synergy32`` is as wide as an action of pi0."""

SPACES: Mapping[str, AnySpace] = {**HAND_SPACES, HumanoidPoses.name: HumanoidPoses()}
