"""validate: does a run hold everything its contract asks for, and do its files agree with each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import UNREADABLE, write_document
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, broken
from omni_mlflow.stages.base import Ground, Options, Report, Run, Stage
from omni_mlflow.stages.run_under_test import RunUnderTest, check, reason_of
from omni_mlflow.stages.seal_ledger import LEDGER_NAME, opening_is_recorded
from omni_mlflow.stages.validation_rules import judge

LEVELS = {
    "manifest": ("split", "guard"),
    "dataset": ("export",),
    "training": ("train", "gate"),
    "eval": ("evaluate",),
}
"""How much of a run can be required, in order, and the stages that each level adds."""


def judge_workspace(ground: Ground, findings: Sequence[Check]) -> list[Check]:
    """Apply every rule; nothing is written.

    Args:
        findings: what is wrong with the seals of the stages.
    """
    under_test = RunUnderTest(
        folders={stage: ground.folder_of(stage) for stage in stages_of(ground.options.require_stage)},
        contract=ground.contract,
        backbone=ground.model,
        settings=ground.settings,
        logged=None,
    )
    return [*findings, *judge(under_test, ground.options.require_stage), *_looks(ground)]


def _validate(run: Run) -> Report:
    checks = judge_workspace(run, run.findings or ())
    failed = broken(checks)
    out = run.folder / "validation.json"
    write_document(out, verdict(checks, require_stage=run.options.require_stage))
    return Report(
        outputs=[out],
        artifacts={"": [out]},
        metrics={"checks/validate_rules": len(checks), "checks/validate_broken": len(failed)},
        failures=failed,
        taken=len(checks),
        made=len(checks) - len(failed),
    )


def _looks(ground: Ground) -> list[Check]:
    """Whether the workspace's ledger holds the look at the held-out truths; no tracked run has the ledger."""
    if "evaluate" not in stages_of(ground.options.require_stage):
        return []
    path = ground.folder_of("evaluate") / "evaluation.json"
    try:
        evaluation = strict_json(path.read_text(encoding="utf-8"))
        return [opening_is_recorded(ground.workspace, evaluation)]
    except (*UNREADABLE, ValueError, KeyError, TypeError) as error:
        found = reason_of(error)
        return [check("opening_is_recorded", LEDGER_NAME, "a row of this evaluation", found, ok=False)]


def verdict(checks: list[Check], *, require_stage: str) -> dict[str, Any]:
    """The content of ``validation.json``: every rule that was applied, kept or broken."""
    return {
        "schema_version": SCHEMA_VERSION,
        "require_stage": require_stage,
        "ok": not broken(checks),
        "rules": [check.model_dump(mode="json") for check in checks],
    }


def stages_of(level: str) -> list[str]:
    """The stages that a level asks for, in order."""
    names = list(LEVELS)
    return [stage for name in names[: names.index(level) + 1] for stage in LEVELS[name]]


def _needed(options: Options) -> list[str]:
    return stages_of(options.require_stage)


def _settings(contract: Contract) -> Mapping[str, Any]:
    files = contract.artifact_contract
    return {
        "required_training_files": list(files.required_training_files),
        "required_eval_files": list(files.required_eval_files),
        "primary_metrics": list(contract.primary_metrics),
    }


def _choices(options: Options) -> Mapping[str, Any]:
    return {"require_stage": options.require_stage}


VALIDATE = Stage(
    name="validate",
    run=_validate,
    rows="rules",
    inputs={
        "split": ("split_manifest.json",),
        "guard": ("episode_manifest.json", "leak_graph.json"),
        "export": ("dataset_manifest.json", "samples/*"),
        "train": ("*",),
        "gate": ("gate.json",),
        "evaluate": ("*",),
    },
    settings=_settings,
    choices=_choices,
    per_backbone=True,
    asks=("check_outputs", "predictions_file"),
    only_needs=_needed,
    judges_inputs=True,
    looks_again=lambda ground: bool(broken(_looks(ground))),
    makes=("validation.json",),
)
