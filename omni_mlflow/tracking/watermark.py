"""How far each run is projected to a store: a hint in the workspace that saves work.

Projection is idempotent, so a lost watermark costs time and nothing else, unless somebody renamed the
experiment: only the watermarks know which one it was. One that tells of a journal with other rows is not
used. They lie apart from the stage folders, which move. The run in the store bears the same hint as a tag:
where the two differ, workspace or store was brought back from a backup.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import write_text
from omni_mlflow.spine.types import Row

PROJECTED_TAG = "omni.projected"
_TAIL_BYTES = 4096


class Watermark(Row):
    """The projected part of one journal in one store.

    Attributes:
        store_id: identity of the store's content; a store that was deleted and made anew has another.
        key: the run's key.
        ended: the run was over when the last projected row was written.
        size, rows: projected bytes and rows from the start of the journal.
        tail: sha256 of the last projected bytes. Rows hold their time, so a journal that was cut and written
            on has others at this place.
        compared: the run may hold points that the journal has lost, so what it holds is asked for.
    """

    store_id: str
    key: str
    run_id: str
    experiment_id: str
    ended: bool
    size: int
    rows: int
    tail: str
    compared: bool

    @property
    def told(self) -> str:
        """What the run's tag says once the store has these rows."""
        return f"{self.rows} rows, {self.tail[:16]}"

    def fits(self, journal: Path) -> bool:
        """Tell whether ``journal`` still holds the rows that were projected."""
        return tail_of(journal, self.size) == self.tail


def rows_told(tag: str) -> int:
    """Return how many rows the tag of a run tells of; 0 for a tag that is none of ours."""
    number = tag.partition(" ")[0]
    return int(number) if number.isdecimal() else 0


def tail_of(journal: Path, size: int) -> str:
    """Return the sha256 of the last 4 KiB of the first ``size`` bytes of a journal."""
    start = max(0, size - _TAIL_BYTES)
    with journal.open("rb") as rows:
        rows.seek(start)
        return hashlib.sha256(rows.read(size - start)).hexdigest()


class Watermarks:
    """The watermarks of a workspace for one store."""

    def __init__(self, workspace: Path, *, store: str) -> None:
        """``store`` is an address without password."""
        self._folder = workspace / ".projected"
        self._store = store

    def read(self, key: str) -> Watermark | None:
        """Return what is known of the run ``key``; None when nothing usable is."""
        try:
            return Watermark.model_validate(self._of_all_stores(key).get(self._store))
        except ValidationError:
            return None

    def store_ids(self) -> list[str]:
        """Return the identities of the store's content that runs were projected to, most runs first."""
        marks = [self.read(path.stem) for path in sorted(self._folder.glob("*.json"))]
        return [each for each, _ in Counter(mark.store_id for mark in marks if mark).most_common()]

    def write(self, mark: Watermark) -> None:
        self._write(mark.key, {**self._of_all_stores(mark.key), self._store: mark.model_dump(mode="json")})

    def remove(self, key: str) -> None:
        marks = self._of_all_stores(key)
        if marks.pop(self._store, None) is not None:
            self._write(key, marks)

    def _write(self, key: str, marks: dict[str, Any]) -> None:
        write_text(self._path(key), json.dumps(marks, indent=1, sort_keys=True) + "\n")

    def _of_all_stores(self, key: str) -> dict[str, Any]:
        try:
            marks = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return marks if isinstance(marks, dict) else {}

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
