"""How each family of models looks at a neutral window: pointers and frame ranges, never an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni_mlflow.spine.features import FEATURE_GROUPS, FEATURE_NAMES
from omni_mlflow.spine.types import Labels, Media, SensorPointer, Span, Window


@dataclass(frozen=True)
class View:
    """What the views of one window are made from.

    Attributes:
        context: frames that a model may see; they end at the anchor.
        context_is_whole: the context is as long as planned, not cut off by the start of the episode.
        following: the window of equal length that starts at the anchor, if it lies inside the episode.
        trajectories: ``.npz`` with camera, hands and body of every frame of the episode.
        hands_follow: the camera pose is known at the last frame seen, and a hand and a pose are at one of
            the following ones.
        body_follows: the person's body is known at the last frame seen and at one of the following ones.
    """

    context: Span
    context_is_whole: bool
    following: Span | None
    media: Media
    features: SensorPointer
    trajectories: str
    main_task: str | None
    labels: Labels
    hands_follow: bool
    body_follows: bool


def adapter_views(view: View) -> dict[str, dict[str, Any]]:
    return {
        "qwen3_omni_lora": _question(view),
        "cosmos_world_model": _future(view),
        "policy_vla_branch": _policy(view),
    }


def as_asked(window: Window, *, frame_grid: int, context_frames: int) -> Window:
    """Return a window of an index that serves several backbones as one of them asked for it.

    Args:
        frame_grid: source frames from one frame that it sees to the next: a multiple of the proxy's grid.
        context_frames: how many of them it sees before the anchor.
    """
    seen = context_frames * frame_grid
    media = window.modalities.media
    changed = {
        "context_window": Span(start=max(0, window.anchor - seen), stop=window.anchor).model_dump(),
        "context_is_whole": window.anchor >= seen,
    }
    views = {name: _with(view, changed) for name, view in window.adapter_views.items()}
    shown = media.model_copy(update={"shown_every": frame_grid // media.grid_stride})
    modalities = window.modalities.model_copy(update={"media": shown})
    return window.model_copy(update={"modalities": modalities, "adapter_views": views})


def _with(view: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Replace keys of a view at any depth."""
    return {
        key: changed.get(key, _with(value, changed) if isinstance(value, dict) else value)
        for key, value in view.items()
    }


def _question(view: View) -> dict[str, Any]:
    return {
        "question": "json_episode_understanding",
        "context_window": view.context.model_dump(),
        "context_is_whole": view.context_is_whole,
        "video": view.media.proxy_video,
        "audio": view.media.proxy_audio,
    }


def _future(view: View) -> dict[str, Any]:
    return {
        "context_window": view.context.model_dump(),
        "target_window": view.following.model_dump() if view.following else None,
        "conditioning": {
            "video": view.media.proxy_video,
            "audio": view.media.proxy_audio,
            **{group: _columns(view.features, group) for group in FEATURE_GROUPS},
            "language": view.main_task,
        },
        "target": {
            "future_video": view.media.proxy_video,
            "future_sensor_features": {**view.features.model_dump(), "array": "next_windows"},
            "transition": "supervision.next_transition",
        }
        if view.following
        else None,
    }


def _policy(view: View) -> dict[str, Any]:
    """State and targets are read from the trajectories: the frame before the anchor, and those from it."""
    known = {
        "action_class": view.labels.action is not None,
        "next_action": view.labels.next_action is not None,
        "contact_event": view.labels.next_in_contact is not None,
        "hand_trajectory": view.hands_follow,
        "robot_action_token": view.hands_follow,
        "retargeted_humanoid_action": view.body_follows,
    }
    return {
        "observation": {
            "context_window": view.context.model_dump(),
            "video": view.media.proxy_video,
            "audio": view.media.proxy_audio,
            "sensor_features": view.features.model_dump(),
            "state": {"path": view.trajectories, "frame": view.context.stop - 1},
        },
        "instruction": view.main_task,
        "target_kinds": [kind for kind, is_known in known.items() if is_known],
        "target": {"path": view.trajectories, "window": view.following.model_dump()}
        if view.following
        else None,
    }


def _columns(features: SensorPointer, group: str) -> dict[str, Any]:
    """Point at the columns of one kind of sensor: from the first to before the last one."""
    first = FEATURE_NAMES.index(FEATURE_GROUPS[group][0])
    return {
        "path": features.path,
        "index": features.index,
        "columns": [first, first + len(FEATURE_GROUPS[group])],
    }
