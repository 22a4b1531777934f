"""Runs of a job's store, judged in this process by what the store shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.command import Request
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.base import Options
from omni_mlflow.validation import Verdict, validate_run
from tests.conftest import PROJECT, TRIVIAL, Place


def verdicts(
    job: Place,
    run_id: str,
    *,
    store: str | None = None,
    project: Path = PROJECT,
    contract: Path | None = TRIVIAL / "trivial.yaml",
    backbones: Sequence[str] = ("trivial",),
) -> list[Verdict]:
    """Judge a run for each backbone; what opening a store sets in this process is taken back."""
    store = store or job.store
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        patch.setenv("MLFLOW_TRACKING_URI", store)
        nowhere = job.root / "nowhere"
        request = request_of(
            job, workspace=nowhere, data_root=nowhere, store=store, project=project, contract=contract
        )
        request = replace(request, backbones=tuple(backbones))
        return list(validate_run(request, run_id))


def request_of(
    job: Place,
    *,
    workspace: Path,
    data_root: Path,
    store: str | None = None,
    project: Path = PROJECT,
    contract: Path | None = TRIVIAL / "trivial.yaml",
) -> Request:
    """Ask for a verdict, as the command line does without further options."""
    return Request(
        command="validate",
        project=project,
        workspace=workspace,
        store=store or job.store,
        backbones=("trivial",),
        contract=contract,
        profile=None,
        sizes=None,
        changes=None,
        options=Options(data_root=data_root, synthetic_root=data_root),
        outer=None,
    )


def judge(job: Place, run_id: str, **named: Any) -> list[Check]:
    """Judge a run of the trivial backbone."""
    [verdict] = verdicts(job, run_id, **named)
    return list(verdict.rules)


def run_of(job: Place, stage: str) -> Any:
    return next(run for run in job.runs() if run.data.tags["omni.stage"] == stage)
