"""Whether the run that ``MLFLOW_RUN_ID`` names was made by ``mlflow run`` for the stage that entered it.

The variable may be left over from another stage, another workspace or another day; a stage that wrote to such
a run would mix two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from omni_mlflow.tracking.follow import RunJournal

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY_TAG = "omni.run_key"
CONTINUED_TAG = "omni.continued_in"
PARENT_TAG = "mlflow.parentRunId"
UPSTREAM_TAG = "omni.upstream."
OUTCOME_TAG = "omni.outcome"

_NOT_THERE = "is not in this store"


def trouble_with_outer_run(run: Run | None, journal: RunJournal, outer: str) -> str | None:
    """Return why the run cannot be the one of ``journal``; None when it is.

    Args:
        run: what the store knows by the id; None for nothing.
        outer: the id, as the journal names it.
    """
    if run is None:
        return _NOT_THERE
    tags = run.data.tags
    entered_ms = journal.outer_run_ids[outer]
    stage = journal.name.partition(" ")[0]
    entry = tags.get("mlflow.project.entryPoint")
    if KEY_TAG in tags:
        return None if tags[KEY_TAG] == journal.key else "belongs to another stage or workspace"
    if CONTINUED_TAG in tags:
        return f"was continued in run {tags[CONTINUED_TAG]}"
    if tags.get("mlflow.source.type") != "PROJECT" or entry is None:
        return "was not made by mlflow run"
    if entry != stage:
        return f"was made for the entry point {entry!r}"
    # A run that ended unentered holds nothing yet; any other one was over when this stage began.
    if run.info.status != "RUNNING" and (run.info.end_time or 0) < entered_ms and not _was_given_up(tags):
        return f"was {run.info.status} already when the stage began"
    return None


def _was_given_up(tags: Mapping[str, str]) -> bool:
    """Tell whether we ended the run because no stage had entered it, as a slow environment makes it look."""
    return tags.get(OUTCOME_TAG) == "killed"


def told_refused(run_id: str, journal: RunJournal, why: str) -> str:
    """Say that a run was refused for ``why``, as :func:`trouble_with_outer_run` words it."""
    told = f"MLFLOW_RUN_ID={run_id}, given to {journal.name} ({journal.path}), {why}"
    if why == _NOT_THERE:
        return (
            f"{told}: the stage has a run of its own. Where the store was put back to before mlflow run made "
            "that run, nothing is left to do; where it was made in another store, unset MLFLOW_RUN_ID"
        )
    return (
        f"{told}: it is left as it is, and the stage has a run of its own; unset MLFLOW_RUN_ID, or start the "
        "stage with: mlflow run"
    )
