"""A workspace that was copied, and a run with which both copies went on: the store shows one of them.

Both journals bear the run's key, and each writes the same steps at times of its own. The run belongs to the
copy whose process entered it first in the store; it is free again once that process died or failed, or once a
person says that the other copy is gone, so that a workspace that was brought back from a backup can go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omni_mlflow.events import RunOutcome
from omni_mlflow.spine.processes import Process, is_alive
from omni_mlflow.tracking.outer_runs import OUTCOME_TAG
from omni_mlflow.tracking.signs_of_life import process_of

if TYPE_CHECKING:
    from omni_mlflow.tracking.follow import RunJournal
    from omni_mlflow.tracking.stored_run import StoredRun


def stranger_in(stored: StoredRun, journal: RunJournal) -> Process | None:
    """Return the process that entered the stored run last, where the journal does not know how it ended."""
    process = process_of(stored.tags)
    if process is None or process == journal.process:
        return None
    return process if process not in journal.processes or process in journal.unended else None


def keeps_it(stranger: Process, stored: StoredRun, journal: RunJournal) -> bool:
    """Tell whether a stranger finished the run, or may still be at work on it.

    One that the journal knows is taken for dead unless it can be seen: on another machine it is more likely
    the one that a scheduler lost than the one at work in a copy.
    """
    if stored.status == "RUNNING":
        alive = is_alive(stranger)
        return alive is True or (alive is None and stranger not in journal.unended)
    return stored.tags.get(OUTCOME_TAG) == RunOutcome.OK


def told_copied(stranger: Process, stored: StoredRun, journal: RunJournal) -> str:
    did = "is at work on" if stored.status == "RUNNING" else "finished"
    if is_alive(stranger) and stored.status == "RUNNING":
        gone = f"Where there is no such copy, stop process {stranger.pid} and run: omni-mlflow sync"
    else:
        gone = f"Where that copy is gone: omni-mlflow heal --end {stored.run_id}, then omni-mlflow sync"
    return (
        f"{journal.name} ({journal.path}) is not shown: process {stranger.pid} on {stranger.host} {did} its "
        f"run {stored.run_id} in another copy of this workspace, and a run shows one of them. Go on in that "
        "copy; to see what this one made as well, sync it to a store of its own: "
        f"MLFLOW_TRACKING_URI=... omni-mlflow sync. {gone}"
    )
