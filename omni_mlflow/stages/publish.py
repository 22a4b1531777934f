"""publish: copy only what the backbone's contract allows, scanned, with a checksum of every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.types import Skip, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import data_root_of
from omni_mlflow.stages.seal_ledger import opening_is_recorded

EVIDENCE_STAGES = ("split", "guard", "index", "export", "train", "gate", "evaluate", "validate")


def _publish(run: Run) -> Report:
    from omni_mlflow.publication.package import build_package

    evaluation = json.loads(run.open("evaluate", "evaluation.json").read_text())
    if refusals := broken([opening_is_recorded(run.workspace, evaluation)]):
        return Report(outputs=(), failures=refusals)
    statement = run.open("evaluate", "RUN_REPORT.md").read_text(encoding="utf-8").partition("\n")[0]
    if Evidence(evaluation["evidence"]) is Evidence.SMOKE:  # a part of the evidence is no result
        withheld = Skip(subject="package", stage=run.stage, reason=f"nothing published: {statement}")
        return Report(outputs=(), skipped=[withheld], taken=1)
    files = run.contract.artifact_contract
    shutil.rmtree(run.folder / "package", ignore_errors=True)  # of an attempt that was not sealed
    candidates = _candidates(run)
    package = build_package(
        candidates,
        allowed=files.public_package_allowed,
        forbidden=files.public_package_forbidden,
        out=run.folder / "package",
        private_roots=[run.workspace.root, data_root_of(run)],
        facts={
            "backbone": run.model.id,
            "evidence": evaluation["evidence"],
            "statement": statement,
            "checkpoint_digest": evaluation["checkpoint_digest"],
            "dataset_digest": evaluation["dataset_digest"],
            "split_digest": evaluation["split_digest"],
        },
    )
    if package.findings:  # nothing was published; every finding is named
        return Report(outputs=(), failures=package.findings)
    shown = sorted(path for path in package.folder.iterdir() if path.suffix in (".json", ".txt", ".md"))
    return Report(
        outputs=[package.folder],
        artifacts={"package": shown},
        metrics={"rows/files_published": package.num_published, "rows/files_withheld": package.num_withheld},
        skipped=[
            Skip(subject=each.name, stage=run.stage, reason=str(each.reason))
            for each in package.decisions
            if each.outcome == "withheld"
        ],
        taken=len(candidates),
        made=package.num_published,
    )


def _candidates(run: Run) -> dict[str, Path]:
    """Every sealed output file of the stages before, by its name in a package.

    Nothing is left out here: what may leave is decided by the contract, file by file, with a reason.
    """
    candidates: dict[str, Path] = {}
    for stage in EVIDENCE_STAGES:
        seal = run.inputs[stage].seal()
        for name in seal.outputs if seal else ():
            candidates[f"{stage}/{name}"] = run.folder_of(stage) / name
    return candidates


def _settings(contract: Contract) -> Mapping[str, Any]:
    files = contract.artifact_contract
    return {
        "public_package_allowed": [file.model_dump(mode="json") for file in files.public_package_allowed],
        "public_package_forbidden": list(files.public_package_forbidden),
    }


PUBLISH = Stage(
    name="publish",
    run=_publish,
    rows="files",
    inputs={
        **dict.fromkeys(EVIDENCE_STAGES, ()),
        "select": ("selection.json",),
        "evaluate": ("evaluation.json", "RUN_REPORT.md"),
    },
    settings=_settings,
    per_backbone=True,
)
