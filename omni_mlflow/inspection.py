"""What an episode folder holds: the share of frames that each modality covers, and all that is unusual."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from omni_mlflow.spine.audio import audio_seconds
from omni_mlflow.spine.episodes import NOMINAL_FPS, EpisodeFile, open_episode
from omni_mlflow.spine.types import CAMERAS, Row
from omni_mlflow.spine.video import UnreadableVideoError, count_frames, probe_video

DEGENERATE_SHARE = 0.95
"""A yes/no label with more than this in one class tells a model nothing."""

_FPS_TOLERANCE = 0.02
_LONG_GAP = 1.5  # frame periods between two frames, from where on one was dropped
# Not the hands, which leave the picture all the time, and not contact, which is known where the body is.
_INVALID_IS_UNUSUAL = {"camera_pose": "camera pose", "body_mocap": "body", "imu": "IMU", "depth": "depth"}
_LABELS = ("action", "subtask", "objects")


class Inspection(Row):
    """One episode as it lies on the disk.

    Attributes:
        fps: by the device clock.
        modalities: share of frames (0..1) for which each video, the sound, each sensor and each label is
            present and valid.
        anomalies: one sentence each; none for a flawless episode.
    """

    episode_id: str
    num_frames: int
    fps: float
    modalities: dict[str, float]
    anomalies: tuple[str, ...]


def inspect_episode(folder: Path) -> Inspection:
    """Read an episode folder; videos may be absent.

    Raises:
        UnreadableEpisodeError: its annotation cannot be read.
    """
    folder = folder.resolve()
    with open_episode(folder) as source:
        videos, video_anomalies = _look_at_videos(folder, source)
        modalities = {**videos, **source.coverage()}
        anomalies = [
            *video_anomalies,
            *_rows_that_do_not_fit(source),
            *_clock_anomalies(source),
            *_absent_modalities(source),
            *_invalid_frames(modalities),
            *_label_anomalies(source),
        ]
        return Inspection(
            episode_id=f"{folder.parent.name}__{folder.name}",
            num_frames=source.num_frames,
            fps=round(source.fps, 3),
            modalities={name: round(share, 4) for name, share in modalities.items()},
            anomalies=tuple(anomalies),
        )


def rendered(inspection: Inspection) -> Group:
    """Lay an inspection out for a person at a terminal."""
    table = Table("modality", "frames covered", box=box.SIMPLE)
    for name, share in inspection.modalities.items():
        table.add_row(name, _percent(share))
    head = f"{inspection.episode_id}: {inspection.num_frames} frames, {inspection.fps:.4g} per second"
    return Group(Text(head), table, *(Text(f"- {each}") for each in inspection.anomalies or ["no anomaly"]))


def _look_at_videos(folder: Path, source: EpisodeFile) -> tuple[dict[str, float], list[str]]:
    """Return the coverage of the cameras and of the sound, and what is wrong with the files.

    An intact file holds one picture more than the annotation has rows.
    """
    coverage = dict.fromkeys(CAMERAS, 0.0)
    audio_s = 0.0
    anomalies = []
    for camera in CAMERAS:
        path = folder / f"{camera}.mp4"
        if not path.is_file():
            anomalies.append(f"{path.name} missing")
            continue
        try:
            probe_video(path)
            num_frames = count_frames(path)
        except UnreadableVideoError as error:
            anomalies.append(f"{path.name}: {error.reason}")
            continue
        coverage[camera] = min(1.0, num_frames / source.num_frames)
        audio_s = max(audio_s, audio_seconds(path))
        if num_frames not in (source.num_frames, source.num_frames + 1):
            anomalies.append(f"{path.name} holds {num_frames} pictures for {source.num_frames} frames")
    if audio_s == 0 and any(coverage.values()):
        anomalies.append("no sound: no video has an audio track")
    return {**coverage, "audio": min(1.0, audio_s * source.fps / source.num_frames)}, anomalies


def _rows_that_do_not_fit(source: EpisodeFile) -> Iterator[str]:
    rows = source.annotation.rows_by_array
    shortest = min(rows, key=lambda name: rows[name])
    if rows[shortest] != (longest := max(rows.values())):
        yield (
            f"{shortest} has {rows[shortest]} rows where others have up to {longest}: "
            f"only the first {source.num_frames} frames are used"
        )


def _clock_anomalies(source: EpisodeFile) -> Iterator[str]:
    clock = source.device_timestamps_ns
    if clock is None:
        yield f"no device clock: {NOMINAL_FPS:g} frames per second assumed, IMU not placed"
        return
    gaps = np.diff(clock)
    if (gaps <= 0).any():
        yield f"the device clock does not advance at {np.count_nonzero(gaps <= 0)} frames"
        return
    periods = gaps / np.median(gaps) if len(gaps) else gaps
    dropped = int(np.round(periods[periods > _LONG_GAP] - 1).sum())
    if dropped:
        yield f"fps {source.fps:.1f}: dropped frames, about {dropped} by the device clock"
    elif abs(source.fps / NOMINAL_FPS - 1) > _FPS_TOLERANCE:
        yield f"fps {source.fps:.1f}, not the nominal {NOMINAL_FPS:g}"


def _absent_modalities(source: EpisodeFile) -> Iterator[str]:
    missing = source.missing()
    if not any(name in source.annotation for name in ("slam/quat_wxyz", "slam/trans_xyz")):
        named = "counted from 0" if source.device_timestamps_ns is None else "named by device timestamp"
        yield f"no slam: poses are not available, frames {named}"
        missing.pop("camera_pose")
    if source.captions() is None:
        yield "no caption that can be read: there is nothing to train or to score on"
        missing = {name: reason for name, reason in missing.items() if name not in _LABELS}
    yield from (f"{name} not available: {reason}" for name, reason in missing.items())


def _invalid_frames(modalities: dict[str, float]) -> Iterator[str]:
    for name, word in _INVALID_IS_UNUSUAL.items():
        if 0 < modalities[name] < 1:
            yield f"{word} invalid in {_percent(1 - modalities[name])} of frames"


def _label_anomalies(source: EpisodeFile) -> Iterator[str]:
    for name in _LABELS:
        if 0 < (share := source.coverage()[name]) < 1:
            yield f"{name} not annotated in {_percent(1 - share)} of frames"
    in_contact, known = source.hand_contact()
    if known.any():
        yes = float(in_contact[known].mean())
        if max(yes, 1 - yes) > DEGENERATE_SHARE:
            word = "yes" if yes > 0.5 else "no"
            yield f"contact label is degenerate ({_percent(max(yes, 1 - yes))} {word})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
