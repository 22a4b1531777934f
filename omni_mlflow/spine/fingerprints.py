"""What an episode is, whatever it is called: digests of its bytes, and signals that survive small changes.

A file is read once: the result is kept under its path, size and time of change until one of them differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from omni_mlflow.spine.frame_clock import FrameClock
from omni_mlflow.spine.key_frames import KeyFrames
from omni_mlflow.spine.recording import Recording, recording_of
from omni_mlflow.spine.rows import BadRowError, digest_of, file_digest, read_document, write_document
from omni_mlflow.spine.sound_bits import SoundBits, abstaining
from omni_mlflow.spine.sound_choice import Track, fullest, why_no_sound
from omni_mlflow.spine.types import CAMERAS, Row


class FilePrint(Row):
    """What one file of an episode holds.

    Attributes:
        clock: of the frames of an annotation.
        encoded_pictures: hashes of some: see :func:`omni_mlflow.spine.encoded_pictures.encoded_pictures`.
        unreadable: why its pictures could not be decoded.
        heard: when it sounds.
        sound: what is heard then; None where it never sounds.
        refused: why its sound could not be decoded.
    """

    sha256: str
    recording: Recording | None = None
    clock: FrameClock | None = None
    encoded_pictures: tuple[int, ...] = ()
    key_frames: KeyFrames | None = None
    unreadable: str | None = None
    heard: Track | None = None
    sound: SoundBits | None = None
    refused: str | None = None

    @property
    def blank(self) -> bool:
        """Whether it is a video that shows and sounds nothing: another recording's may be equal."""
        unseen = self.key_frames is not None and not len(self.key_frames.signs) and not self.encoded_pictures
        unheard = self.heard is not None and (not self.heard.sound.spans or self.heard.sound.mute)
        return unseen and unheard


class Fingerprint(Recording):
    """What an episode is.

    Attributes:
        files: sha256 of every file that is read, by name.
        blank: the videos among them that show and sound nothing, as of a covered lens without sound.
        rows: also of each video, by its file, hashes of some encoded pictures.
        key_frames: by camera.
        sound: of the track that ``index`` takes; None without videos or without an annotation.
        unreadable: why the pictures of a file could not be decoded, by its name.
        changed_files: files whose bytes are others than those that were remembered under the same path,
            size and time of change; only known where every byte was read again.
    """

    files: dict[str, str]
    blank: tuple[str, ...] = ()
    key_frames: dict[str, KeyFrames] = Field(default_factory=dict)
    sound: SoundBits | None = None
    unreadable: dict[str, str] = Field(default_factory=dict)
    changed_files: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over the sorted ``name:sha256`` lines of the files."""
        return _digest_of(self.files)


Fingerprints = Mapping[str, Fingerprint]


class _State(Row):
    """Which file, as it was, and which code: what was found holds as long as none of them changes."""

    path: str
    size: int
    mtime_ns: int
    code: str


class _Remembered(Row):
    state: _State
    found: FilePrint


@dataclass(frozen=True)
class FingerprintStore:
    """Fingerprints of files that were read before, one JSON document per file.

    Attributes:
        folder: where they lie; the newest one of a path replaces the one before.
        code: digest of the code that makes fingerprints; those of other code count as unknown.
    """

    folder: Path
    code: str

    def get(self, path: Path) -> FilePrint | None:
        """Return what is known of the file as it is now."""
        document = self._document(path)
        try:
            known = read_document(document, _Remembered) if document.is_file() else None
        except BadRowError:  # a full disk or another version left it; reading the file again mends it
            return None
        return known.found if known and self._state(path) == known.state else None

    def read(self, path: Path) -> FilePrint:
        """Read every byte of a file and remember what was found, unless it changed meanwhile."""
        before = self._state(path)
        found = print_of(path)
        if self._state(path) == before:
            self.remember(path, found)
        return found

    def remember(self, path: Path, found: FilePrint) -> None:
        """Keep what was found in a file as long as neither it nor the code changes."""
        write_document(self._document(path), _Remembered(state=self._state(path), found=found))

    def _state(self, path: Path) -> _State:
        stat = path.stat()
        return _State(path=str(path.resolve()), size=stat.st_size, mtime_ns=stat.st_mtime_ns, code=self.code)

    def _document(self, path: Path) -> Path:
        return self.folder / f"{digest_of(str(path.resolve()))[:32]}.json"


def known_fingerprint(folder: Path, store: FingerprintStore) -> Fingerprint | None:
    """Return the fingerprint of an episode of which every file is known; None when one must be read."""
    known = {path.name: store.get(path) for path in _files_of(folder)}
    complete = {name: found for name, found in known.items() if found is not None}
    return _assembled(complete) if known and len(complete) == len(known) else None


def fingerprint_episode(folder: Path, store: FingerprintStore, *, anew: bool = False) -> Fingerprint:
    """Return the fingerprint of the episode in ``folder``; files that are not known are read.

    Args:
        anew: read every byte again, and tell which files are not what was remembered of them.

    Raises:
        UnreadableEpisodeError: its annotation cannot be read.
    """
    known = {path: store.get(path) for path in _files_of(folder)}
    found = {path: store.read(path) if print_ is None or anew else print_ for path, print_ in known.items()}
    changed = [path.name for path, before in known.items() if before and before.sha256 != found[path].sha256]
    fingerprint = _assembled({path.name: print_ for path, print_ in found.items()})
    return fingerprint.model_copy(update={"changed_files": tuple(sorted(changed))})


def print_of(path: Path) -> FilePrint:
    """Read every byte of one file of an episode, and decode what identifies its recording.

    Raises:
        UnreadableEpisodeError: it is an annotation that cannot be read.
    """
    from omni_mlflow.spine.episodes import ANNOTATION, open_episode

    sha256 = file_digest(path)
    if path.name == ANNOTATION:
        with open_episode(path.parent) as source:
            return FilePrint(sha256=sha256, recording=recording_of(source), clock=source.frame_clock)
    return FilePrint(sha256=sha256, **_pictures_of(path), **_sound_in(path))


def _pictures_of(video: Path) -> dict[str, Any]:
    from omni_mlflow.spine.encoded_pictures import encoded_pictures
    from omni_mlflow.spine.frame_plan import UnreadableVideoError
    from omni_mlflow.spine.key_frames import key_frames_of

    try:
        return {"encoded_pictures": encoded_pictures(video), "key_frames": key_frames_of(video)}
    except UnreadableVideoError as error:
        return {"unreadable": error.reason}


def _sound_in(video: Path) -> dict[str, Any]:
    """Listen to a track, whichever of the episode's is taken: that depends on the other files."""
    from omni_mlflow.spine.frame_plan import UnreadableVideoError
    from omni_mlflow.spine.picture_clock import picture_times
    from omni_mlflow.spine.sound_bits import sound_of

    try:
        pictures_s = picture_times(video)
        heard, sound = sound_of(video)
    except UnreadableVideoError as error:
        return {"refused": error.told}
    return {"heard": Track(sound=heard, pictures_s=pictures_s), "sound": sound}


def digest_of_files(folder: Path) -> str:
    """Read every byte of an episode and return what its :attr:`Fingerprint.digest` must be."""
    return _digest_of({path.name: file_digest(path) for path in _files_of(folder)})


def _digest_of(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name}:{files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    from omni_mlflow.spine.listing import EPISODE_FILES

    return [folder / name for name in EPISODE_FILES if (folder / name).is_file()]


def _assembled(prints: Mapping[str, FilePrint]) -> Fingerprint:
    """Put together what the files of one episode hold, by their names."""
    recording = next((each.recording for each in prints.values() if each.recording), None)
    clock = next((each.clock for each in prints.values() if each.clock), None)
    by_camera = {camera: prints[f"{camera}.mp4"] for camera in CAMERAS if f"{camera}.mp4" in prints}
    recorded = dict(recording) if recording else {"datasets": {}, "device_id": None, "device_clock_ns": None}
    pictures = {name: each.encoded_pictures for name, each in prints.items() if each.encoded_pictures}
    return Fingerprint(
        **{**recorded, "rows": {**recorded.get("rows", {}), **pictures}},
        files={name: each.sha256 for name, each in prints.items()},
        blank=tuple(name for name, each in prints.items() if each.blank),
        key_frames={camera: each.key_frames for camera, each in by_camera.items() if each.key_frames},
        sound=_sound_taken(by_camera, clock) if by_camera and clock else None,
        unreadable={name: each.unreadable for name, each in prints.items() if each.unreadable},
    )


def _sound_taken(by_camera: Mapping[str, FilePrint], clock: FrameClock) -> SoundBits:
    """Return what is heard in the track that ``index`` takes of an episode with these frames."""
    tracks = ((camera, each.heard) for camera, each in by_camera.items() if each.heard)
    chosen = fullest(tracks, length_s=clock.length_s, seconds_of=clock.seconds_of)
    taken = by_camera[chosen.camera].sound if chosen else None
    if chosen is None or taken is None:
        return abstaining(
            why_no_sound({name: each.refused for name, each in by_camera.items() if each.refused})
        )
    if taken.abstains is None:
        return taken
    return taken.model_copy(update={"abstains": f"{chosen.camera}.mp4: {taken.abstains}"})
