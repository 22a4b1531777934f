"""Which episodes a list of files names, and which of them are complete: nothing is downloaded or opened.

A listing says path and size only. Whether an annotation can be read, how many frames it has and what it
labels is known after a download, to a scan of the data root.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from omni_mlflow.spine.episodes import ANNOTATION
from omni_mlflow.spine.rows import BadRowError, read_lines
from omni_mlflow.spine.types import CAMERAS, Skip

VIDEOS = tuple(f"{camera}.mp4" for camera in CAMERAS)
EPISODE_FILES = (ANNOTATION, *VIDEOS)
"""What makes an episode complete. The viewer's recording beside them is not read."""
VIEWER_FILE = "visualization.rrd"

_EPISODE_FOLDER = re.compile(r"ep(\d+)")
_SIZE_KEYS = ("bytes", "size")


class ListingError(Exception):
    """A listing names no episode at all."""


@dataclass(frozen=True)
class ListedEpisode:
    """One episode as a listing shows it.

    Attributes:
        bytes_by_file: size in bytes of every listed file of its folder, by name.
    """

    session: str
    name: str
    bytes_by_file: Mapping[str, int]

    @property
    def path(self) -> str:
        return f"{self.session}/{self.name}"

    @property
    def episode_id(self) -> str:
        return f"{self.session}__{self.name}"

    @property
    def number(self) -> int:
        found = episode_number(self.name)
        assert found is not None, "only folders called ep<number> are complete"
        return found

    @property
    def missing_files(self) -> list[str]:
        return [name for name in EPISODE_FILES if name not in self.bytes_by_file]

    @property
    def annotation_bytes(self) -> int:
        return self.bytes_by_file.get(ANNOTATION, 0)

    @property
    def video_bytes(self) -> int:
        return sum(self.bytes_by_file.get(name, 0) for name in VIDEOS)

    @property
    def training_bytes(self) -> int:
        """Annotation and videos: what a training reads, the viewer's recording left out."""
        return self.annotation_bytes + self.video_bytes

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_by_file.values())


def episode_number(name: str) -> int | None:
    """The number of an episode's folder, None where the folder is not called ``ep<number>``."""
    match = _EPISODE_FOLDER.fullmatch(name)
    return int(match[1]) if match else None


def read_listing(path: Path) -> list[ListedEpisode]:
    """Read a listing as a hub gives it and return its episodes, sorted by session, then by number.

    One row per file: its ``path``, which is ``<session>/<episode>/<file>`` for the files of an episode, and
    its ``bytes`` (or ``size``). CSV has a header; a file called ``*.jsonl`` holds one JSON object per line.
    Rows of folders (``"type": "directory"``) and files that belong to no episode are passed over.

    Raises:
        BadRowError: naming file and line of a row without path or size, or of a path that comes twice.
        ListingError: no row is a file of an episode.
    """
    folders: dict[tuple[str, str], dict[str, int]] = {}
    for line, file, size in _files(path):
        parts = file.split("/")
        if len(parts) != 3:
            continue
        session, name, file_name = parts
        folder = folders.setdefault((session, name), {})
        if file_name in folder:
            raise BadRowError(f"{path}:{line}: {file} is listed twice; one row per file")
        folder[file_name] = size
    episodes = [
        ListedEpisode(session, name, files)
        for (session, name), files in folders.items()
        if episode_number(name) is not None or ANNOTATION in files
    ]
    if not episodes:
        raise ListingError(
            f"{path} lists no episode: no path <session>/ep<number>/<file>, such as "
            f"kitchen/ep1/{ANNOTATION}. Paths start at the root of the data set"
        )
    return sorted(episodes, key=lambda each: (each.session, episode_number(each.name) or 0, each.name))


def check_listing(path: Path) -> None:
    """Raise ListingError when there is no such file."""
    if not path.is_file():
        raise ListingError(f"There is no listing at {path}; give a CSV or JSONL file of paths and bytes")


def complete_episodes(listed: Iterable[ListedEpisode]) -> tuple[list[ListedEpisode], list[Skip]]:
    """Return the episodes with an annotation and six videos, none empty, and a reason for each other one."""
    complete: list[ListedEpisode] = []
    skips: list[Skip] = []
    for episode in listed:
        if reason := _incomplete(episode):
            skips.append(Skip(subject=episode.episode_id, stage="select", reason=reason))
        else:
            complete.append(episode)
    return complete, skips


def _incomplete(episode: ListedEpisode) -> str | None:
    if episode_number(episode.name) is None:
        return NOT_AN_EPISODE_FOLDER
    if episode.missing_files:
        return f"missing {', '.join(episode.missing_files)}"
    if empty := [name for name in EPISODE_FILES if not episode.bytes_by_file[name]]:
        return f"empty {', '.join(empty)}"
    return None


NOT_AN_EPISODE_FOLDER = "the folder of an episode is called ep<number>"


def _files(path: Path) -> Iterator[tuple[int, str, int]]:
    """Yield line number, path and size of every listed file."""
    for line, row in _rows(path):
        if row.get("type") == "directory":
            continue
        file = row.get("path")
        size = next((row[key] for key in _SIZE_KEYS if row.get(key) not in (None, "")), None)
        if not isinstance(file, str) or not _is_inside(file):
            raise BadRowError(f"{path}:{line}: path {file!r} is no path below the root of the data set")
        try:
            found = int(size)  # type: ignore[arg-type]  # whatever it is, it is told below
        except (TypeError, ValueError):
            found = -1
        if found < 0:
            raise BadRowError(f"{path}:{line}: {file} has size {size!r}; bytes (or size) is a whole number")
        yield line, file, found


def _is_inside(path: str) -> bool:
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    check_listing(path)
    try:
        yield from _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)
    except UnicodeDecodeError as error:
        raise BadRowError(f"{path}: not UTF-8 at byte {error.start}; a listing is a text file") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(text)
        except ValueError as error:
            raise BadRowError(f"{path}:{line}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadRowError(f"{path}:{line}: not a JSON object")
        yield line, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv.reader(lines)
        header = next(islice(table, 1), [])
        if "path" not in header or not set(_SIZE_KEYS) & set(header):
            raise BadRowError(f"{path}:1: the header of a listing names path and bytes, not {header}")
        for row in table:
            yield table.line_num, dict(zip(header, row, strict=False))
