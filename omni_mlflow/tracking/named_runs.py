"""From the run that a person names to the runs of the stages behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from omni_mlflow.spine.types import Check
from omni_mlflow.tracking.outer_runs import KEY_TAG, OUTCOME_TAG, UPSTREAM_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REUSED_TAG = "omni.reused"
_KEY = re.compile(r"[0-9a-f]{12,32}")


def get_run(client: MlflowClient, run_id: str | None, *, subject: str) -> tuple[Run | None, list[Check]]:
    """Look a run up; where there is none, why not is a broken rule.

    Args:
        run_id: None where no run behind the named one has the tag that names it.
        subject: the run or the stage that was asked for.
    """
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None, [_missing(subject, f"no run behind it has a tag {UPSTREAM_TAG}{subject}")]
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None, [_missing(subject, f"no run {run_id}")]
    if run.info.lifecycle_stage != "active":
        return None, [_missing(subject, f"run {run_id} was deleted")]
    return run, []


def run_named(client: MlflowClient, name: str) -> tuple[Run | None, list[Check]]:
    """Look up a run by the store's own id, or by our key, or the beginning of it, which stages print."""
    named, problems = get_run(client, name, subject=name)
    if named is not None or not _KEY.fullmatch(name):
        return named, problems
    everywhere = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(everywhere, filter_string=f"tags.`{KEY_TAG}` LIKE '{name}%'", max_results=2)
    return (found[0], []) if len(found) == 1 else (None, problems)


def run_meant(client: MlflowClient, name: str, *, backbone: str) -> tuple[Run | None, list[Check]]:
    """The named run; where that stands around several backbones, the one below it of this backbone."""
    named, problems = run_named(client, name)
    if named is None or named.data.tags.get("omni.stage") != "backbones":
        return named, problems
    query = f"tags.`mlflow.parentRunId` = '{named.info.run_id}'"
    below = list(client.search_runs([named.info.experiment_id], filter_string=query))
    of_it = [run for run in below if _is_of(run, backbone)]
    if len(of_it) == 1:
        return of_it[0], []
    found = "it stands around the runs of several backbones; " + _named_instead(below)
    wanted = f"one run of {backbone or 'one backbone'} below it"
    return None, [
        Check(rule="run_stands_for_this_backbone", subject=name, expected=wanted, found=found, ok=False)
    ]


def _is_of(run: Run, backbone: str) -> bool:
    """A shared stage is of every backbone; a command that was refused before it began is of none."""
    tags: dict[str, str] = run.data.tags
    of = tags.get("omni.backbone")
    return of == backbone if of else tags.get(OUTCOME_TAG) != "refused"


def _named_instead(below: Sequence[Run]) -> str:
    if not below:
        return "none is below it, because all work was done before: name the run that did it"
    told = ", ".join(f"{run.info.run_name} ({run.info.run_id})" for run in below)
    return f"name one of those below it: {told}"


def runs_behind(client: MlflowClient, named: Run, *, fills: Mapping[str, str]) -> dict[str, str]:
    """Run id of every stage that ``named`` was made from, directly or through others, and its own.

    A run that did nothing, because its work was done, stands for the one that did it.

    Args:
        fills: stages that do the work of another one, and that other one, under whose name they are returned.
    """
    tags = named.data.tags
    stage = tags.get("omni.stage", "")
    ids = {} if REUSED_TAG in tags else {fills.get(stage, stage): named.info.run_id}
    pending = [named]
    while pending:
        tags = pending.pop(0).data.tags
        for key, run_id in sorted(tags.items()):
            upstream = key.removeprefix(UPSTREAM_TAG)
            stage = fills.get(upstream, upstream)
            if key.startswith(UPSTREAM_TAG) and stage not in ids:
                ids[stage] = run_id
                found, _ = get_run(client, run_id, subject=stage)
                pending += [found] if found else []
    return ids


def _missing(subject: str, found: str) -> Check:
    wanted = "a run of this tracking store"
    return Check(rule="stage_run_exists", subject=subject, expected=wanted, found=found, ok=False)
