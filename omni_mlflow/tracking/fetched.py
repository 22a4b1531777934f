"""Bring back what a tracking store shows of a run: the small files of its stages, and how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omni_mlflow.logged_files import OUTPUTS_TAG, LoggedFiles, read_logged
from omni_mlflow.spine.types import Check
from omni_mlflow.tracking.connection import open_client
from omni_mlflow.tracking.outer_runs import KEY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_UPSTREAM = "omni.upstream."


@dataclass(frozen=True)
class StoredRunFacts:
    """A run of the store: its key in the journals, its backbone (empty for shared stages) and its status."""

    key: str
    backbone: str
    status: str


def find_run(store: str, run_id: str) -> StoredRunFacts | None:
    """Look up a run; None where the store holds none of that id, or only a deleted one."""
    found, _ = _run(open_client(store), run_id, subject=run_id)
    if found is None:
        return None
    tags = found.data.tags
    return StoredRunFacts(tags.get(KEY_TAG, ""), tags.get("omni.backbone", ""), found.info.status)


@dataclass
class Fetched:
    """What the store shows of the stages behind a run.

    Attributes:
        folders: the files of each stage that was found.
        logged: the digests of its files, where its run has some that can be read.
        checks: what the runs say of themselves: finished, of this backbone, and each file as it was logged.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    logged: dict[str, LoggedFiles] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def fetch_stages(store: str, run_id: str, *, stages: Sequence[str], backbone: str, into: Path) -> Fetched:
    """Download the files of every stage behind a run, found through its tags ``omni.upstream.<stage>``.

    Args:
        run_id: a pipeline run, or the run of a stage after those that are asked for.
        into: an empty folder; each stage gets a folder of its own in it.
    """
    client = open_client(store)
    named, problems = _run(client, run_id, subject=run_id)
    fetched = Fetched(checks=problems)
    ids = _behind(client, named) if named else {}
    for stage in stages if named else ():
        found, problems = _run(client, ids.get(stage), subject=stage)
        fetched.checks += problems
        if found is None:
            continue
        tags = found.data.tags
        of = tags.get("omni.backbone", backbone)  # a shared stage is of all of them
        fetched.checks.append(_check("stage_run_is_finished", stage, "FINISHED", found.info.status))
        fetched.checks.append(_check("run_is_of_this_backbone", stage, backbone, of))
        folder = fetched.folders[stage] = into / stage
        folder.mkdir()
        client.download_artifacts(found.info.run_id, "", str(folder))
        logged, problems = read_logged(folder, stage=stage, tag=tags.get(OUTPUTS_TAG))
        fetched.checks += problems
        if logged is not None:
            fetched.logged[stage] = logged
    return fetched


def _behind(client: MlflowClient, named: Run) -> dict[str, str]:
    """Run id of every stage that ``named`` was made from, directly or through others, and its own.

    A run that did nothing, because its work was done, stands for the one that did it.
    """
    own = {named.data.tags.get("omni.stage", ""): named.info.run_id}
    ids = {} if "omni.reused" in named.data.tags else own
    pending = [named]
    while pending:
        tags = pending.pop(0).data.tags
        for key, run_id in sorted(tags.items()):
            stage = key.removeprefix(_UPSTREAM)
            if key.startswith(_UPSTREAM) and stage not in ids:
                ids[stage] = run_id
                found, _ = _run(client, run_id, subject=stage)
                pending += [found] if found else []
    return ids


def _run(client: MlflowClient, run_id: str | None, *, subject: str) -> tuple[Run | None, list[Check]]:
    from mlflow.exceptions import MlflowException

    wanted = "a run of this tracking store"
    if run_id is None:
        reason = f"no run behind it has a tag {_UPSTREAM}{subject}"
        return None, [_check("stage_run_exists", subject, wanted, reason)]
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None, [_check("stage_run_exists", subject, wanted, f"no run {run_id}")]
    if run.info.lifecycle_stage != "active":
        return None, [_check("stage_run_exists", subject, wanted, f"run {run_id} was deleted")]
    return run, []


def _check(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=expected == found)
