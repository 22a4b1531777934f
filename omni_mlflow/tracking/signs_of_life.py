"""What a RUNNING run of the store tells about its process, so that its death shows without the workspace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from omni_mlflow.spine.processes import Process, is_alive

if TYPE_CHECKING:
    from omni_mlflow.tracking.follow import RunJournal
    from omni_mlflow.tracking.stored_run import StoredRun
    from omni_mlflow.tracking.values import RunWriter

PROCESS_TAG = "omni.process"
HEARTBEAT_TAG = "omni.heartbeat"
BEAT_EVERY_S = 30.0


class Heartbeats:
    """Says of each run whose process lives that it does, every 30 s of this process."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._last_s: dict[str, float] = {}

    def is_due(self, journal: RunJournal, *, now_s: float) -> bool:
        """Tell whether the process of a run lives and was not reported for a while."""
        late = now_s - self._last_s.get(journal.key, -math.inf) >= BEAT_EVERY_S
        return late and not journal.ended and journal.process is not None and bool(is_alive(journal.process))

    def beat(self, stored: StoredRun, journal: RunJournal, *, now_s: float) -> None:
        """Report it; a run that another machine took for dead meanwhile is RUNNING again."""
        self._writer.show_alive(stored, {HEARTBEAT_TAG: datetime.now(UTC).isoformat(timespec="seconds")})
        self._last_s[journal.key] = now_s


def process_of(tags: Mapping[str, str]) -> Process | None:
    """Return the process that a stored run names; None when it names none."""
    try:
        return Process.model_validate_json(tags.get(PROCESS_TAG, ""))
    except ValidationError:
        return None


def last_sign_s(tags: Mapping[str, str], *, start_ms: int) -> float:
    """Return when a run was last seen alive by the clock of its machine, in seconds since 1970."""
    try:
        return datetime.fromisoformat(tags[HEARTBEAT_TAG]).timestamp()
    except (KeyError, ValueError):
        return start_ms / 1000
