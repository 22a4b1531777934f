"""Turns a neutral window into what Qwen3-Omni may see of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from omni_mlflow.backbones.base import Exported
from omni_mlflow.backbones.qwen3_omni_lora.settings import Prompt, Settings
from omni_mlflow.spine.types import Sample, SensorPointer, Skip, Span, Target, Window


class _Pointer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class VideoPointer(_Pointer):
    """Frames of a proxy video.

    Attributes:
        path: relative to the media root.
        positions: which frames of the proxy video, ascending.
        frames_per_second: how densely they lie in time.
    """

    path: str
    positions: tuple[int, ...] = Field(min_length=1)
    frames_per_second: float = Field(gt=0)


class AudioPointer(_Pointer):
    """Sound of a proxy WAV between two times in seconds after frame 0 of the episode."""

    path: str
    start_s: float = Field(ge=0)
    stop_s: float


class Inputs(_Pointer):
    """``Sample.inputs`` of this backbone.

    Attributes:
        window: the frames that are asked about; half-open here, inclusive in the file.
        sensors: summary of the sensor features of the window, in words.
    """

    video: VideoPointer | None
    audio: AudioPointer | None
    window: Span
    main_task: str | None
    sensors: str | None


def export_window(window: Window, *, media_root: Path, settings: Settings) -> Exported | Skip:
    """Return the sample and its target, or why the window cannot be asked about.

    The sample points at proxy media below ``media_root``; nothing is decoded here.
    """
    if reason := _why_not(window):
        return Skip(subject=window.id, stage="export", reason=reason)
    video = _video(window)
    audio = _audio(window, settings.prompt)
    inputs = Inputs(
        video=video,
        audio=audio,
        window=window.span,
        main_task=window.modalities.language.main_task,
        sensors=_sensors(window, media_root) if settings.prompt.sensor_bridge else None,
    )
    heard_from = window.anchor if audio is None else int(audio.start_s * window.fps)
    first = min(window.span.start, video.positions[0] * window.modalities.media.grid_stride, heard_from)
    sample = Sample(
        id=window.id,
        episode_id=window.episode_id,
        split=window.split,
        anchor=window.anchor,
        observed=Span(start=first, stop=window.anchor),
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
    return Exported(sample, target)


def _why_not(window: Window) -> str | None:
    if window.supervision.action is None:
        return "no action label reaches the share that a window needs"
    if window.modalities.media.proxy_video is None:
        return "no proxy video"
    if not window.adapter_views["qwen3_omni_lora"]["context_is_whole"]:
        return "context leaves the episode"
    return None


def _video(window: Window) -> VideoPointer:
    media = window.modalities.media
    context = Span.model_validate(window.adapter_views["qwen3_omni_lora"]["context_window"])
    assert media.proxy_video is not None
    return VideoPointer(
        path=media.proxy_video,
        positions=tuple(media.proxy_frames(context)),
        frames_per_second=window.fps / media.shown_stride,
    )


def _audio(window: Window, prompt: Prompt) -> AudioPointer | None:
    path = window.modalities.media.proxy_audio
    if path is None:
        return None
    start_s = max(0.0, window.anchor_s - prompt.audio_seconds)
    return AudioPointer(path=path, start_s=start_s, stop_s=window.anchor_s)


def _sensors(window: Window, media_root: Path) -> str | None:
    from omni_mlflow.spine.features import describe_features

    pointer = window.modalities.sensor_features
    return None if pointer is None else describe_features(_features(pointer, media_root))


def _features(pointer: SensorPointer, media_root: Path) -> NDArray[np.float32]:
    path = media_root / pointer.path
    rows = _feature_rows(path, path.stat().st_mtime_ns)
    row: NDArray[np.float32] = rows[pointer.index]
    return row


@lru_cache(maxsize=4)  # windows come episode by episode, and each episode has one file
def _feature_rows(path: Path, _changed_ns: int) -> NDArray[np.float32]:
    with np.load(path, allow_pickle=False) as arrays:
        rows: NDArray[np.float32] = arrays["windows"]
    return rows
