"""The three spaces of hand motion, and the file that defines an action space beside a checkpoint.

An action says where both hands will be at steps t+1 .. t+H, relative to the last observed frame t and in
the axes of its rectified left camera: the wrist's position as a difference, its rotation as
``R_t^T R_k``, its fingers absolute. ``encode(decode(action)) == action`` for ``joints126`` and ``synergy32``,
and for the pose in ``ee20``, whose aperture comes back within ``Maps.aperture_bound_m``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from omni_mlflow.backbones.policy_vla_branch.action_space_file import (
    CAMERA_OF_NOW,
    HAND_SOURCES,
    HAND_VALIDITY,
    LAST_OBSERVED,
    WRIST_FRAME,
    ActionDimension,
    ActionSpaceFile,
    TargetKind,
)
from omni_mlflow.backbones.policy_vla_branch.hands import (
    JOINT_NAMES,
    SIDES,
    Hands,
    apertures,
    fingers_in_wrist,
    placed,
    rot6d,
    rotation,
    wrist_frames,
)
from omni_mlflow.backbones.policy_vla_branch.retargeting import NUM_SYNERGIES, Maps
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats
from omni_mlflow.spine.poses import Bools, Floats

POSITION_FLOOR_M, ROTATION_FLOOR, APERTURE_FLOOR_M, SYNERGY_FLOOR_M = 0.005, 0.05, 0.005, 0.010
"""Smallest standard deviation to divide by: a dimension that hardly moves must not become noise of size 1."""

AXES = ("x", "y", "z")
ROTATION_NAMES = ("r11", "r21", "r31", "r12", "r22", "r32")


@dataclass(frozen=True)
class Dimension:
    """One number of an action, as either hand has it."""

    name: str
    unit: str
    std_floor: float


class Space(ABC):
    """How the motion of two hands is written as numbers; first those of the left hand, then of the right.

    Attributes:
        reference, rotation_convention, order: of its numbers, as in :class:`ActionSpaceFile`.
    """

    name: str
    kind: ClassVar[TargetKind] = "hand_trajectory"
    of_a_hand: tuple[Dimension, ...]
    reference: str
    rotation_convention: str | None
    order: str

    def dim(self) -> int:
        return len(SIDES) * len(self.of_a_hand)

    def names(self) -> tuple[str, ...]:
        return tuple(f"{side}_{dimension.name}" for side in SIDES for dimension in self.of_a_hand)

    def units(self) -> tuple[str, ...]:
        return tuple(dimension.unit for dimension in self.of_a_hand) * len(SIDES)

    def std_floors(self) -> Floats:
        """Return the smallest standard deviation per dimension, shape (D,), in its unit."""
        return np.array([dimension.std_floor for dimension in self.of_a_hand] * len(SIDES))

    def dim_valid(self, valid: Bools) -> Bools:
        """Spread the validity of hands over their dimensions: (N, H, 2) to (N, H, D)."""
        return np.repeat(valid, len(self.of_a_hand), axis=-1)

    @abstractmethod
    def encode(self, future: Floats, now: Hands, maps: Maps) -> Floats:
        """Write hands as actions.

        Args:
            future: shape (N, H, 2, 21, 3), metres, camera of the last observed frame.
            now: both hands at that frame, joints (N, 2, 21, 3), same camera.

        Returns:
            Shape (N, H, D). Dimensions of a hand that is invalid now or then are finite and mean nothing.
        """

    @abstractmethod
    def decode(self, actions: Floats, now: Hands, maps: Maps) -> Floats:
        """Return the joints that actions stand for: the inverse of :meth:`encode`."""


class Joints(Space):
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


class Wrists(Space):
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

SPACES: Mapping[str, Space] = {
    space.name: space for space in (Joints(), Wrists("synergy32", SYNERGIES), Wrists("ee20", APERTURE))
}
"""``ee20`` is what a robot with two grippers understands; ``synergy32`` is as wide as an action of pi0."""


def train_mean_motion(
    space: Space, actions: DimensionStats, now: Hands, maps: Maps, *, horizon: int
) -> Floats:
    """Return the joints of the mean train action at every step: a baseline, shape (N, horizon, 2, 21, 3)."""
    mean = np.broadcast_to(np.array(actions.mean), (len(now.joints), horizon, space.dim()))
    return space.decode(mean, now, maps)


def hand_space_file(space: Space, stats: DimensionStats, *, horizon: int, fps: float) -> ActionSpaceFile:
    """Define a space of hand motion with the bounds of its train actions."""
    rows = zip(space.names(), space.units(), stats.q01, stats.q99, space.std_floors().tolist(), strict=True)
    return ActionSpaceFile(
        kind=space.kind,
        space=space.name,
        dimensions=tuple(
            ActionDimension(name=name, unit=unit, low=low, high=high, std_floor=floor)
            for name, unit, low, high, floor in rows
        ),
        frame_of_reference=CAMERA_OF_NOW,
        anchor=LAST_OBSERVED,
        reference=space.reference,
        rotation_convention=space.rotation_convention,
        order=space.order,
        horizon=horizon,
        fps=fps,
        validity_rule=HAND_VALIDITY,
        source_fields=HAND_SOURCES,
    )
