"""Runs of a job's store, judged in this process by what the store shows of them."""

from __future__ import annotations

from collections.abc import Sequence
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
        request = Request(
            command="validate",
            project=project,
            workspace=job.root / "nowhere",
            store=store,
            backbones=tuple(backbones),
            contract=contract,
            profile=None,
            sizes=None,
            changes=None,
            options=Options(data_root=None, synthetic_root=job.root / "nowhere"),
            outer=None,
        )
        return list(validate_run(request, run_id))


def judge(job: Place, run_id: str, **named: Any) -> list[Check]:
    """Judge a run of the trivial backbone."""
    [verdict] = verdicts(job, run_id, **named)
    return list(verdict.rules)


def run_of(job: Place, stage: str) -> Any:
    return next(run for run in job.runs() if run.data.tags["omni.stage"] == stage)
