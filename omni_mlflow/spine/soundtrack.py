"""The sound of an episode: the track of the video that leaves least of it in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from omni_mlflow.spine.audio import extract_audio, read_sound
from omni_mlflow.spine.frame_plan import UnreadableVideoError
from omni_mlflow.spine.sound import Sound, fullest
from omni_mlflow.spine.types import Row


class Soundtrack(Row):
    """What an index says of the sound of one episode.

    Attributes:
        file: the video that it was taken from.
        silence_s: for how long the episode has none, because the track holds nothing there.
        overlap_s: how much of the track was cut because it held another sound for the same time.
    """

    file: str
    silence_s: float
    overlap_s: float


class Listened(NamedTuple):
    """What was found in the tracks of an episode.

    Attributes:
        camera: the one whose track is taken; None where no video has sound that can be used.
        sound: when it sounds.
        refused: why the sound of a camera's file cannot be used, by camera.
    """

    camera: str | None
    sound: Sound
    refused: dict[str, str]


def fullest_sound(videos: Mapping[str, Path], *, length_s: float) -> Listened:
    """Find the track to take, see :func:`~omni_mlflow.spine.sound.fullest`.

    One that cannot be decoded is left out, with its reason: another camera's may be whole. The tracks of
    cameras after one that is whole are not read.
    """
    found: dict[str, Sound] = {}
    refused: dict[str, str] = {}
    for camera, path in videos.items():
        try:
            found[camera] = read_sound(path)
        except UnreadableVideoError as error:
            refused[camera] = error.told
            continue
        if found[camera].is_whole(length_s):
            break
    taken = fullest(found, length_s=length_s)
    return Listened(taken, found[taken] if taken else Sound(), refused)


def write_soundtrack(
    videos: Mapping[str, Path], out: Path, *, length_s: float
) -> tuple[Soundtrack | None, dict[str, str]]:
    """Write the fullest sound as ``extract_audio`` does; None, and no file, where no video has sound.

    Returns:
        Also why the sound of a camera's file cannot be used, by camera.
    """
    camera, sound, refused = fullest_sound(videos, length_s=length_s)
    if camera is None:
        out.unlink(missing_ok=True)  # a run that was interrupted may have left one of another plan
        return None, refused
    extract_audio(videos[camera], out)
    track = Soundtrack(
        file=videos[camera].name,
        silence_s=round(sound.silence_s(length_s), 3),
        overlap_s=round(sound.overlap_s, 3),
    )
    return track, refused
