"""Bring back the files of a run; one that the store cannot deliver is told, and the others are brought."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omni_mlflow.logged_files import OUTPUTS_NAME, shown_files
from omni_mlflow.spine.types import Check
from omni_mlflow.tracking.failures import explain

if TYPE_CHECKING:
    from mlflow import MlflowClient


def download_files(client: MlflowClient, run_id: str, folder: Path, *, stage: str, store: str) -> list[Check]:
    """Download everything that a run shows into an empty folder, and name the files that did not come.

    A store that cannot list its files is asked for each one that the stage says it has shown.
    """
    try:
        client.download_artifacts(run_id, "", str(folder))
    except Exception:  # whatever a store, its driver or the network can raise; each file tells its own
        return list(_one_by_one(client, run_id, folder, stage=stage, store=store))
    return []


def _one_by_one(
    client: MlflowClient, run_id: str, folder: Path, *, stage: str, store: str
) -> Iterator[Check]:
    def download(name: str) -> Iterator[Check]:
        try:
            client.download_artifacts(run_id, name, str((folder / name).parent))
        except Exception as error:
            wanted, told = "a file that the store delivers", explain(error, store=store)
            subject = f"{stage}/{name}"
            yield Check(rule="file_is_delivered", subject=subject, expected=wanted, found=told, ok=False)

    yield from download(OUTPUTS_NAME)
    for name in shown_files(folder):
        yield from download(name)
