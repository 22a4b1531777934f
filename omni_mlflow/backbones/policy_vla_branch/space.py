"""What every action space can do: write true motion as numbers, and turn numbers into motion again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from omni_mlflow.backbones.base import Arrays
from omni_mlflow.backbones.policy_vla_branch.action_space_file import (
    LAST_OBSERVED,
    ActionDimension,
    ActionSpaceFile,
    TargetKind,
)
from omni_mlflow.backbones.policy_vla_branch.inputs import Inputs
from omni_mlflow.backbones.policy_vla_branch.motion import Ahead, Motion, PointsT
from omni_mlflow.backbones.policy_vla_branch.round_trip import RetargetingMaps
from omni_mlflow.backbones.policy_vla_branch.statistics import DimensionStats
from omni_mlflow.spine.poses import Bools, Floats

MapsT = TypeVar("MapsT", bound=RetargetingMaps)

AXES = ("x", "y", "z")
ROTATION_NAMES = ("r11", "r21", "r31", "r12", "r22", "r32")
POSITION_FLOOR_M, ROTATION_FLOOR = 0.005, 0.05
"""Smallest standard deviation to divide by: a dimension that hardly moves must not become noise of size 1."""


@dataclass(frozen=True)
class Dimension:
    """One number of an action.

    Attributes:
        limits: smallest and largest value of the quantity that it moves; None where nothing limits it.
    """

    name: str
    unit: str
    std_floor: float
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Moving:
    """Who moves in a space, for those who score and show the motion.

    Attributes:
        kinds: the targets that the motion serves.
        source_fields, rule: where a sample's target comes from, and when a step of it counts.
        reasons: why a group of points is left out at a step, by code; the first one says that it is not.
        unknown: the reasons for which a step is not scored: it is unknown itself, or the frame before now is.
        wrists: points of a group that are wrists.
        right_and_down: signs with which x and y point to the right and down for whoever looks at a drawing.
        seen: who that is, in words.
    """

    kinds: tuple[TargetKind, ...]
    source_fields: tuple[str, ...]
    rule: str
    reasons: tuple[str, ...]
    unknown: tuple[str, str]
    wrists: tuple[tuple[str, int, int], ...]
    right_and_down: tuple[float, float]
    seen: str


class Space(ABC, Generic[PointsT, MapsT]):
    """How motion is written as numbers.

    Attributes:
        groups: of points that are valid or not on their own; each has as many numbers of an action.
        frame_of_reference, reference, rotation_convention, order, validity_rule, source_fields: of its
            numbers, as in :class:`ActionSpaceFile`.
    """

    name: str
    kind: ClassVar[TargetKind]
    groups: ClassVar[int]
    moving: ClassVar[Moving]
    frame_of_reference: ClassVar[str]
    validity_rule: ClassVar[str]
    source_fields: ClassVar[tuple[str, ...]]
    reference: str
    rotation_convention: str | None
    order: str

    @abstractmethod
    def dimensions(self) -> tuple[Dimension, ...]:
        """Return the numbers of one step, in order."""

    def dim(self) -> int:
        return len(self.dimensions())

    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions())

    def units(self) -> tuple[str, ...]:
        return tuple(dimension.unit for dimension in self.dimensions())

    def std_floors(self) -> Floats:
        """Return the smallest standard deviation per dimension, shape (D,), in its unit."""
        return np.array([dimension.std_floor for dimension in self.dimensions()])

    def dim_valid(self, valid: Bools) -> Bools:
        """Spread the validity of groups over their dimensions: (N, H, groups) to (N, H, D)."""
        return np.repeat(valid, self.dim() // self.groups, axis=-1)

    @abstractmethod
    def ahead(self, trajectories: Path, t: int, horizon: int) -> Ahead | str:
        """Return what an episode tells about frame ``t``, or why there is nothing to foretell.

        Args:
            trajectories: the ``trajectories.npz`` of the episode.
        """

    @abstractmethod
    def read(self, arrays: Arrays, inputs: Sequence[Inputs]) -> Motion[PointsT]:
        """Return the true motion of samples from their inputs and what :meth:`ahead` left in their arrays."""

    @abstractmethod
    def fit(self, motion: Motion[PointsT], *, episodes: Sequence[str]) -> MapsT:
        """Fit on train samples what actions cannot be written without, and measure the round trip."""

    @abstractmethod
    def actions(self, motion: Motion[PointsT], maps: MapsT) -> Floats:
        """Return the true actions, shape (N, H, D); where a group is invalid they are finite, no more."""

    @abstractmethod
    def decode(self, actions: Floats, now: PointsT, maps: MapsT) -> Floats:
        """Return the points that actions stand for, shape (N, H, groups, points, 3): the way back.

        A chunk with a number that is not finite becomes NaN.
        """

    def beyond_limits(self, actions: Floats, now: PointsT) -> Bools | None:
        """Tell which numbers lead beyond the limits of what they move; None where nothing has limits."""
        limits = [dimension.limits for dimension in self.dimensions()]
        if not any(limits):
            return None
        low, high = np.array([each or (-np.inf, np.inf) for each in limits]).T
        reached = self.reached(actions, now)
        return np.asarray((reached < low - _TOLERANCE) | (reached > high + _TOLERANCE))

    def following_mm(self, motion: Motion[PointsT]) -> Floats | None:  # noqa: ARG002
        """Return how far a model that follows the motion is from it, (N, H), mm; None where none does."""
        return None

    def reached(self, actions: Floats, now: PointsT) -> Floats:  # noqa: ARG002
        """Return the quantities that have limits, as they are after each step, in place of their actions."""
        return actions


_TOLERANCE = 1e-6
"""Inputs are told to a millionth of their unit."""

AnySpace = Space[Any, Any]


def train_mean_motion(
    space: AnySpace, actions: DimensionStats, now: Any, maps: Any, *, horizon: int
) -> Floats:
    """Return the points of the mean train action at every step: a baseline."""
    mean = np.broadcast_to(np.array(actions.mean), (len(now.joints), horizon, space.dim()))
    return space.decode(mean, now, maps)


def space_file(space: AnySpace, stats: DimensionStats, *, horizon: int, fps: float) -> ActionSpaceFile:
    """Define a space with the bounds of its train actions."""
    return ActionSpaceFile(
        kind=space.kind,
        space=space.name,
        dimensions=tuple(
            ActionDimension(
                name=each.name,
                unit=each.unit,
                low=low,
                high=high,
                std_floor=each.std_floor,
                limits=each.limits,
            )
            for each, low, high in zip(space.dimensions(), stats.q01, stats.q99, strict=True)
        ),
        frame_of_reference=space.frame_of_reference,
        anchor=LAST_OBSERVED,
        reference=space.reference,
        rotation_convention=space.rotation_convention,
        order=space.order,
        horizon=horizon,
        fps=fps,
        validity_rule=space.validity_rule,
        source_fields=space.source_fields,
    )
