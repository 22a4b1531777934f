"""Find the MLflow run of a run key, or make it: the same one however often somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking.connection import Store, run_if_there
from omni_mlflow.tracking.copied_runs import keeps_it, stranger_in, told_copied
from omni_mlflow.tracking.follow import Follower, RunJournal
from omni_mlflow.tracking.outer_runs import (
    CONTINUED_TAG,
    KEY_TAG,
    PARENT_TAG,
    told_refused,
    trouble_with_outer_run,
)
from omni_mlflow.tracking.stored_run import StoredRun
from omni_mlflow.tracking.watermark import PROJECTED_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run


class StoredRuns:
    """The runs of one workspace in one store.

    Attributes:
        is_doubtful: a run was not what our watermark tells of, so others may not be, or name lost ones.
    """

    def __init__(self, store: Store, follower: Follower) -> None:
        self.is_doubtful = False
        self._store = store
        self._client = store.client
        self._follower = follower
        self._journals = follower.runs
        self._known: dict[str, StoredRun] = {}
        self._known_by: dict[str, str | None] = {}
        self._ids: dict[str, str | None] = {}
        self._deleted: dict[str, StoredRun] = {}
        self._copied: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    def forget(self, key: str) -> None:
        """Look the run up again next time: what we remember of it turned out to be wrong."""
        self._known.pop(key, None)
        self._ids.pop(key, None)

    def forget_all(self) -> None:
        """Look every run up again: a store that was away may come back as another one."""
        self._known.clear()
        self._ids.clear()

    def of(self, journal: RunJournal) -> StoredRun:
        """Return the run that this journal is projected to.

        That is the run that ``mlflow run`` made for the last process that entered it; else the one that
        carries its key; else a new one, below its parent when it has one. A deleted run is looked up every
        time, because it may be restored.
        """
        known = self._known.get(journal.key)
        outer = next(reversed(journal.outer_run_ids), None)
        if known is not None and self._known_by[journal.key] == outer:
            return known
        run = (self._made_for(journal, outer) if outer else None) or self._find(journal)
        if run is None:
            if journal.mark is not None:  # it was there and is gone for good: made anew, with all its rows
                self.is_doubtful = True
                self._follower.project_again(journal)
            run = self._create(journal)
        stored = StoredRun.read_from(run)
        if stored.deleted:
            self._deleted[journal.key] = stored
        else:
            self._deleted.pop(journal.key, None)
            self._known[journal.key] = stored
        self._known_by[journal.key] = outer
        self._ids[journal.key] = stored.run_id
        if journal.mark is not None and journal.mark.run_id != stored.run_id:
            self._follower.project_again(journal)
        if journal.mark is None and run.data.metrics:
            journal.compared = True  # nobody knows which rows its points are from
        self.hold_against_mark(stored, journal)
        if not stored.deleted:
            self._adopt(stored, journal, moved=outer == stored.run_id)
        return stored

    def withholds(self, journal: RunJournal) -> bool:
        """Tell whether new rows wait: the run was deleted, or belongs to another copy of the workspace."""
        known = self._known.get(journal.key)
        stored = self.of(journal)
        self._copied.pop(journal.key, None)
        if stored.deleted:
            return True
        if stored is known:  # the next rows bring a new watermark, which tells of no rows that are lost
            run = self._get(stored.run_id)
            if run is None:
                self.forget(journal.key)
            else:
                stored.take_over(run)
                self.hold_against_mark(stored, journal)
            stored = self.of(journal)  # read as a whole, where it was not what we knew
        if not journal.enters:
            return False
        stranger = stranger_in(stored, journal)
        if stranger is None:
            return False
        if keeps_it(stranger, stored, journal):
            self._copied[journal.key] = told_copied(stranger, stored, journal)
            return True
        journal.compared = True  # the run holds points of which the journal knows nothing
        return False

    def hold_against_mark(self, stored: StoredRun, journal: RunJournal) -> None:
        """See whether the run has the rows that our watermark tells of; where not, project all of them again.

        The workspace is from a backup, and the run holds points that its journal does not know, or the store
        is, and lacks points, or both are. Of the points, only those that the run lacks are sent.
        """
        mark, told = journal.mark, stored.tags.get(PROJECTED_TAG, "")
        if stored.deleted or mark is None or told == mark.told:
            return
        self.is_doubtful = True
        self.forget(journal.key)
        self._follower.project_again(journal)
        journal.compared = True

    def id_of(self, key: str) -> str | None:
        """Return the run id of a key; None when neither workspace nor store know it."""
        if key in self._journals:
            return self.of(self._journals[key]).run_id
        if self._ids.get(key) is None:
            found = self._search(key, [self._store.experiment_id])
            self._ids[key] = found[0].info.run_id if found else None
        return self._ids[key]

    def read_again(self, stored: StoredRun) -> None:
        """Learn what others made of a run's status and tags."""
        stored.take_over(self._client.get_run(stored.run_id))

    @property
    def num_unshown(self) -> int:
        return len(self._deleted) + len(self._copied)

    def note_deleted(self, journal: RunJournal, run: Run) -> None:
        """Tell of a run that nobody would look up, because all its rows were projected before."""
        self._deleted[journal.key] = StoredRun.read_from(run)

    def notes(self) -> list[str]:
        """Say which runs of MLFLOW_RUN_ID were refused, which others have or deleted, and what that means."""
        refused = [why for _, why in sorted([*self._refused.items(), *self._copied.items()])]
        if not self._deleted:
            return refused
        names = [
            f"{stored.tags.get('mlflow.runName', key[:12])} ({stored.run_id})"
            for key, stored in sorted(self._deleted.items(), key=lambda each: each[1].run_id)
        ]
        return [
            *refused,
            f"deleted in the tracking store, and left so: {', '.join(names)}. What such a run made still "
            "holds in the workspace, later stages read it there, and its new rows wait in its journal; to "
            "see it again: mlflow runs restore --run-id ID, then omni-mlflow sync",
        ]

    def place(self, stored: StoredRun, journal: RunJournal) -> None:
        """Put the run below its parent; a run resumed by another pipeline run moves there."""
        key = journal.home.parent if journal.home else None
        parent = self.id_of(key) if key is not None else None
        if parent is not None and stored.tags.get(PARENT_TAG) != parent:
            self.tag(stored, {PARENT_TAG: parent})
        elif parent is None and key is not None:  # gone for good, workspace and store
            self.untag(stored, PARENT_TAG)

    def tag(self, stored: StoredRun, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_tag(stored.run_id, key, value)
            stored.tags[key] = value

    def untag(self, stored: StoredRun, *keys: str) -> None:
        for key in keys:
            if stored.tags.pop(key, None) is not None:
                self._client.delete_tag(stored.run_id, key)

    def _adopt(self, stored: StoredRun, journal: RunJournal, *, moved: bool) -> None:
        """Make a run that ``mlflow run`` had made ours, and retire the ones it takes over from."""
        if stored.tags.get(KEY_TAG) != journal.key:
            name = {"mlflow.runName": journal.name} if stored.is_unnamed else {}
            self.tag(stored, {**name, KEY_TAG: journal.key})
        if moved and (journal.mark is None or journal.mark.run_id != stored.run_id):
            earlier = self._search(journal.key, [self._store.experiment_id, stored.experiment_id])
            named = {each: self._get(each) for each in journal.outer_run_ids if each != stored.run_id}
            earlier += [
                run for each, run in named.items() if run and not trouble_with_outer_run(run, journal, each)
            ]
            for run in {run.info.run_id: run for run in earlier}.values():
                if run.info.run_id != stored.run_id and run.info.lifecycle_stage == "active":
                    self._retire(StoredRun.read_from(run), stored.run_id, journal)

    def _retire(self, old: StoredRun, new_id: str, journal: RunJournal) -> None:
        stranger = stranger_in(old, journal)
        if stranger is not None and keeps_it(stranger, old, journal):
            return  # it goes on in another copy of the workspace
        self.tag(old, {CONTINUED_TAG: new_id})
        self.untag(old, KEY_TAG)
        if old.status == "RUNNING":
            self.tag(
                old,
                {"omni.outcome": RunOutcome.KILLED, "mlflow.note.content": f"continued in run {new_id}"},
            )
            self._client.set_terminated(old.run_id, "KILLED")

    def _made_for(self, journal: RunJournal, outer: str) -> Run | None:
        """Return the run that ``MLFLOW_RUN_ID`` named, when it is this journal's; else note why it is not."""
        run = self._get(outer)
        trouble = trouble_with_outer_run(run, journal, outer)
        if trouble is None:
            return run
        self._refused[journal.key] = told_refused(outer, journal, trouble)
        return None

    def _get(self, run_id: str) -> Run | None:
        return run_if_there(self._client, run_id)

    def _find(self, journal: RunJournal) -> Run | None:
        mark = journal.mark
        run = self._get(mark.run_id) if mark is not None else None
        if run is not None:
            return run
        found = self._search(journal.key, self._experiments(journal))
        return found[0] if found else None

    def _search(self, key: str, experiments: list[str]) -> list[Run]:
        from mlflow.entities import ViewType

        query = f"tags.`{KEY_TAG}` = '{key}'"
        where = sorted(set(experiments))
        return list(self._client.search_runs(where, filter_string=query, run_view_type=ViewType.ALL))

    def _experiments(self, journal: RunJournal) -> list[str]:
        return [self._store.experiment_id, self._experiment_of_parent(journal)]

    def _experiment_of_parent(self, journal: RunJournal) -> str:
        """A run is shown below its parent only in the parent's experiment."""
        key = journal.home.parent if journal.home else None
        if key is None or key not in self._journals:
            return self._store.experiment_id
        return self.of(self._journals[key]).experiment_id

    def _create(self, journal: RunJournal) -> Run:
        return self._client.create_run(
            self._experiment_of_parent(journal),
            start_time=journal.started_ms,
            run_name=journal.name,
            tags={KEY_TAG: journal.key, "mlflow.source.name": "omni-mlflow", "mlflow.source.type": "LOCAL"},
        )
