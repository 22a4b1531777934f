"""Files that a person hands over: a selection, or a split that was made elsewhere."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from omni_mlflow.spine.rows import BadRowError, check_schema_version
from omni_mlflow.spine.strict_json import strict_json


@dataclass(frozen=True)
class GivenFile:
    """A file of the command line, read before any stage makes room: it may be what that stage made before."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """sha256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class NamedEpisode:
    """A row that names an episode.

    Attributes:
        place: file and row, for messages.
        episode_id: ``<session>__<folder>``, whichever way the row names it.
        values: the row's other values, as text.
    """

    place: str
    episode_id: str
    values: Mapping[str, str]

    @property
    def session_id(self) -> str:
        return self.episode_id.rpartition("__")[0]


def named_episodes(file: GivenFile) -> list[NamedEpisode]:
    """Read the rows of a CSV with a header, a JSONL, or a JSON document with a list ``episodes``.

    An episode is named by its path (``episode_path`` or ``path``: ``<session>/ep<number>``), else by its
    ``episode_id`` (``<session>__ep<number>``).

    Raises:
        BadRowError: a row names no episode, or the file holds none.
    """
    found = []
    for number, row in _rows(file):
        place = f"{file.name}, row {number}"
        values = {str(key): "" if value is None else str(value) for key, value in row.items()}
        path = values.get("episode_path") or values.get("path")
        episode_id = path.strip("/").replace("/", "__") if path else values.get("episode_id", "")
        if not episode_id.rpartition("__")[0]:
            raise BadRowError(
                f"{place}: it names no episode; give episode_path (<session>/ep<number>) or episode_id "
                "(<session>__ep<number>)"
            )
        found.append(NamedEpisode(place, episode_id, values))
    if not found:
        raise BadRowError(f"{file.name}: it names no episode")
    return found


def _rows(file: GivenFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = PurePath(file.name).suffix
    try:
        if kind == ".jsonl":
            rows = [strict_json(line) for line in file.text.split("\n") if line]
        elif kind == ".json":
            rows = _document_rows(file)
        else:
            rows = list(csv.DictReader(io.StringIO(file.text, newline="")))
    except (ValueError, TypeError, KeyError) as error:
        raise BadRowError(f"{file.name}: it cannot be read as {kind or 'CSV'}: {error!r}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadRowError(f"{file.name}, row {number}: not an object")
        yield number, row


def _document_rows(file: GivenFile) -> Any:
    document = strict_json(file.text)
    check_schema_version(document, file.name)
    return document["episodes"]
