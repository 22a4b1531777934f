"""Files of a run and the versions of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omni_mlflow.events import Artifact
from omni_mlflow.journal import settle
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.tracking.delta import Delta
from omni_mlflow.tracking.follow import RunJournal
from omni_mlflow.tracking.models import register
from omni_mlflow.tracking.stored_run import StoredRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

LIVE_EVERY_S = 10.0
"""A growing file is uploaded whole each time; not more often than this."""


def is_worth_sending(size: int, *, sent: int | None) -> bool:
    """Tell whether a growing file of ``size`` bytes is uploaded whole again, after it was at ``sent`` bytes.

    It must have grown by a quarter. So what is shown is more than four fifths of what there is, and all
    uploads of a file that ends at n bytes send less than 5 n, however it grows, with the last one, at the end
    of the run, less than 6 n. A file that was cut shows rows that are lost, and is sent whatever its size.
    """
    if sent is None:
        return True
    return size < sent or (size > sent and 4 * size >= 5 * sent)


class RunFiles:
    """Uploads files as they were announced, and growing ones while they grow."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._shown: dict[tuple[str, str, str], tuple[int, int, float]] = {}
        self._missing: dict[tuple[str, str, str], str] = {}
        self._outlived: list[str] = []

    def write(self, stored: StoredRun, journal: RunJournal, delta: Delta) -> None:
        """Upload finished files and register models.

        Raises:
            FileNotFoundError: the folder of the run was moved meanwhile.
        """
        for artifact in delta.artifacts.values():
            self._upload(stored, journal, artifact)
        for model in delta.models:
            paths = [journal.folder / name for name in model.files]
            for path in paths:
                if not path.is_file():
                    self._note_missing(journal, Artifact(path=path.name, folder="model"), "is gone")
            there = [path for path in paths if path.is_file()]
            note = register(self._client, model, stored, files=there)
            if note is not None:
                self._outlived.append(note)

    def show_live(self, stored: StoredRun, journal: RunJournal, *, now_s: float) -> None:
        """Upload growing files that are worth it, unless their last upload was just now."""
        for artifact in journal.live.values():
            path = journal.folder / artifact.path
            before = self._shown.get((stored.run_id, artifact.path, artifact.folder))
            if before is not None and now_s - before[2] < LIVE_EVERY_S:
                continue
            if path.is_file() and is_worth_sending(path.stat().st_size, sent=before[0] if before else None):
                self._upload_grown(stored, journal, artifact, now_s=now_s)

    def show_last(self, stored: StoredRun, journal: RunJournal) -> None:
        """Upload growing files whole as they are at the end of the run."""
        for artifact in journal.live.values():
            self._upload_grown(stored, journal, artifact, now_s=0.0)

    def notes(self) -> list[str]:
        return [*self._missing.values(), *self._outlived]

    def _upload_grown(
        self, stored: StoredRun, journal: RunJournal, artifact: Artifact, *, now_s: float
    ) -> None:
        path = journal.folder / artifact.path
        if not path.is_file():
            return
        stat = path.stat()
        name = (stored.run_id, artifact.path, artifact.folder)
        if self._shown.get(name, (None, None))[:2] != (stat.st_size, stat.st_mtime_ns):
            settle(path)  # the store must never show a row that the journal could still lose
            self._client.log_artifact(stored.run_id, str(path), artifact.folder or None)
            self._shown[name] = (stat.st_size, stat.st_mtime_ns, now_s)

    def _upload(self, stored: StoredRun, journal: RunJournal, artifact: Artifact) -> None:
        path = journal.folder / artifact.path
        name = (journal.key, artifact.path, artifact.folder)
        self._missing.pop(name, None)
        if path.is_file() and artifact.digest in (None, file_digest(path)):
            self._client.log_artifact(stored.run_id, str(path), artifact.folder or None)
            return
        self._note_missing(
            journal, artifact, "changed since it was announced" if path.exists() else "is gone"
        )

    def _note_missing(self, journal: RunJournal, artifact: Artifact, what: str) -> None:
        if not journal.is_here():
            raise FileNotFoundError(journal.path)  # the whole folder was moved: the file is not gone
        self._missing[journal.key, artifact.path, artifact.folder] = (
            f"{journal.folder / artifact.path} of run {journal.name} {what}; the tracker does not show it"
        )
