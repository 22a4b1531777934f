"""The form of what the policy may see of a window: ``Sample.inputs`` of this backbone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from omni_mlflow.spine.types import Span, Tile

POSE_NAMES = tuple(
    f"{side}_{name}"
    for side in ("left", "right")
    for name in ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32", "aperture")
)
STATE_NAMES = (
    *POSE_NAMES,
    *(f"{side}_velocity_{axis}" for side in ("left", "right") for axis in "xyz"),
    "left_valid",
    "right_valid",
)
"""Metres, metres per second, rotation as two columns, 0 or 1; zeros for a hand that is not known."""


_MICROMETRE = 6
"""Decimals of a metre or radian that are kept: far below what motion capture can tell."""


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Observation(_Form):
    """One camera in one frame of a proxy video.

    Attributes:
        video: relative to the media root.
        proxy_frame: its last frame before the anchor.
        tile: where the camera lies in that frame.
    """

    video: str
    proxy_frame: int = Field(ge=0)
    tile: Tile


class SeenHands(_Form):
    """Both hands, left first, in the rectified left camera of the last frame before the anchor, metres.

    Attributes:
        now: in that frame, shape (2, 21, 3); zeros where a hand is not known.
        before: one frame earlier; None where nothing is known of it.
    """

    now: list[list[list[float]]]
    before: list[list[list[float]]] | None
    valid: tuple[bool, bool]
    before_valid: tuple[bool, bool]


class SeenBody(_Form):
    """The person whom the humanoid follows, in the axes of its root at the last frame before the anchor.

    Attributes:
        now: the joints that are followed, shape (14, 3), metres in the person's size.
        before: one frame earlier, in the same axes; None where nothing is known of it.
        angles: of the humanoid's 56 joints, radians.
        scale: size of the humanoid over that of the person.
    """

    now: list[list[float]]
    before: list[list[float]] | None
    angles: list[float]
    scale: float = Field(gt=0)


class Source(_Form):
    """Where a target comes from: fields of the annotation, frames, and when a value counts."""

    kind: str
    fields: tuple[str, ...]
    window: Span
    rule: str


class Inputs(_Form):
    """``Sample.inputs`` of this backbone.

    Attributes:
        observation: None under a control that shows nothing.
        instruction: the episode's main task, or nothing.
        state: see :data:`STATE_NAMES`.
        body: None where the action space follows no body.
        fps: source frames, and steps of a chunk, per second.
        target_kinds: which of the specification's kinds of target this window has.
        provenance: of each of them.
    """

    observation: Observation | None
    instruction: str
    fps: float = Field(gt=0)
    state: list[float] = Field(min_length=len(STATE_NAMES), max_length=len(STATE_NAMES))
    hands: SeenHands
    body: SeenBody | None = None
    target_kinds: tuple[str, ...]
    provenance: tuple[Source, ...]


def rounded(values: NDArray[np.floating]) -> Any:
    """Return numbers as an input holds them: as lists, to a millionth of their unit."""
    return np.round(values, _MICROMETRE).tolist()


def known_numbers(hands: NDArray[np.bool_], velocities: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which numbers of states are known, shape (states, 28): flags always are.

    Args:
        hands: whether each hand's pose is known, left first, shape (states, 2).
        velocities: the same of its velocity, which takes the hand one frame earlier, too.
    """
    pose = np.repeat(hands, len(POSE_NAMES) // 2, axis=1)
    return np.concatenate([pose, np.repeat(velocities, 3, axis=1), np.ones_like(hands)], axis=1)


def nominal_rate(measured: Sequence[float]) -> int:
    """Return the whole number of frames per second that recordings were set to.

    Clocks drift and devices drop frames, so measured rates lie around it. A chunk has one rate, step k of it
    lying k / rate after now, and so has a LeRobot dataset: which rate that is must not hang on one episode.
    """
    return round(median(measured))
