"""The sound of an episode: the track of the video that leaves least of it in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from omni_mlflow.spine.audio import extract_audio, read_sound
from omni_mlflow.spine.frame_plan import UnreadableVideoError
from omni_mlflow.spine.picture_clock import clock_off_s, joints_of
from omni_mlflow.spine.sound import NO_JOINT, Joint, Sound, fullest
from omni_mlflow.spine.types import Row


class Soundtrack(Row):
    """What an index says of the sound of one episode.

    Attributes:
        file: the video that it was taken from.
        silence_s: for how long the episode has none, because the track holds nothing there.
        overlap_s: how much of the track was cut because it held another sound for the same time.
        clock_off_s: how far the clock of the file is from that of the device, at most; the sound was placed
            by its pictures there. 0 where it never had to be.
    """

    file: str
    silence_s: float
    overlap_s: float
    clock_off_s: float = 0.0


class Listened(NamedTuple):
    """What was found in the tracks of an episode.

    Attributes:
        camera: the one whose track is taken; None where no video has sound that can be used.
        sound: when it sounds, by the device's clock.
        refused: why the sound of a camera's file cannot be used, by camera.
        joints: where its sound has to be joined anew to be in time.
    """

    camera: str | None
    sound: Sound
    refused: dict[str, str]
    joints: tuple[Joint, ...] = NO_JOINT


def fullest_sound(
    videos: Mapping[str, Path], *, length_s: float, seconds_at: Callable[[int], float]
) -> Listened:
    """Find the track to take, see :func:`~omni_mlflow.spine.sound.fullest`.

    One that cannot be decoded is left out, with its reason: another camera's may be whole. The tracks of
    cameras after one that is whole are not read.

    Args:
        seconds_at: the time of each frame after frame 0, by the device's clock.
    """
    joints: dict[str, tuple[Joint, ...]] = {}
    found: dict[str, Sound] = {}
    refused: dict[str, str] = {}
    for camera, path in videos.items():
        try:
            joints[camera] = joints_of(path, seconds_at)
            found[camera] = read_sound(path)
        except UnreadableVideoError as error:
            refused[camera] = error.told
            continue
        if found[camera].is_whole(length_s):
            break
    taken = fullest(found, length_s=length_s)
    if taken is None:
        return Listened(None, Sound(), refused)
    return Listened(taken, found[taken].joined(joints[taken]), refused, joints[taken])


def write_soundtrack(
    videos: Mapping[str, Path], out: Path, *, length_s: float, seconds_at: Callable[[int], float]
) -> tuple[Soundtrack | None, dict[str, str]]:
    """Write the fullest sound as ``extract_audio`` does; None, and no file, where no video has sound.

    Returns:
        Also why the sound of a camera's file cannot be used, by camera.
    """
    listened = fullest_sound(videos, length_s=length_s, seconds_at=seconds_at)
    camera, sound = listened.camera, listened.sound
    if camera is None:
        out.unlink(missing_ok=True)  # a run that was interrupted may have left one of another plan
        return None, listened.refused
    extract_audio(videos[camera], out, joints=listened.joints)
    track = Soundtrack(
        file=videos[camera].name,
        silence_s=round(sound.silence_s(length_s), 3),
        overlap_s=round(sound.overlap_s, 3),
        clock_off_s=round(clock_off_s(listened.joints), 3),
    )
    return track, listened.refused
