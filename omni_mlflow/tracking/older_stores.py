"""A store that is an older copy of itself, restored from a backup: it lacks what watermarks say it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from omni_mlflow.events import Ended, RunOutcome, parse_event
from omni_mlflow.journal import last_row
from omni_mlflow.tracking.connection import Store
from omni_mlflow.tracking.follow import RunJournal
from omni_mlflow.tracking.outer_runs import OUTCOME_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_RUNS_AT_ONCE = 1000


def behind(store: Store, journals: Iterable[RunJournal]) -> list[RunJournal]:
    """Return the journals whose run the store lacks, or still shows as it was before its journal ended.

    A run that somebody deleted in the tracker is there; it stays deleted.
    """
    marked = [each for each in journals if each.mark is not None and each.mark.store_id == store.id]
    runs = _runs(store, {each.mark.experiment_id for each in marked if each.mark is not None})
    return [each for each in marked if _is_behind(each, runs.get(each.mark.run_id if each.mark else ""))]


def _is_behind(journal: RunJournal, run: Run | None) -> bool:
    if run is None:
        return True
    row = last_row(journal.path)
    ended = parse_event(row) if row is not None else None
    if not isinstance(ended, Ended) or run.info.lifecycle_stage == "deleted":
        return False
    told = run.data.tags.get(OUTCOME_TAG)
    if ended.outcome is RunOutcome.KILLED and told not in (None, RunOutcome.KILLED):
        return False  # it went on in another copy of the workspace
    return bool(run.info.status != ended.status or (run.info.end_time or 0) < ended.at_ms)


def _runs(store: Store, experiments: Collection[str]) -> dict[str, Run]:
    from mlflow.entities import ViewType

    found: dict[str, Run] = {}
    token = None
    while experiments:
        page = store.client.search_runs(
            sorted(experiments), run_view_type=ViewType.ALL, max_results=_RUNS_AT_ONCE, page_token=token
        )
        found |= {run.info.run_id: run for run in page}
        token = page.token
        if not token:
            break
    return found
