"""Which episodes of a data root are complete, and why each other one is left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from omni_mlflow.spine.audio import audio_seconds
from omni_mlflow.spine.episodes import ANNOTATION, EpisodeFile, UnreadableEpisodeError, open_episode
from omni_mlflow.spine.types import CAMERAS, Episode, Skip
from omni_mlflow.spine.video import UnreadableVideoError, probe_video

EPISODE_FILES = (ANNOTATION, *(f"{camera}.mp4" for camera in CAMERAS))
"""What makes an episode complete. The viewer's recording beside them is not read."""

_EPISODE_FOLDER = re.compile(r"ep(\d+)")


class DataRootError(Exception):
    """There is nothing to select from."""


class _IncompleteError(Exception):
    """Why an episode is left out."""


def list_episode_folders(root: Path) -> list[Path]:
    """Return every folder of an episode under ``root``, sorted by session, then by episode number.

    That is each ``<session>/ep<number>``, and each other ``<session>/<name>`` that holds an annotation.

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
    folders = [folder for session in sessions for folder in session.iterdir() if folder.is_dir()]
    found = [each for each in folders if _number(each) is not None or (each / ANNOTATION).is_file()]
    if not found:
        one_level_off = (root / ANNOTATION).is_file() or any(
            (each / ANNOTATION).is_file() for each in sessions
        )
        hint = " Its episodes lie one level too high: move them to <session>/ep1." if one_level_off else ""
        raise DataRootError(f"There is no episode under {root}: no folder <session>/ep<number>.{hint}")
    return sorted(found, key=lambda each: (each.parent.name, _number(each) or 0, each.name))


def _number(folder: Path) -> int | None:
    match = _EPISODE_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else None


def scan_data_root(
    root: Path, *, on_episode: Callable[[str], None] | None = None
) -> tuple[list[Episode], list[Skip]]:
    """Return the complete episodes under ``root``, sorted, and a reason for each other one.

    Complete means: an annotation that can be read and labels an action somewhere, and six videos that can be
    decoded. ``digest`` is not computed here: that would read every byte.

    Args:
        on_episode: called with each episode's id after it was looked at.

    Raises:
        DataRootError: there is nothing to select from.
    """
    episodes: list[Episode] = []
    skips: list[Skip] = []
    for folder in list_episode_folders(root):
        episode_id = f"{folder.parent.name}__{folder.name}"
        try:
            episodes.append(_complete_episode(folder, episode_id, root))
        except (_IncompleteError, UnreadableEpisodeError, UnreadableVideoError) as problem:
            reason = str(problem).replace(f"{root}/", "")
            skips.append(Skip(subject=episode_id, stage="select", reason=reason))
        if on_episode:
            on_episode(episode_id)
    return episodes, skips


def _complete_episode(folder: Path, episode_id: str, root: Path) -> Episode:
    if _number(folder) is None:
        raise _IncompleteError("the folder of an episode is called ep<number>")
    if absent := [name for name in EPISODE_FILES if not (folder / name).is_file()]:
        raise _IncompleteError(f"missing {', '.join(absent)}")
    for camera in CAMERAS:
        probe_video(folder / f"{camera}.mp4")
    with open_episode(folder) as source:
        _check_labels(source)
        return Episode(
            episode_id=episode_id,
            session_id=folder.parent.name,
            path=folder.relative_to(root).as_posix(),
            num_frames=source.num_frames,
            fps=source.fps,
            bytes_by_file={name: (folder / name).stat().st_size for name in EPISODE_FILES},
            main_task=source.main_task,
            device_id=source.device_id,
            device_clock_ns=source.device_clock_ns,
            missing_modalities={**source.missing(), **_missing_sound(folder)},
            coverage=source.coverage(),
            synthetic=source.synthetic,
        )


def _missing_sound(folder: Path) -> dict[str, str]:
    """An episode without sound is complete, but its manifest row says so."""
    heard = any(audio_seconds(folder / f"{camera}.mp4") > 0 for camera in CAMERAS)
    return {} if heard else {"audio": "no video has a sound track"}


def _check_labels(source: EpisodeFile) -> None:
    captions = source.captions()
    if captions is None:
        raise _IncompleteError("no caption that can be read: nothing to train or to score on")
    if not any(captions.action):
        raise _IncompleteError("the caption labels no action at any frame: nothing to train or to score on")
