"""``action_space.json``: what every number of an action means. Whoever reads it needs none of our code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from omni_mlflow.spine.types import SCHEMA_VERSION, Row

TargetKind = Literal[
    "action_class",
    "next_action",
    "hand_trajectory",
    "contact_event",
    "retargeted_humanoid_action",
    "robot_action_token",
]
"""What an action can be, in the words of the specification."""

CAMERA_OF_NOW = "rectified left camera of the last observed frame: x right, y down, z forward"
LAST_OBSERVED = "frame t = anchor - 1; step k of the horizon is frame t + k"
WRIST_FRAME = (
    "first two columns of R_t^T R_k, column after column; columns of R: x from wrist to middle knuckle, "
    "z out of the back of the hand, y = z cross x"
)
HAND_VALIDITY = (
    "joints as recorded are finite, not all zero and span a palm; the hand is valid at t and at the step; "
    "SLAM knows the camera at t and at the step"
)
HAND_SOURCES = (
    "hand_mocap/left_joints_3d",
    "hand_mocap/right_joints_3d",
    "slam/quat_wxyz",
    "slam/trans_xyz",
    "calibration/cam01/T_c0_b",
)


class ActionDimension(Row):
    """One number of an action.

    Attributes:
        low, high: 1 % and 99 % quantile of the train episodes, in the unit; None where numbers are codes.
        std_floor: smallest standard deviation that normalisation divides by.
        limits: smallest and largest value of what the number moves, such as a joint's range; None where it
            has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    std_floor: float | None = None
    limits: tuple[float, float] | None = None


class ActionSpaceFile(Row):
    """The definition of an action space.

    Attributes:
        kind: which of the six targets of the specification an action is.
        space: name of the space within its kind.
        dimensions: of one step, in order.
        frame_of_reference: of positions and rotations; None where there are none.
        anchor: what "now" is, and which frame a step is.
        reference: relative to the anchor, absolute, or both by dimension, in words.
        rotation_convention: None where nothing turns.
        order: of hands, joints or bodies.
        horizon: steps of one action.
        fps: steps per second; a step may be one source frame or a whole window, the anchor says which.
        classes: what codes stand for, in order; empty where numbers are physical.
        validity_rule: when a step counts in fit, loss and score.
        source_fields: datasets of an annotation that the target is made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    kind: TargetKind
    space: str
    dimensions: tuple[ActionDimension, ...] = Field(min_length=1)
    frame_of_reference: str | None
    anchor: str
    reference: str
    rotation_convention: str | None
    order: str
    horizon: int = Field(ge=1)
    fps: float = Field(gt=0)
    classes: tuple[str, ...] = ()
    validity_rule: str
    source_fields: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [dimension.name for dimension in self.dimensions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"dimensions share the names {twice}")
        return self

    @property
    def dim(self) -> int:
        return len(self.dimensions)


class CheckpointSpace(ActionSpaceFile):
    """The content of ``action_space.json``: the space of a checkpoint's actions.

    Attributes:
        beside: definitions of the other targets that the checkpoint answers, one per kind.
    """

    beside: tuple[ActionSpaceFile, ...]

    @classmethod
    def of(cls, actions: ActionSpaceFile, *, beside: Iterable[ActionSpaceFile]) -> Self:
        return cls(**dict(actions), beside=tuple(beside))

    @property
    def kinds(self) -> tuple[TargetKind, ...]:
        return (self.kind, *(each.kind for each in self.beside))
