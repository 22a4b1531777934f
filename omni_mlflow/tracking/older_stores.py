"""A store that is an older copy of itself, restored from a backup: it lacks what watermarks say it has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from omni_mlflow.events import Ended, Metrics, RunOutcome, Started, parse_event, read_events
from omni_mlflow.journal import last_row
from omni_mlflow.tracking.connection import Store, run_if_there
from omni_mlflow.tracking.follow import RunJournal
from omni_mlflow.tracking.outer_runs import KEY_TAG, OUTCOME_TAG, PARENT_TAG, UPSTREAM_TAG
from omni_mlflow.tracking.signs_of_life import last_sign_s, process_of
from omni_mlflow.tracking.watermark import PROJECTED_TAG, Watermark, rows_told

if TYPE_CHECKING:
    from mlflow.entities import Run

_RUNS_AT_ONCE = 1000
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_UPSTREAM_STAGE = re.compile(re.escape(UPSTREAM_TAG) + "[a-z]+")


def look_at(
    store: Store, journals: Iterable[RunJournal]
) -> tuple[list[RunJournal], list[tuple[RunJournal, Run]]]:
    """Ask the store for the run of every journal that was projected to it.

    Returns:
        The journals whose run the store lacks, or shows below or after runs that it lacks, or as it was
        before its journal ended or with fewer rows than were projected, and no other copy of the workspace
        went on with it since; and those whose run somebody deleted in the tracker, with that run: it is
        there, and it stays deleted.
    """
    marked = [(each, each.mark) for each in journals if each.mark and each.mark.store_id == store.id]
    runs = _runs(store, {mark.experiment_id for _, mark in marked})
    found = [(each, mark, runs.get(mark.run_id)) for each, mark in marked]
    deleted = [(each, run) for each, _, run in found if run and run.info.lifecycle_stage == "deleted"]
    elsewhere = {each for run in runs.values() for each in _named(run)} - runs.keys()
    lost = frozenset(each for each in elsewhere if run_if_there(store.client, each) is None)
    return [each for each, mark, run in found if _is_behind(each, mark, run, lost=lost)], deleted


def _named(run: Run) -> Iterator[str]:
    """The runs that a run of ours names: the one that it is shown below, and those that it stands on.

    Not the runs that a comparison compared: no journal could name others in their place.
    """
    tags = run.data.tags
    if KEY_TAG in tags:
        names = [tag for tag in tags if tag == PARENT_TAG or _UPSTREAM_STAGE.fullmatch(tag)]
        yield from (tags[name] for name in names if _RUN_ID.fullmatch(tags[name]))


def _is_behind(journal: RunJournal, mark: Watermark, run: Run | None, *, lost: frozenset[str]) -> bool:
    if run is None:
        return True
    if run.info.lifecycle_stage == "deleted":
        return False
    if not lost.isdisjoint(_named(run)):
        return True
    return _shows_less(journal, mark, run) and not _went_on_in_a_copy(journal, run)


def _went_on_in_a_copy(journal: RunJournal, run: Run) -> bool:
    """Whether a process entered the run that the journal does not know, and was there after its last row."""
    process = process_of(run.data.tags)
    dated = [each for each in read_events(journal.path) if isinstance(each, Started | Metrics | Ended)]
    if process is None or any(isinstance(each, Started) and each.process == process for each in dated):
        return False
    last_seen_s = last_sign_s(run.data.tags, start_ms=run.info.start_time)
    return max(run.info.end_time or 0, 1000 * last_seen_s) > max(each.at_ms for each in dated)


def _shows_less(journal: RunJournal, mark: Watermark, run: Run) -> bool:
    told = run.data.tags.get(PROJECTED_TAG, "")
    if told != mark.told and rows_told(told) <= mark.rows:
        return True
    row = last_row(journal.path)
    ended = parse_event(row) if row is not None else None
    if not isinstance(ended, Ended):
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
