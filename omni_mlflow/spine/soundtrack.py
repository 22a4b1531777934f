"""The sound of an episode: the track of the video that leaves least of it in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from omni_mlflow.spine.audio import extract_audio, read_sound
from omni_mlflow.spine.frame_plan import UnreadableVideoError
from omni_mlflow.spine.picture_clock import clock_off_s, picture_times
from omni_mlflow.spine.sound_choice import SecondsOf, Taken, Track, fullest
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
        taken: the one to take; None where no video has sound that can be used.
        refused: why the sound of a camera's file cannot be used, by camera.
    """

    taken: Taken | None
    refused: dict[str, str]

    def share(self, length_s: float) -> float:
        """Share (0..1) of an episode of this length that has sound."""
        return self.taken.sound.share(length_s) if self.taken else 0.0


def fullest_sound(videos: Mapping[str, Path], *, length_s: float, seconds_of: SecondsOf) -> Listened:
    """Find the track to take, see :func:`~omni_mlflow.spine.sound_choice.fullest`.

    One that cannot be decoded is left out, with its reason: another camera's may be whole. The tracks of
    cameras after one that is whole are not read.

    Args:
        seconds_of: gives the times of frames after frame 0, by the device's clock.
    """
    refused: dict[str, str] = {}

    def tracks() -> Iterator[tuple[str, Track]]:
        for camera, path in videos.items():
            try:
                pictures_s = picture_times(path)
                yield camera, Track(sound=read_sound(path), pictures_s=pictures_s)
            except UnreadableVideoError as error:
                refused[camera] = error.told

    taken = fullest(tracks(), length_s=length_s, seconds_of=seconds_of)
    return Listened(taken, refused)


def write_soundtrack(
    videos: Mapping[str, Path], out: Path, *, length_s: float, seconds_of: SecondsOf
) -> tuple[Soundtrack | None, dict[str, str]]:
    """Write the fullest sound as ``extract_audio`` does; None, and no file, where no video has sound.

    Returns:
        Also why the sound of a camera's file cannot be used, by camera.
    """
    listened = fullest_sound(videos, length_s=length_s, seconds_of=seconds_of)
    if listened.taken is None:
        out.unlink(missing_ok=True)  # a run that was interrupted may have left one of another plan
        return None, listened.refused
    camera, sound, joints = listened.taken
    extract_audio(videos[camera], out, joints=joints)
    track = Soundtrack(
        file=videos[camera].name,
        silence_s=round(sound.silence_s(length_s), 3),
        overlap_s=round(sound.overlap_s, 3),
        clock_off_s=round(clock_off_s(joints), 3),
    )
    return track, listened.refused
