"""What all stages of one command share, and what it means for one of them to have its own identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.code_digest import code_digest, package_of
from omni_mlflow.registry import Bound
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.stages.base import Bar, Options, Stage
from omni_mlflow.workspace import Seal, Workspace


@dataclass(frozen=True)
class OuterRun:
    """The MLflow run that ``mlflow run`` created for this process."""

    run_id: str
    experiment_id: str | None


@dataclass(frozen=True)
class Context:
    """What all stages of one command share.

    Attributes:
        parent: key of the pipeline run around the stages; None when one stage runs alone.
        suites: folder of the Great Expectations suites.
        source: tags that name the state of the code.
        outer: the run that ``mlflow run`` made; it belongs to the pipeline run, or to the lone stage.
        say: shows one line to the person at the terminal.
    """

    workspace: Workspace
    bound: Bound
    options: Options
    bar: Bar
    say: Callable[[str], None]
    suites: Path
    source: Mapping[str, str]
    parent: str | None = None
    outer: OuterRun | None = None


def fingerprint_of(stage: Stage, context: Context, seals: Mapping[str, Seal]) -> str:
    """Identity of the work: what it reads, the settings that shape it, and the code behind it."""
    modules = [stage.run.__module__]
    if stage.per_backbone:
        modules.append(package_of(context.bound.backbone))
    return digest_of(
        {
            "stage": stage.name,
            "inputs": {name: seal.digest for name, seal in sorted(seals.items())},
            "settings": flat(settings_of(stage, context)),
            "code": code_digest(*modules),
        }
    )


def settings_of(stage: Stage, context: Context) -> dict[str, Any]:
    """What of contract and options shapes the stage's output: a change elsewhere does not run it again."""
    contract = context.bound.contract
    chosen = dict(stage.settings(contract, context.options))
    if stage.per_backbone:
        blocks = context.bound.backbone.stage_settings.get(stage.name, ())
        chosen["settings"] = {name: contract.settings[name] for name in blocks}
    return chosen


def tags_of(stage: Stage, context: Context) -> dict[str, str]:
    tags = {"omni.stage": stage.name, "omni.contract_digest": context.bound.contract.digest[:16]}
    return {**tags, "omni.backbone": context.bound.contract.id} if stage.per_backbone else tags


def inherited_tags(seals: Mapping[str, Seal]) -> dict[str, str]:
    """What is made from synthetic episodes is synthetic; no later stage can wash that off."""
    synthetic = any(seal.tags.get("omni.evidence") == Evidence.SYNTHETIC for seal in seals.values())
    return {"omni.evidence": Evidence.SYNTHETIC.value} if synthetic else {}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, the form in which people compare parameters."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
