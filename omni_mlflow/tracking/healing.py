"""Runs whose process died without a word are ended as KILLED in their journal.

After ``kill -9``, power loss or an out-of-memory kill nobody is left to end a run; it would be shown as
running for ever. Runs whose journal is out of reach are ended in the store, see ``store_healing``.
"""

from __future__ import annotations

import time
from pathlib import Path

from omni_mlflow.events import (
    Ended,
    Metrics,
    RunOutcome,
    Started,
    copies_of,
    key_in,
    read_events,
    run_journals,
    torn_tags,
)
from omni_mlflow.journal import Journal
from omni_mlflow.locks import JournalBusyError
from omni_mlflow.record import reserve_of
from omni_mlflow.spine.processes import Process, is_alive
from omni_mlflow.spine.rows import BadRowError, NewerSchemaError
from omni_mlflow.tracking.reports import HealedRun

SILENT_S = 24 * 3600
"""A run of another machine that wrote nothing for so long counts as dead: nobody here can look."""


def heal_journals(workspace: Path) -> list[HealedRun]:
    """End every run of the workspace whose process is gone and whose journal nobody holds."""
    healed = []
    keys = {path: _key(path) for path in run_journals(workspace)}
    copies = copies_of(keys)
    for path in keys.keys() - copies.keys():
        try:
            started = _unended(path)
            if started is not None and _is_dead(started.process, path):
                healed += _end(path)
        except (JournalBusyError, BadRowError, NewerSchemaError, OSError):
            continue  # alive after all, or unreadable: the projection reports that by name
    return healed


def _key(path: Path) -> str | None:
    try:
        return key_in(path)
    except (BadRowError, NewerSchemaError, OSError):
        return None


def _unended(path: Path) -> Started | None:
    marks = [event for event in read_events(path) if isinstance(event, Started | Ended)]
    return marks[-1] if marks and isinstance(marks[-1], Started) else None


def _is_dead(process: Process, journal: Path) -> bool:
    alive = is_alive(process)
    if alive is None:
        return time.time() - journal.stat().st_mtime > SILENT_S
    return not alive


def _end(path: Path) -> list[HealedRun]:
    reserve_of(path).unlink(missing_ok=True)  # on a full disk it is the room for what comes now
    with Journal(path) as journal:
        started = _unended(path)
        if started is None:
            return []
        process = started.process
        reason = (
            f"process {process.pid} on {process.host} died without ending this run "
            "(kill -9, out of memory or power loss); what it had finished is kept, run it again to go on"
        )
        torn = journal.quarantined
        reason = f"{reason}; {torn}" if torn else reason
        dated = (each for each in read_events(path) if isinstance(each, Started | Metrics | Ended))
        last_sign_ms = max(each.at_ms for each in dated)  # not the file's time: a copy's is younger
        ended = Ended(at_ms=last_sign_ms, status="KILLED", outcome=RunOutcome.KILLED, reason=reason)
        if torn:
            journal.append(torn_tags(torn).model_dump(mode="json"))
        journal.append(ended.model_dump(mode="json"))
    return [HealedRun(name=started.name, key=started.key, run_id=started.mlflow_run_id, reason=reason)]
