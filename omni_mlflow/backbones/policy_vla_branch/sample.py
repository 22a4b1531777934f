"""Turns a neutral window into what the policy may see of it, and into the motion that follows."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from omni_mlflow.backbones.base import Exported
from omni_mlflow.backbones.policy_vla_branch.camera import HandsAhead, future_in_anchor_camera
from omni_mlflow.backbones.policy_vla_branch.hands import Hands, apertures, rot6d, wrist_frames
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.poses import Floats
from omni_mlflow.spine.types import Sample, Skip, Span, Target, Tile, Window

CAMERA = "stereo_left"
"""The camera that the policy sees with; hands are given in its rectified frame."""

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

_MICROMETRE = 6  # decimals of a metre that are kept: far below what motion capture can tell

_VALIDITY = "joints finite, not all zero, palm not flat; camera known at the frame and at the last one seen"


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
        fps: source frames, and steps of a chunk, per second.
        target_kinds: which of the specification's kinds of target this window has.
        provenance: of each of them.
    """

    observation: Observation | None
    instruction: str
    fps: float = Field(gt=0)
    state: list[float] = Field(min_length=len(STATE_NAMES), max_length=len(STATE_NAMES))
    hands: SeenHands
    target_kinds: tuple[str, ...]
    provenance: tuple[Source, ...]


def export_window(window: Window, *, media_root: Path, settings: Settings) -> Exported | Skip:
    """Return the sample and what follows it, or why there is nothing to ask.

    The picture is pointed at; nothing is decoded here.
    """
    observation = _observation(window)
    if observation is None:
        return Skip(subject=window.id, stage="export", reason=f"no picture of {CAMERA} before the anchor")
    state = window.adapter_views["policy_vla_branch"]["observation"]["state"]
    trajectories = read_trajectories(media_root / state["path"])
    ahead = future_in_anchor_camera(trajectories, window.anchor - 1, settings.action.horizon_frames)
    if isinstance(ahead, str):
        return Skip(subject=window.id, stage="export", reason=ahead)
    inputs = _inputs(window, ahead, observation, settings)
    shown = observation.proxy_frame * window.modalities.media.grid_stride
    sample = Sample(
        id=window.id,
        episode_id=window.episode_id,
        split=window.split,
        anchor=window.anchor,
        observed=Span(start=min(shown, max(0, window.anchor - 2)), stop=window.anchor),
        forecast_from=window.anchor,
        inputs=inputs.model_dump(mode="json"),
    )
    target = Target(
        id=window.id,
        episode_id=window.episode_id,
        anchor=window.anchor,
        window=window.span,
        labels=window.supervision,
    )
    arrays = {
        "future_hands": ahead.future_hands,
        "future_valid": ahead.future_valid,
        "future_reason": ahead.future_reason,
    }
    return Exported(sample, target, arrays)


def state_of(now: Hands, before: Hands | None, *, fps: float) -> Floats:
    """Return the state of both hands, shape (28,); see :data:`STATE_NAMES`.

    Args:
        now, before: joints (2, 21, 3) of the last frame seen and the one before it, in the same camera.
    """
    velocity = np.zeros((2, 3))
    if before is not None:
        known = now.valid & before.valid
        velocity[known] = (now.joints[known, 0] - before.joints[known, 0]) * fps
    valid = now.valid.astype(np.float64)
    pose = pose_of(now.joints) * valid[:, None]
    return np.concatenate([pose.ravel(), velocity.ravel(), valid])


def pose_of(joints: Floats) -> Floats:
    """Return wrist, rotation as two columns and aperture of each hand, (..., 2, 21, 3) to (..., 2, 10)."""
    turned = rot6d(wrist_frames(joints))
    return np.concatenate([joints[..., 0, :], turned, apertures(joints)[..., None]], axis=-1)


@lru_cache(maxsize=4)  # windows come episode by episode, and each episode has one file
def _trajectories(path: Path, _changed_ns: int) -> dict[str, NDArray[np.generic]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def read_trajectories(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the ``trajectories.npz`` of an episode."""
    return _trajectories(path, path.stat().st_mtime_ns)


def _observation(window: Window) -> Observation | None:
    media = window.modalities.media
    tile = next((each for each in media.tiles if each.camera == CAMERA), None)
    shown = media.proxy_frames(Span(start=0, stop=window.anchor))
    if media.proxy_video is None or tile is None or not shown:
        return None
    return Observation(video=media.proxy_video, proxy_frame=shown[-1], tile=tile)


def _inputs(window: Window, ahead: HandsAhead, observation: Observation, settings: Settings) -> Inputs:
    kinds = window.adapter_views["policy_vla_branch"]["target_kinds"]
    return Inputs(
        observation=observation,
        instruction=window.modalities.language.main_task or "",
        fps=window.fps,
        state=_rounded(state_of(ahead.now, ahead.before, fps=window.fps)),
        hands=_seen(ahead),
        target_kinds=tuple(kinds),
        provenance=tuple(_source(kind, window, settings) for kind in kinds),
    )


def _seen(ahead: HandsAhead) -> SeenHands:
    before = ahead.before
    return SeenHands(
        now=_rounded(ahead.now.joints),
        before=None if before is None else _rounded(before.joints),
        valid=_pair(ahead.now),
        before_valid=(False, False) if before is None else _pair(before),
    )


def _source(kind: str, window: Window, settings: Settings) -> Source:
    after = Span(start=window.anchor, stop=window.anchor + len(window.span))
    share = window.provenance["label_rule"]["majority_of_labelled_frames"]
    majority = f"label of at least {share:.0%} of the labelled frames"
    if kind in ("hand_trajectory", "robot_action_token"):  # tokens are another code of the same motion
        steps = Span(start=window.anchor, stop=window.anchor + settings.action.horizon_frames)
        fields = (
            "hand_mocap/left_joints_3d",
            "hand_mocap/right_joints_3d",
            "slam/quat_wxyz",
            "slam/trans_xyz",
        )
        return Source(kind=kind, fields=fields, window=steps, rule=_VALIDITY)
    if kind == "contact_event":
        bound = window.provenance["contact_rule"]["wrist_probability_above"]
        rule = f"either wrist (columns 19, 20) above {bound} in most of the known frames"
        return Source(kind=kind, fields=("full_body_mocap/contacts",), window=after, rule=rule)
    span = window.span if kind == "action_class" else after
    return Source(kind=kind, fields=("caption",), window=span, rule=majority)


def _pair(hands: Hands) -> tuple[bool, bool]:
    left, right = hands.valid.tolist()
    return left, right


def _rounded(values: NDArray[np.floating]) -> Any:
    return np.round(values, _MICROMETRE).tolist()
