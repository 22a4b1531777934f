"""How far each journal is projected to each store: a hint beside the journal that saves work.

Projection is idempotent, so a lost watermark costs time and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omni_mlflow.spine.rows import write_text
from omni_mlflow.spine.types import Row


class Watermark(Row):
    """The projected part of one journal in one store.

    Attributes:
        store_id: identity of the store's content; a store that was deleted and made anew has another.
        key: the run's key: a journal of another run at the same place is not this one.
        ended: the run was over when the last projected row was written.
        size, rows: projected bytes and rows from the start of the journal.
    """

    store_id: str
    key: str
    run_id: str
    experiment_id: str
    ended: bool
    size: int
    rows: int


def read_watermark(journal: Path, *, store: str) -> Watermark | None:
    """Return what is known for ``store`` (an address without password); None when nothing usable is."""
    try:
        mark = Watermark.model_validate(_marks(journal).get(store))
        return mark if mark.size <= journal.stat().st_size else None
    except (ValidationError, OSError):
        return None


def write_watermark(journal: Path, mark: Watermark, *, store: str) -> None:
    marks = {**_marks(journal), store: mark.model_dump(mode="json")}
    write_text(_path(journal), json.dumps(marks, indent=1, sort_keys=True) + "\n")


def _marks(journal: Path) -> dict[str, Any]:
    try:
        marks = json.loads(_path(journal).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marks if isinstance(marks, dict) else {}


def _path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.projected.json")
