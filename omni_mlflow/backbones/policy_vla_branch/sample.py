"""Turns a neutral window into what the policy may see of it, and into the motion that follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omni_mlflow.backbones.base import Exported
from omni_mlflow.backbones.policy_vla_branch.action_space import SPACES
from omni_mlflow.backbones.policy_vla_branch.hands import Hands, apertures, rot6d, wrist_frames
from omni_mlflow.backbones.policy_vla_branch.inputs import (
    Inputs,
    Observation,
    SeenHands,
    Source,
    rounded,
)
from omni_mlflow.backbones.policy_vla_branch.motion import Ahead
from omni_mlflow.backbones.policy_vla_branch.settings import Action, Settings
from omni_mlflow.backbones.policy_vla_branch.space import Moving
from omni_mlflow.spine.poses import Floats
from omni_mlflow.spine.types import Sample, Skip, Span, Target, Window

CAMERA = "stereo_left"
"""The camera that the policy sees with; hands are given in its rectified frame."""

_LABELS = ("action_class", "next_action", "contact_event")
"""Kinds of target that every action space leaves as they are: they are labels."""


def export_window(window: Window, *, media_root: Path, settings: Settings) -> Exported | Skip:
    """Return the sample and what follows it, or why there is nothing to ask.

    The picture is pointed at; nothing is decoded here.
    """
    observation = _observation(window)
    if observation is None:
        return Skip(subject=window.id, stage="export", reason=f"no picture of {CAMERA} before the anchor")
    state = window.adapter_views["policy_vla_branch"]["observation"]["state"]
    space, horizon = SPACES[settings.action.space], settings.action.horizon_frames
    ahead = space.ahead(media_root / state["path"], window.anchor - 1, horizon)
    if isinstance(ahead, str):
        return Skip(subject=window.id, stage="export", reason=ahead)
    inputs = _inputs(window, ahead, observation, settings.action)
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
    return Exported(sample, target, ahead.arrays)


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


def _observation(window: Window) -> Observation | None:
    media = window.modalities.media
    tile = next((each for each in media.tiles if each.camera == CAMERA), None)
    shown = media.proxy_frames(Span(start=0, stop=window.anchor))
    if media.proxy_video is None or tile is None or not shown:
        return None
    return Observation(video=media.proxy_video, proxy_frame=shown[-1], tile=tile)


def _inputs(window: Window, ahead: Ahead, observation: Observation, action: Action) -> Inputs:
    moving = SPACES[action.space].moving
    offered: Sequence[str] = window.adapter_views["policy_vla_branch"]["target_kinds"]
    # The index looks a whole window ahead for motion. A chunk is shorter, and what follows is at hand here.
    kinds = (*(kind for kind in offered if kind in _LABELS), *moving.kinds)
    return Inputs(
        observation=observation,
        instruction=window.modalities.language.main_task or "",
        fps=window.fps,
        state=rounded(state_of(ahead.now, ahead.before, fps=window.fps)),
        hands=_seen(ahead),
        body=ahead.body,
        target_kinds=kinds,
        provenance=tuple(_source(kind, window, moving, action.horizon_frames) for kind in kinds),
    )


def _seen(ahead: Ahead) -> SeenHands:
    before = ahead.before
    return SeenHands(
        now=rounded(ahead.now.joints),
        before=None if before is None else rounded(before.joints),
        valid=_pair(ahead.now),
        before_valid=(False, False) if before is None else _pair(before),
    )


def _source(kind: str, window: Window, moving: Moving, horizon: int) -> Source:
    after = Span(start=window.anchor, stop=window.anchor + len(window.span))
    share = window.provenance["label_rule"]["majority_of_labelled_frames"]
    majority = f"label of at least {share:.0%} of the labelled frames"
    if kind in moving.kinds:
        steps = Span(start=window.anchor, stop=window.anchor + horizon)
        return Source(kind=kind, fields=moving.source_fields, window=steps, rule=moving.rule)
    if kind == "contact_event":
        bound = window.provenance["contact_rule"]["wrist_probability_above"]
        rule = f"either wrist (columns 19, 20) above {bound} in most of the known frames"
        return Source(kind=kind, fields=("full_body_mocap/contacts",), window=after, rule=rule)
    span = window.span if kind == "action_class" else after
    return Source(kind=kind, fields=("caption",), window=span, rule=majority)


def _pair(hands: Hands) -> tuple[bool, bool]:
    left, right = hands.valid.tolist()
    return left, right
