"""Bring back what a store shows of a run: the small files of its stages, their values, and how they ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omni_mlflow.logged_files import OUTPUTS_TAG, LoggedFiles, read_logged
from omni_mlflow.spine.types import Check
from omni_mlflow.tracking.connection import open_client
from omni_mlflow.tracking.downloads import download_files
from omni_mlflow.tracking.named_runs import REUSED_TAG, get_run, run_meant, run_named, runs_behind
from omni_mlflow.tracking.outer_runs import KEY_TAG
from omni_mlflow.tracking.shown_versions import ShownVersion, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class StoredRunFacts:
    """A run of the store: its key in the journals, its backbone (empty for shared stages) and its status."""

    key: str
    backbone: str
    status: str


def find_run(store: str, name: str) -> StoredRunFacts | None:
    """Look up a run by its id or our key; None where the store holds none, or only a deleted one."""
    found, _ = run_named(open_client(store), name)
    if found is None:
        return None
    tags = found.data.tags
    return StoredRunFacts(tags.get(KEY_TAG, ""), tags.get("omni.backbone", ""), found.info.status)


@dataclass(frozen=True)
class ShownRun:
    """The values of one run, as people read and sort them in the tracker.

    Attributes:
        stage: the stage whose work it shows; ``main`` for a pipeline run, which repeats its stages.
        own: it did that work itself, and does not repeat what another run found.
        finished: nothing more is going to be shown, so what is missing stays missing.
        metrics: the last value of each.
    """

    run_id: str
    stage: str
    own: bool
    finished: bool
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass
class Fetched:
    """What the store shows of the stages behind a run.

    Attributes:
        folders: the files of each stage that was found.
        logged: the digests of its files, where its run has some that can be read.
        shown: the values of the run that was meant, and of the run of each stage.
        versions: the versions of the model that were registered for its evaluation.
        checks: what the runs say of themselves: finished, of this backbone, and each file as it was logged.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    logged: dict[str, LoggedFiles] = field(default_factory=dict)
    shown: list[ShownRun] = field(default_factory=list)
    versions: list[ShownVersion] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


def fetch_stages(
    store: str,
    name: str,
    *,
    stages: Sequence[str],
    fills: Mapping[str, str],
    of_one_backbone: Collection[str],
    backbone: str,
    into: Path,
    beside: Collection[str] = (),
) -> Fetched:
    """Download the files of every stage behind a run, found through its tags ``omni.upstream.<stage>``.

    Args:
        name: id in the store, or our key, of a pipeline run, of the run of a stage after those that are asked
            for, or of one that stands around such runs of several backbones.
        fills: stages that do the work of another one, and that other one.
        of_one_backbone: stages whose run must say of which backbone it is.
        into: an empty folder; each stage gets a folder of its own in it.
        beside: further stages, of which each file that is shown is compared with its digest, where a
            finished run of theirs is there.
    """
    client = open_client(store)
    meant, problems = run_meant(client, name, backbone=backbone)
    fetched = Fetched(checks=problems)
    if meant is None:
        return fetched
    ids = runs_behind(client, meant, fills=fills)
    if meant.info.run_id not in {ids.get(stage) for stage in stages}:
        said = _said_stage(meant, fills)
        fetched.shown.append(
            _shown(meant, said if said in stages else "main", complete=said in (*stages, "main"))
        )
        of = meant.data.tags.get("omni.backbone", backbone)
        fetched.checks.append(_check("run_is_of_this_backbone", meant.info.run_id, backbone, of))
    for stage in beside:
        found, _ = get_run(client, ids.get(stage), subject=stage)
        if found is not None and found.info.status == "FINISHED":
            _download(client, found, stage, into=into, store=store, fetched=fetched)
    for stage in stages:
        found, problems = get_run(client, ids.get(stage), subject=stage)
        fetched.checks += problems
        if found is None:
            continue
        fetched.shown.append(_shown(found, stage))
        of = found.data.tags.get("omni.backbone", "none" if stage in of_one_backbone else backbone)
        fetched.checks.append(_check("run_is_of_this_stage", stage, stage, _said_stage(found, fills)))
        fetched.checks.append(_check("stage_run_is_finished", stage, "FINISHED", found.info.status))
        fetched.checks.append(_check("run_is_of_this_backbone", stage, backbone, of))
        _download(client, found, stage, into=into, store=store, fetched=fetched)
        if stage == "evaluate":
            fetched.versions = versions_of(client, backbone, evaluation=found.info.run_id)
    return fetched


def _download(
    client: MlflowClient, found: Run, stage: str, *, into: Path, store: str, fetched: Fetched
) -> None:
    """Bring the files of a stage's run, and the digests that it logged of them."""
    folder = fetched.folders[stage] = into / stage
    folder.mkdir()
    fetched.checks += download_files(client, found.info.run_id, folder, stage=stage, store=store)
    logged, problems = read_logged(folder, stage=stage, tag=found.data.tags.get(OUTPUTS_TAG))
    fetched.checks += problems
    if logged is not None:
        fetched.logged[stage] = logged


def _said_stage(run: Run, fills: Mapping[str, str]) -> str:
    """Whose work a run says that it shows; a tag is easily changed, so nothing else hangs on it."""
    said = run.data.tags.get("omni.stage", "none")
    return fills.get(said, said)


def _shown(run: Run, stage: str, *, complete: bool = True) -> ShownRun:
    """Return the values of a run that is judged as one of ``stage``; what it lacks, only if ``complete``."""
    tags = run.data.tags
    return ShownRun(
        run_id=run.info.run_id,
        stage=stage,
        own=REUSED_TAG not in tags,
        finished=complete and run.info.status == "FINISHED",
        metrics=run.data.metrics,
        tags=tags,
    )


def _check(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=expected == found)
