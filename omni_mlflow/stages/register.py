"""register: a model version with its lineage; only of a checkpoint that passed gate and validate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import IsServed
from omni_mlflow.contract import Contract
from omni_mlflow.events import ModelVersion
from omni_mlflow.record import now_ms
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Skip, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.seal_ledger import opening_is_recorded

ALIASES = {Evidence.HELD_OUT: "validated", Evidence.SYNTHETIC: "validated-synthetic"}
"""Alias by class of the evaluation; a smoke run gets no alias, so it registers nothing."""


def _register(run: Run) -> Report:
    gate = json.loads(run.open("gate", "gate.json").read_text())
    validation = json.loads(run.open("validate", "validation.json").read_text())
    evaluation = json.loads(run.open("evaluate", "evaluation.json").read_text())
    evidence = Evidence(evaluation["evidence"])
    refusals = [*_refusals(gate, validation), *broken([opening_is_recorded(run.workspace, evaluation)])]
    if refusals:
        return Report(outputs=(), failures=refusals)
    out = run.folder / "registration.json"
    if evidence not in ALIASES or evaluation["num_evaluated_samples"] != evaluation["num_test_samples"]:
        reason = (
            f"nothing registered: the evaluation is {evidence} and answered "
            f"{evaluation['num_evaluated_samples']} of {evaluation['num_test_samples']} held-out samples; "
            f"an alias is for whole evaluations that are {' or '.join(sorted(ALIASES))}"
        )
        write_document(out, {"schema_version": SCHEMA_VERSION, "registered": False, "reason": reason})
        skip = Skip(subject=evaluation["checkpoint_digest"], stage=run.stage, reason=reason)
        return Report(outputs=[out], artifacts={"": [out]}, skipped=[skip], taken=1)
    files = _copy_descriptions(run)
    version = _version(run, evaluation, files)
    run.record.model(version)
    told = version.model_dump(mode="json", exclude={"at_ms", "event"})
    write_document(out, {"schema_version": SCHEMA_VERSION, "registered": True, **told})
    return Report(
        outputs=[out, *files],
        artifacts={"": [out]},
        tags={"omni.alias": ALIASES[evidence]},
        taken=1,
        made=1,
    )


def _version(run: Run, evaluation: dict[str, Any], files: Sequence[Path]) -> ModelVersion:
    evidence = Evidence(evaluation["evidence"])
    digests = ("checkpoint_digest", "dataset_digest", "split_digest")
    return ModelVersion(
        at_ms=now_ms(),
        registered_name=run.model.id,
        model_name=f"{run.model.id}-{evaluation['checkpoint_digest'][:8]}",
        alias=ALIASES[evidence],
        checkpoint_digest=evaluation["checkpoint_digest"],
        files=tuple(path.relative_to(run.folder).as_posix() for path in files),
        params={"training_objective": run.contract.training_objective},
        tags={
            "omni.evidence": str(evidence),
            "omni.backbone": run.model.id,
            **{f"omni.{key}": evaluation[key][:16] for key in digests},
        },
        description=_description(run, evaluation, evidence),
        metrics=evaluation["headline"],
        dataset_name=f"{run.contract.dataset_contract}-test",
        dataset_digest=evaluation["dataset_digest"][:16],
    )


def _refusals(gate: dict[str, Any], validation: dict[str, Any]) -> list[Check]:
    whole = validation["ok"] and validation["require_stage"] == "eval"
    facts = [
        ("gate_passed", "gate.json", "ok", "ok" if gate["ok"] else "refused", gate["ok"]),
        ("run_validated", "validation.json", "ok at require_stage eval", validation["require_stage"], whole),
    ]
    return [
        Check(rule=rule, subject=subject, expected=expected, found=str(found), ok=ok)
        for rule, subject, expected, found, ok in facts
        if not ok
    ]


def _copy_descriptions(run: Run) -> list[Path]:
    """Small files that describe the checkpoint; the weights stay in the workspace."""
    checkpoint = run.folder_of("train") / "checkpoint"
    copies = []
    if isinstance(run.model, IsServed):
        run.model.describe_served(run.folder / "model", settings=run.settings)
        copies += sorted((run.folder / "model").iterdir())
    for source in sorted(checkpoint.glob("*.json")):
        copies.append(run.folder / "model" / source.name)
        copies[-1].parent.mkdir(exist_ok=True)
        shutil.copyfile(source, copies[-1])
    return copies


def _description(run: Run, evaluation: dict[str, Any], evidence: Evidence) -> str:
    warning = "" if evidence is Evidence.HELD_OUT else "Synthetic episodes: no statement about real quality. "
    return (
        f"{warning}{run.contract.display_name}, gate {run.contract.artifact_contract.checkpoint_gate!r} and "
        f"validation passed, {evaluation['num_evaluated_samples']} held-out samples of "
        f"{evaluation['num_evaluated_episodes']} episodes."
    )


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {"registered_name": contract.id}


REGISTER = Stage(
    name="register",
    run=_register,
    rows="checkpoints",
    inputs={
        "train": (),
        "gate": ("gate.json",),
        "evaluate": ("evaluation.json",),
        "validate": ("validation.json",),
    },
    settings=_settings,
    per_backbone=True,
    asks=("describe_served",),
)
