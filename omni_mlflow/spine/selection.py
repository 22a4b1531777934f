"""Which episodes of a data root are complete, and why each other one is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omni_mlflow.spine.clock import clock_array
from omni_mlflow.spine.episodes import ANNOTATION, EpisodeFile, UnreadableEpisodeError, open_episode
from omni_mlflow.spine.listing import EPISODE_FILES, NOT_AN_EPISODE_FOLDER, episode_number
from omni_mlflow.spine.lost_frames import lost_frames
from omni_mlflow.spine.recording import doubts_of
from omni_mlflow.spine.sound_choice import why_no_sound
from omni_mlflow.spine.soundtrack import fullest_sound
from omni_mlflow.spine.trial_reading import read_as_later_stages_do
from omni_mlflow.spine.types import CAMERAS, Episode, Skip
from omni_mlflow.spine.video import UnreadableVideoError, count_frames, probe_video


class DataRootError(Exception):
    """There is nothing to select from."""


class IncompleteError(Exception):
    """Why an episode is left out."""


def list_episode_folders(root: Path) -> list[Path]:
    """Return every folder of an episode under ``root``, sorted by session, then by episode number.

    That is each ``<session>/ep<number>``, whatever it is, and each other ``<session>/<name>`` that holds an
    annotation. The folder of a session that cannot be listed stands for the episodes in it.

    Raises:
        DataRootError: ``root`` is no folder, or there is no such folder in it.
    """
    if not root.is_dir():
        raise DataRootError(
            f"There is no data root at {root}. It is the folder that holds one folder per session, each with "
            "ep1, ep2, ... in it. Give it with --data-root, or write a synthetic set there first with "
            f"'omni-mlflow synthesize --out {root}'."
        )
    sessions = [folder for folder in root.iterdir() if folder.is_dir()]
    found = [each for session in sessions for each in _episodes_in(session)]
    if not found:
        one_level_off = (root / ANNOTATION).is_file() or any(
            (each / ANNOTATION).is_file() for each in sessions
        )
        hint = " Its episodes lie one level too high: move them to <session>/ep1." if one_level_off else ""
        raise DataRootError(f"There is no episode under {root}: no folder <session>/ep<number>.{hint}")
    return sorted(found, key=lambda each: (each.parent.name, episode_number(each.name) or 0, each.name))


def _episodes_in(session: Path) -> list[Path]:
    try:
        return [each for each in session.iterdir() if _is_episode(each)]
    except OSError:
        return [session]


def _is_episode(path: Path) -> bool:
    return episode_number(path.name) is not None or (path / ANNOTATION).is_file()


def state_of_files(root: Path) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change in nanoseconds of every file that a scan would read, sorted."""
    found = []
    for path in (folder / name for folder in list_episode_folders(root) for name in EPISODE_FILES):
        with suppress(OSError):
            stat = path.stat()
            found.append((ascii(path.relative_to(root).as_posix()), stat.st_size, stat.st_mtime_ns))
    return found


def scan_data_root(
    root: Path,
    *,
    wanted: Mapping[str, Mapping[str, int]] | None = None,
    on_episode: Callable[[str], None] | None = None,
) -> tuple[list[Episode], list[Skip]]:
    """Return the complete episodes under ``root``, sorted, and a reason for each other one.

    Complete means: an annotation that labels an action somewhere, whose device clock is credible where it
    has one, and of which all that later stages read can be read; and six videos that can be decoded and hold
    nearly all of its frames. ``digest`` is not computed: that would read every byte.

    Args:
        wanted: bytes that are known of each episode to take, see :func:`wanted_bytes`, by id; None takes all.
            Those that are not there get a reason, too.
        on_episode: called with each episode's id after it was looked at.

    Raises:
        DataRootError: there is nothing to select from.
    """
    episodes: list[Episode] = []
    skips: list[Skip] = []
    absent = dict(wanted or {})
    for folder in list_episode_folders(root):
        episode_id = episode_id_of(folder, root)
        known = absent.pop(episode_id, None)
        try:
            _check_wanted(known, wanted)
            episodes.append(_complete_episode(folder, episode_id, root, known or {}))
        except (IncompleteError, UnreadableEpisodeError, UnreadableVideoError, OSError) as problem:
            reason = _readable(str(problem)).replace(f"{root}/", "")
            skips.append(Skip(subject=episode_id, stage="select", reason=reason))
        if on_episode:
            on_episode(episode_id)
    skips += [Skip(subject=episode_id, stage="select", reason=NOT_THERE) for episode_id in absent]
    return episodes, skips


NOT_THERE = "the selection names it, but it is not under the data root: download it"


def episode_id_of(folder: Path, root: Path) -> str:
    """``<session>__<folder>``; the session alone where its folder cannot be listed."""
    return _readable(folder.name if folder.parent == root else f"{folder.parent.name}__{folder.name}")


def _readable(name: str) -> str:
    """A file name may hold bytes that are no UTF-8; no JSON file can."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _check_wanted(known: Mapping[str, int] | None, wanted: object) -> None:
    if wanted is not None and known is None:
        raise IncompleteError("not needed: the selection does not name it")


def _complete_episode(folder: Path, episode_id: str, root: Path, known: Mapping[str, int]) -> Episode:
    if folder.parent == root:
        raise IncompleteError("the folder of this session cannot be listed; check its permissions")
    if _readable(str(folder)) != str(folder):
        raise IncompleteError("the name of its folder is not UTF-8; rename it")
    if episode_number(folder.name) is None:
        raise IncompleteError(NOT_AN_EPISODE_FOLDER)
    if not folder.is_dir():
        raise IncompleteError("it is no folder")
    if absent := [name for name in EPISODE_FILES if not (folder / name).is_file()]:
        raise IncompleteError(f"missing {', '.join(absent)}")
    stats = {name: (folder / name).stat() for name in EPISODE_FILES}  # before anything is read
    sizes = {name: stat.st_size for name, stat in stats.items()}
    _check_sizes(sizes, known)
    listed = {camera: probe_video(folder / f"{camera}.mp4") for camera in CAMERAS}
    with open_episode(folder) as source:
        cameras = _camera_coverage(folder, listed, source.num_frames)
        listened = fullest_sound(source.video_files(), length_s=source.length_s, seconds_of=source.seconds_of)
        sound = listened.share(source.length_s)
        read = read_annotation(source)
    return Episode(
        episode_id=episode_id,
        session_id=folder.parent.name,
        path=folder.relative_to(root).as_posix(),
        bytes_by_file=sizes,
        changed_ns_by_file={name: stat.st_mtime_ns for name, stat in stats.items()},
        **{
            **read,
            "missing_modalities": {**read["missing_modalities"], **_missing_sound(sound, listened.refused)},
            "coverage": {**cameras, "audio": sound, **read["coverage"]},
        },
    )


MIN_CAMERA_SHARE = 0.9
"""The share of its frames that the file of every camera of a complete episode holds; real ones hold all."""


def _camera_coverage(folder: Path, listed: Mapping[str, int], num_frames: int) -> dict[str, float]:
    """Return the share of the frames that each camera's file holds.

    Args:
        listed: how many pictures each file says that it holds; one that says too little is counted.

    Raises:
        IncompleteError: a file holds less than :data:`MIN_CAMERA_SHARE`.
    """
    held = {
        camera: count if count >= num_frames else count_frames(folder / f"{camera}.mp4")
        for camera, count in listed.items()
    }
    short = {camera: count for camera, count in held.items() if count < MIN_CAMERA_SHARE * num_frames}
    if short:
        told = (f"{camera}.mp4 holds {count} of {num_frames} frames" for camera, count in short.items())
        raise IncompleteError("; ".join(told))
    return {camera: min(1.0, count / num_frames) for camera, count in held.items()}


def read_annotation(source: EpisodeFile) -> dict[str, Any]:
    """Read what the manifest says of an open episode, and once all that later stages read of its annotation.

    Returns:
        Fields of :class:`Episode`; the missing modalities are those of the annotation alone.

    Raises:
        IncompleteError: it labels no action, or its clock identifies no moment.
        UnreadableEpisodeError: something cannot be read.
    """
    _check_labels(source)
    _check_identity(source)
    read_as_later_stages_do(source)
    return {
        "num_frames": source.num_frames,
        "fps": source.fps,
        "main_task": source.main_task,
        "device_id": source.device_id,
        "device_clock_ns": source.device_clock_ns,
        "missing_modalities": source.missing(),
        "coverage": source.coverage(),
        "coverage_sampled": source.sampled(),
        "lost_frames": lost_frames(source),
        "synthetic": source.synthetic,
    }


ANNOTATION_BYTES = "annotation_bytes"
TRAINING_BYTES = "training_bytes_excluding_visualization_rrd"


def wanted_bytes(row: Mapping[str, str]) -> dict[str, int]:
    """What a row of a selection says about sizes: bytes of the annotation, and of it and the six videos."""
    return {key: int(row[key]) for key in (ANNOTATION_BYTES, TRAINING_BYTES) if row.get(key, "").isdigit()}


def _check_sizes(sizes: Mapping[str, int], known: Mapping[str, int]) -> None:
    """A download that stopped early is found here, and not after hours of reading."""
    found = {ANNOTATION_BYTES: sizes[ANNOTATION], TRAINING_BYTES: sum(sizes.values())}
    for key, size in known.items():
        if found[key] != size:
            raise IncompleteError(
                f"{key} {found[key]} differs from {size} in the selection; download it again"
            )


def _missing_sound(share: float, refused: Mapping[str, str]) -> dict[str, str]:
    """An episode without sound is complete, but its manifest row says so."""
    return {} if share else {"audio": why_no_sound(refused)}


def _check_identity(source: EpisodeFile) -> None:
    """One damaged stamp must not stop the whole run: ``guard`` refuses what it cannot tell apart."""
    if doubts := doubts_of(source):
        arrays = {"device clock": clock_array(source.annotation), "frame names": "slam/frame_names"}
        told = ", ".join(f"{what} in {arrays[what]} ({doubt})" for what, doubt in doubts.items())
        raise IncompleteError(f"unknown {told}: it could not be told apart from the other splits")


def _check_labels(source: EpisodeFile) -> None:
    captions = source.captions()
    if captions is None:
        raise IncompleteError("no caption that can be read: nothing to train or to score on")
    if not any(captions.action):
        raise IncompleteError("the caption labels no action at any frame: nothing to train or to score on")
