"""What an episode folder holds: the share of frames that each modality covers, and all that is unusual."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from omni_mlflow.spine.anomalies import annotation_anomalies, listed, percent
from omni_mlflow.spine.episodes import NOMINAL_FPS, EpisodeFile, open_episode
from omni_mlflow.spine.lost_frames import lost_frames
from omni_mlflow.spine.picture_clock import clock_off_s
from omni_mlflow.spine.sound import WHOLE_S
from omni_mlflow.spine.soundtrack import fullest_sound
from omni_mlflow.spine.types import CAMERAS, LostFrames, Row
from omni_mlflow.spine.video import UnreadableVideoError, container_fps, count_frames, probe_video

_FPS_TOLERANCE = 0.005  # intact files claim 19.99 to 20.01 frames per second


class Inspection(Row):
    """One episode as it lies on the disk.

    Attributes:
        fps: by the device clock.
        modalities: share of frames (0..1) for which each video, the sound, each sensor and each label is
            present and valid.
        sampled: each modality whose share is an estimate, with how many frames, spread evenly over the
            episode, were looked at; all frames were for the others.
        lost_frames: those that some array is too short for; None where all arrays are equal.
        anomalies: one sentence each; none for a flawless episode.
    """

    episode_id: str
    num_frames: int
    fps: float
    modalities: dict[str, float]
    sampled: dict[str, int]
    lost_frames: LostFrames | None = None
    anomalies: tuple[str, ...]


def inspect_episode(folder: Path) -> Inspection:
    """Read an episode folder; videos may be absent.

    Raises:
        UnreadableEpisodeError: its annotation cannot be read.
    """
    folder = folder.resolve()
    with open_episode(folder) as source:
        videos, video_anomalies = _look_at_videos(folder, source)
        readable = {name: folder / f"{name}.mp4" for name, share in videos.items() if share}
        sound, sound_anomalies = _listen(readable, source)
        modalities = {**videos, "audio": sound, **source.coverage()}
        anomalies = [*video_anomalies, *sound_anomalies, *annotation_anomalies(source)]
        return Inspection(
            episode_id=f"{folder.parent.name}__{folder.name}",
            num_frames=source.num_frames,
            fps=round(source.fps, 3),
            modalities={name: round(share, 4) for name, share in modalities.items()},
            sampled=source.sampled(),
            lost_frames=lost_frames(source),
            anomalies=tuple(anomalies),
        )


def rendered(inspection: Inspection) -> Group:
    """Lay an inspection out for a person at a terminal."""
    table = Table("modality", "frames covered", box=box.SIMPLE)
    for name, share in inspection.modalities.items():
        looked_at = inspection.sampled.get(name)
        table.add_row(name, percent(share) + (f" of {looked_at} sampled frames" if looked_at else ""))
    head = f"{inspection.episode_id}: {inspection.num_frames} frames, {inspection.fps:.4g} per second"
    return Group(Text(head), table, *(Text(f"- {each}") for each in inspection.anomalies or ["no anomaly"]))


def _look_at_videos(folder: Path, source: EpisodeFile) -> tuple[dict[str, float], list[str]]:
    """Return the coverage of the cameras, and what is wrong with the files."""
    coverage = dict.fromkeys(CAMERAS, 0.0)
    anomalies = []
    odd_rates: dict[str, list[str]] = {}
    for camera in CAMERAS:
        path = folder / f"{camera}.mp4"
        if not path.is_file():
            anomalies.append(f"{path.name} missing")
            continue
        try:
            probe_video(path)
            num_pictures, claimed_fps = count_frames(path), container_fps(path)
        except UnreadableVideoError as error:
            anomalies.append(f"{path.name}: {error.reason}")
            continue
        coverage[camera] = min(1.0, num_pictures / source.num_frames)
        anomalies += _odd_length(path.name, num_pictures, source.num_frames)
        if claimed_fps is not None and abs(claimed_fps / NOMINAL_FPS - 1) > _FPS_TOLERANCE:
            odd_rates.setdefault(f"{claimed_fps:.4g}", []).append(path.name)
    anomalies += [
        f"{rate} frames per second claimed by {', '.join(names)}: frames are counted, not timed"
        for rate, names in odd_rates.items()
    ]
    return coverage, anomalies


def _listen(videos: Mapping[str, Path], source: EpisodeFile) -> tuple[float, list[str]]:
    """Return the coverage of the sound, and what is wrong with it; ``index`` takes the same track."""
    length_s = source.length_s
    listened = fullest_sound(videos, length_s=length_s, seconds_of=source.seconds_of)
    refused = listened.refused
    anomalies = [f"{name}.mp4: {reason}" for name, reason in refused.items()]
    if listened.taken is None:
        none_at_all = ["no sound: no video has an audio track"] if videos and not refused else []
        return 0.0, anomalies + none_at_all
    camera, sound, joints = listened.taken
    if sound.mute:
        anomalies.append(f"the sound of {camera}.mp4 is digital silence")
    if off_s := clock_off_s(joints):
        anomalies.append(
            f"the clock of {camera}.mp4 is up to {off_s:.2f} s from the device's: "
            "its sound is placed by its pictures"
        )
    lacking = [span for span in sound.silences(length_s) if span[1] - span[0] > _shortest(span, length_s)]
    if lacking:
        places = listed([f"{start:.2f}-{stop:.2f}" for start, stop in lacking])
        missing_s = sum(stop - start for start, stop in lacking)
        anomalies.append(
            f"no sound for {missing_s:.2f} of {length_s:.2f} s: {places}; {camera}.mp4 has most of it"
        )
    if sound.num_broken:
        damaged = f"{sound.num_broken} packets of the sound of {camera}.mp4 cannot be decoded"
        anomalies.append(f"{damaged}: silence stands for them")
    if sound.overlap_s:
        anomalies.append(f"{camera}.mp4 holds {sound.overlap_s:.2f} s of sound twice: the second is cut")
    return sound.share(length_s), anomalies


def _shortest(span: tuple[float, float], length_s: float) -> float:
    """How long a silence is told of: a track need not begin and end with the video to the last sample."""
    return WHOLE_S if span[0] == 0 or span[1] == length_s else 0.0


def _odd_length(name: str, num_pictures: int, num_frames: int) -> list[str]:
    """Say what is unusual about a video's length: most hold one picture more than there are frames."""
    held = f"{name} holds {num_pictures} pictures for {num_frames} frames"
    if num_pictures < num_frames:
        return [f"{held}: its last one stands for {num_frames - num_pictures}"]
    if num_pictures == num_frames:
        return [f"{held}: the usual one more at the end is missing"]
    return [held] if num_pictures > num_frames + 1 else []
