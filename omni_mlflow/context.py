"""What all stages of one command share, and what it means for one of them to have its own identity."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow import stage_report
from omni_mlflow.backbone_code import code_behind
from omni_mlflow.backbones.base import Backbone
from omni_mlflow.code_digest import code_digest
from omni_mlflow.contract import Contract
from omni_mlflow.registry import Bound
from omni_mlflow.spine.rows import UNREADABLE, digest_of, file_digest
from omni_mlflow.spine.types import Check
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Bar, Options, Stage
from omni_mlflow.workspace import Seal, StageFolder, StaleInputError, Workspace

LOCAL_MODEL = "local_model"
"""The setting that names a folder of this machine with the weights."""


@dataclass(frozen=True)
class OuterRun:
    """The MLflow run that ``mlflow run`` created for this process."""

    run_id: str
    experiment_id: str | None


@dataclass(frozen=True)
class Context:
    """What all stages of one command share.

    Attributes:
        shared: the contract of the shared stages; with one backbone it is that backbone's own.
        parent: key of the pipeline run around the stages; None when one stage runs alone.
        suites: folder of the Great Expectations suites.
        source: tags that name the state of the code.
        outer: the run that ``mlflow run`` made; it belongs to the pipeline run, or to the lone stage.
        say: shows one line to the person at the terminal.
    """

    workspace: Workspace
    bound: Bound
    shared: Contract
    options: Options
    bar: Bar
    say: Callable[[str], None]
    suites: Path
    source: Mapping[str, str]
    parent: str | None = None
    outer: OuterRun | None = None


def fingerprint_of(stage: Stage, context: Context, seals: Mapping[str, Seal]) -> str:
    """Identity of the work: what it reads, the settings that shape it, and the code behind it."""
    modules = (stage.run.__module__, stage_report.__name__)
    backbone = context.bound.backbone
    code = code_behind(backbone, stage.asks, *modules) if stage.per_backbone else code_digest(*modules)
    suites = {name: file_digest(context.suites / f"{name}.yaml") for name in stage.suites}
    return digest_of(
        {
            "stage": stage.name,
            "suites": suites,
            "options": flat(stage.choices(context.options)),
            "inputs": {name: seal.digest for name, seal in sorted(seals.items())},
            "settings": settings_of(stage, context),
            "code": code,
        }
    )


def check_lineage(context: Context, seals: Mapping[str, Seal]) -> None:
    """Check that every stage behind ``seals`` still stands as it was read, and was made with these settings.

    Raises:
        StaleInputError: naming the stage to run again, or the settings that differ.
    """
    for problem in lineage_problems(context, seals):
        raise StaleInputError(problem)


def lineage_problems(context: Context, seals: Mapping[str, Seal]) -> Iterator[str]:
    """Say what is wrong with each stage behind ``seals`` that does not stand as it was read."""
    pending = dict(seals)
    seen: set[str] = set()
    while pending:
        name, seal = pending.popitem()
        seen.add(name)
        wanted = settings_of(STAGES[name], context)
        keys = sorted(key for key in {*wanted, *seal.settings} if wanted.get(key) != seal.settings.get(key))
        if keys and not STAGES[name].serves(seal.settings, wanted):
            found = ", ".join(f"{key}={seal.settings.get(key)} (now {wanted.get(key)})" for key in keys)
            yield (
                f"{name!r} was made with other settings: {found}; run {name!r} again with these settings, "
                "or give the ones it was made with (--profile, --set, --sizes, --contract)"
            )
        for upstream, digest in seal.inputs.items():
            current = folder_of(STAGES[upstream], context).seal()
            if current is None:
                yield (
                    f"{upstream!r}, which {name!r} was made from, is gone from the workspace; run "
                    f"{upstream!r} again: with the same options it makes the same, and {name!r} still holds"
                )
            elif current.digest != digest:
                yield (
                    f"{name!r} was made from another {upstream!r} than the one that is here now; "
                    f"run {name!r} again"
                )
            elif upstream not in seen:
                pending[upstream] = current


def judged_inputs(
    context: Context, folders: Mapping[str, StageFolder]
) -> tuple[dict[str, Seal], list[Check]]:
    """Look at inputs without refusing any: the seals that can be read, and what is wrong with the others."""
    seals: dict[str, Seal] = {}
    findings: list[Check] = []
    for name, folder in folders.items():
        seal, found = folder.examine()
        findings += found
        if seal is not None:
            seals[name] = seal
    try:
        problems = list(lineage_problems(context, seals))
    except (*UNREADABLE, StaleInputError) as error:
        problems = [str(error)]
    findings += [
        Check(rule="stages_belong_together", subject="seals", expected="one lineage", found=each, ok=False)
        for each in dict.fromkeys(problems)
    ]
    return seals, findings


def folder_of(stage: Stage, context: Context) -> StageFolder:
    return context.workspace.stage(
        stage.work.folder_name(context.options),
        backbone=context.bound.contract.id if stage.per_backbone else None,
    )


def settings_of(stage: Stage, context: Context) -> dict[str, Any]:
    """What of contract and options shapes the stage's output: a change elsewhere does not run it again."""
    contract = contract_of(stage, context)
    chosen = contract_settings(stage, contract, context.bound.backbone)
    folder = os.environ.get(contract.local_model_env)
    if folder and stage.per_backbone and "base" in _blocks(stage, contract, context.bound.backbone):
        chosen[LOCAL_MODEL] = folder
    return chosen


def contract_settings(stage: Stage, contract: Contract, backbone: Backbone) -> dict[str, Any]:
    """The part of :func:`settings_of` that is no fact of this machine."""
    chosen = dict(stage.settings(contract))
    if stage.per_backbone:
        blocks = _blocks(stage, contract, backbone)
        chosen["settings"] = {name: contract.settings[name] for name in blocks}
    return json_value(flat(chosen))


def _blocks(stage: Stage, contract: Contract, backbone: Backbone) -> tuple[str, ...]:
    """The blocks of a contract's settings that shape what a stage makes."""
    return backbone.stage_settings.get(stage.name, tuple(contract.settings))


def contract_of(stage: Stage, context: Context) -> Contract:
    """The contract that a stage reads: its backbone's own, or for a shared stage the one that serves all."""
    return context.bound.contract if stage.per_backbone else context.shared


def tags_of(stage: Stage, context: Context) -> dict[str, str]:
    tags = {"omni.stage": stage.name, "omni.contract_digest": contract_of(stage, context).digest[:16]}
    return {**tags, "omni.backbone": context.bound.contract.id} if stage.per_backbone else tags


def json_value(values: dict[str, Any]) -> dict[str, Any]:
    """The same values as a JSON file gives them back: tuples are lists there."""
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, the form in which people compare parameters."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
