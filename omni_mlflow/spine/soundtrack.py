"""The sound of an episode: the track of the video that leaves least of it in silence.

The real files are said to carry the same sound, all six. Where one lost some of it, another may have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omni_mlflow.spine.audio import Sound, extract_audio, read_sound
from omni_mlflow.spine.types import Row

WHOLE_S = 0.1
"""A track that leaves no more of an episode in silence is whole: it ends with its last full frame."""


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


def fullest_sound(videos: Mapping[str, Path], *, length_s: float) -> tuple[str, Sound] | None:
    """Return the camera whose track leaves least of an episode in silence, the first of equals.

    The tracks of cameras after one that is whole are not read. None where no video has sound.

    Raises:
        UnreadableVideoError: as :func:`~omni_mlflow.spine.audio.extract_audio`.
    """
    found: dict[str, Sound] = {}
    for camera, path in videos.items():
        sound = read_sound(path)
        if sound.silence_s(length_s) < length_s:
            found[camera] = sound
        if sound.silence_s(length_s) <= WHOLE_S:
            break
    if not found:
        return None
    camera = min(found, key=lambda each: round(found[each].silence_s(length_s), 3))
    return camera, found[camera]


def write_soundtrack(videos: Mapping[str, Path], out: Path, *, length_s: float) -> Soundtrack | None:
    """Write the fullest sound as ``extract_audio`` does; None, and no file, where no video has sound.

    Raises:
        UnreadableVideoError: as :func:`~omni_mlflow.spine.audio.extract_audio`.
    """
    fullest = fullest_sound(videos, length_s=length_s)
    if fullest is None:
        return None
    video = videos[fullest[0]]
    sound = extract_audio(video, out)
    return Soundtrack(
        file=video.name,
        silence_s=round(sound.silence_s(length_s), 3),
        overlap_s=round(sound.overlap_s, 3),
    )
