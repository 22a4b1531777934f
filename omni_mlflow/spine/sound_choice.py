"""Which track of an episode's six videos is taken.

The real files are said to carry the same sound, all six. Where one lost some of it, another may have it.
``index`` takes a track and ``guard`` compares one: by the same choice, or a leak could hide in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from omni_mlflow.spine.packed import Packed
from omni_mlflow.spine.picture_clock import joints_of
from omni_mlflow.spine.sound import WHOLE_S, Joint, Sound
from omni_mlflow.spine.types import Row

SecondsOf = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From the numbers of frames to their times after frame 0."""


class Track(Row):
    """What a file tells of its sound.

    Attributes:
        sound: when it sounds, by the file's clock.
        pictures_s: when each picture is shown, by the same clock, shape (pictures,).
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    sound: Sound
    pictures_s: Packed


class Taken(NamedTuple):
    """The track of one camera on the clock of the episode.

    Attributes:
        sound: when it sounds, by the device's clock.
        joints: where it has to be joined anew to be in time.
    """

    camera: str
    sound: Sound
    joints: tuple[Joint, ...]


def fullest(tracks: Iterable[tuple[str, Track]], *, length_s: float, seconds_of: SecondsOf) -> Taken | None:
    """Return the track that leaves least of an episode in silence by the device's clock, the first of equals.

    All that are whole are equal, and a mute one is taken where all are. None where none sounds in time.

    Args:
        tracks: by camera; what follows one that is whole is not asked for.
        seconds_of: gives the times of frames after frame 0, by the device's clock.
    """
    heard: list[Taken] = []
    for camera, track in tracks:
        joints = joints_of(track.pictures_s, seconds_of(np.arange(len(track.pictures_s))))
        taken = Taken(camera, track.sound.joined(joints), joints)
        if taken.sound.is_whole(length_s):
            return taken
        if taken.sound.silence_s(length_s) < length_s:
            heard.append(taken)

    def rank(taken: Taken) -> tuple[bool, float]:
        silence_s = taken.sound.silence_s(length_s)
        return taken.sound.mute, 0.0 if silence_s <= WHOLE_S else round(silence_s, 3)

    return min(heard, key=rank, default=None)


def why_no_sound(refused: Mapping[str, str]) -> str:
    """Say why an episode has no sound.

    Args:
        refused: why the sound of a camera's file cannot be used, by camera.
    """
    told = "; ".join(f"{camera}.mp4: {reason}" for camera, reason in refused.items())
    return told or "no video has a sound track"
