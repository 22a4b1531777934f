"""Bind a contract to code: every name it holds must resolve, and all that do not are listed at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from omni_mlflow.backbone_lookup import load_backbone
from omni_mlflow.backbones.base import Backbone
from omni_mlflow.contract import INPUT_ROLES, Contract, ContractError, nearest
from omni_mlflow.contract.file import load_contract
from omni_mlflow.contract.form_problems import problems
from omni_mlflow.contract.minimum_evidence import found_at, texts_at
from omni_mlflow.contract.vocabulary import CATEGORIES, ROLES, categories_of, wrong_roles
from omni_mlflow.gates import gate_of
from omni_mlflow.metrics.metrics_file import HELD_OUT_EPISODE_COUNT
from omni_mlflow.protocol import protocol_issues
from omni_mlflow.publication.detectors import DETECTORS, TRAINING_STATE
from omni_mlflow.publication.patterns import fits
from omni_mlflow.spine.leaks import LEAK_RULES
from omni_mlflow.spine.modalities import ModelTarget
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.publish import EVIDENCE_STAGES

_FILES = "artifact_contract"


@dataclass(frozen=True)
class Bound:
    """A contract whose every name has been found in the code."""

    contract: Contract
    backbone: Backbone
    settings: Any


def bind(contract: Contract) -> Bound:
    """Resolve every name of ``contract``.

    Raises:
        ContractError: it is planned; or listing all that no code stands behind, each name with the nearest
            match.
    """
    backbone = _backbone_of(contract)
    settings, issues = _bound(contract.model_dump(mode="json"), backbone)
    if not issues and contract.status == "planned_adapter":
        issues = ["its code is complete, but its status is planned_adapter; make it implemented"]
    if issues:
        listed = issues[0] if len(issues) == 1 else "".join(f"\n- {issue}" for issue in issues)
        raise ContractError(f"contract {contract.id!r}: {listed}", issues=issues)
    return Bound(contract, backbone, settings)


def binding_issues(document: Mapping[str, Any]) -> list[str]:
    """Say what in the document of an implemented contract no code stands behind, whatever its form."""
    try:
        backbone = load_backbone(str(document.get("id")))
    except ContractError as error:
        return [str(error), *unknown_names(document, None)]
    _, issues = _bound(document, backbone)
    return issues


def _bound(document: Mapping[str, Any], backbone: Backbone) -> tuple[Any, list[str]]:
    """The settings of a document in the backbone's own form, and all that is wrong with it and the code."""
    if lacking := protocol_issues(backbone, str(document.get("id"))):
        return None, [*lacking, *unknown_names(document, None)]
    settings, wrong = _settings_of(document, backbone)
    return settings, [
        *unknown_names(document, backbone),
        *_unusable_gates(document, backbone),
        *wrong,
        *_question_issues(document, backbone),
        *_modality_issues(document, backbone),
        *_weights_that_may_leave(document, backbone),
        *(
            f"entrypoints: no entry point plays the role {role!r}; it is {stage!r}"
            for role, stage in ROLES.items()
            if found_at(document, f"entrypoints.{role}") is None
        ),
    ]


def _backbone_of(contract: Contract) -> Backbone:
    try:
        return load_backbone(contract.id)
    except ContractError as error:
        if contract.status == "planned_adapter":
            raise ContractError(
                f"{contract.id!r} is planned: it has no code in omni_mlflow/backbones/{contract.id}/ yet; "
                "its extension_requirements say what is missing"
            ) from error
        raise


def _settings_of(document: Mapping[str, Any], backbone: Backbone) -> tuple[Any, list[str]]:
    """The ``settings:`` block as the backbone's own model, and what is wrong with it."""
    local_copy = os.environ.get(str(document.get("local_model_env")))
    try:
        return (
            backbone.settings_type.model_validate(
                document.get("settings"), context={"local_copy": local_copy}
            ),
            [],
        )
    except ValidationError as error:
        return None, [f"settings: {sentence}" for sentence in problems(error, backbone.settings_type)]


def load_bound(path: Path, *, profile: str | None, changes: Mapping[str, Any]) -> Bound:
    """Read a contract file with its profile and changes, and bind it."""
    return bind(load_contract(path, profile=profile, changes=changes))


def unknown_names(document: Mapping[str, Any], backbone: Backbone | None) -> list[str]:
    """Say which names in a contract's document nobody implements, each with the nearest match.

    Args:
        backbone: None for a planned contract, of which only the names of shared code are looked up.
    """
    unknown = [
        f"unknown {kind} {name!r}; {nearest(name, known)}"
        for kind, names, known in (*_shared_names(document), *_names_of(document, backbone))
        for name in names
        if name not in known
    ]
    return [*unknown, *wrong_roles(document)]


Names = tuple[str, Iterable[str], Collection[str]]
"""What the names are, the names, and those that there are."""


def _shared_names(document: Mapping[str, Any]) -> list[Names]:
    named = document.get("entrypoints")
    return [
        ("role of entrypoints", [*named] if isinstance(named, Mapping) else [], ROLES),
        ("category of public_package_allowed", categories_of(document), CATEGORIES),
        ("entrypoint", texts_at(document, "entrypoints"), {*STAGES, "main"}),
        ("leakage guard", texts_at(document, "split_policy.leakage_guard"), LEAK_RULES),
        ("forbidden category", texts_at(document, f"{_FILES}.public_package_forbidden"), DETECTORS),
    ]


def _names_of(document: Mapping[str, Any], backbone: Backbone | None) -> list[Names]:
    """Names that a backbone's code must know; the files of a planned one are those it must write."""
    training = texts_at(document, f"{_FILES}.required_training_files")
    evaluation = texts_at(document, f"{_FILES}.required_eval_files")
    training_files = backbone.training_files if backbone else training
    eval_files = backbone.eval_files if backbone else evaluation
    names: list[Names] = [
        ("training file", training, training_files),
        ("evaluation file", evaluation, eval_files),
        *_published(document, files_that_may_leave(training_files, eval_files)),
    ]
    if backbone is None:
        return names
    settings = document.get("settings")
    blocks = dict.fromkeys(chain.from_iterable(backbone.stage_settings.values()))
    return [
        *names,
        ("metric", texts_at(document, "primary_metrics"), backbone.metrics),
        ("stage of stage_settings", backbone.stage_settings, STAGES),
        ("settings block of stage_settings", blocks, settings if isinstance(settings, Mapping) else {}),
    ]


def _allowed(document: Mapping[str, Any]) -> list[str]:
    """The patterns of the files that may leave, as ``<stage>/<file>``."""
    rules = found_at(document, f"{_FILES}.public_package_allowed")
    listed = rules if isinstance(rules, list | tuple) else []
    return [pattern for rule in listed for pattern in texts_at(rule, "pattern")]


def files_that_may_leave(training_files: Iterable[str], eval_files: Iterable[str]) -> list[str]:
    """Every small file that a stage before ``publish`` can make, as ``<stage>/<file>``.

    Args:
        training_files, eval_files: names that the backbone adds; a training file may lie in the checkpoint.
    """
    added = {
        "train": [path for name in training_files for path in (name, f"checkpoint/{name}")],
        "evaluate": eval_files,
    }
    files = (
        f"{name}/{file}"
        for name in EVIDENCE_STAGES
        for file in (
            *STAGES[name].makes,
            *(f"validation/{suite}.{kind}" for suite in STAGES[name].suites for kind in ("json", "html")),
            f"skipped_{STAGES[name].rows}.jsonl",
            *added.get(name, ()),
        )
    )
    return [*dict.fromkeys(files)]  # a backbone may name what the stage makes anyway


def _published(document: Mapping[str, Any], files: Sequence[str]) -> list[Names]:
    """The patterns that fit no file: what was meant would be withheld in silence."""
    names: list[Names] = []
    for pattern in _allowed(document):
        if not any(fits(file, pattern) for file in files):
            stage = pattern.partition("/")[0]
            same_stage = [file for file in files if file.startswith(f"{stage}/")]
            names.append(("file of public_package_allowed", [pattern], same_stage or files))
    return names


def _unusable_gates(document: Mapping[str, Any], backbone: Backbone) -> list[str]:
    """Gates that nobody provides, and installed ones that cannot be imported."""
    issues = []
    own = texts_at(document, f"{_FILES}.checkpoint_gate")
    for name in dict.fromkeys([*own, *texts_at(document, f"{_FILES}.further_gates")]):
        try:
            gate_of(name, backbone)
        except ContractError as error:
            issues.append(str(error))
    return issues


def _weights_that_may_leave(document: Mapping[str, Any], backbone: Backbone) -> list[str]:
    """Patterns that fit weights; their detector would withhold the file, whatever the category says."""
    files = files_that_may_leave(backbone.training_files, backbone.eval_files)
    weights = [file for file in files if TRAINING_STATE.search(file)]
    return [
        f"public_package_allowed: {pattern!r} fits {file}, and weights never leave"
        for pattern in _allowed(document)
        for file in weights
        if fits(file, pattern)
    ]


def _modality_issues(document: Mapping[str, Any], backbone: Backbone) -> list[str]:
    """What the model is shown must be named as an input and not be excluded; the targets are the code's."""
    excluded = texts_at(document, "modalities.excluded_inputs")
    inputs = [name for role in INPUT_ROLES for name in texts_at(document, f"modalities.{role}")]
    return [
        f"modalities: {name!r} is {'excluded' if name in excluded else 'no input'}, but the code of the "
        f"backbone shows it to the model (its attribute 'shown'); name it among {', '.join(INPUT_ROLES)}"
        for name in sorted(backbone.shown)
        if name in excluded or name not in inputs
    ] + _target_issues(document, backbone)


def _target_issues(document: Mapping[str, Any], backbone: Backbone) -> list[str]:
    named = {
        name for role in ("targets", "candidate_targets") for name in texts_at(document, f"modalities.{role}")
    }
    return [
        f"modalities: the target {name!r} is "
        f"{'named, and no sample holds it' if name in named else 'not named, and samples hold it'} "
        "(attribute 'targets' of the backbone's code)"
        for name in sorted((named & {*get_args(ModelTarget)}) ^ backbone.targets)
    ]


def _question_issues(document: Mapping[str, Any], backbone: Backbone) -> list[str]:
    """What is asked must be graded by a primary metric, and what one grades must be asked; where nothing is,
    some primary metric must still judge."""
    asked = [*texts_at(document, "questions.describe"), *texts_at(document, "questions.foretell")]
    graded = {name: metric.question for name, metric in backbone.metrics.items() if metric.question}
    unasked = [
        f"primary metric {name!r} grades {graded[name]!r}, which the contract does not ask"
        for name in texts_at(document, "primary_metrics")
        if name in graded and graded[name] not in asked
    ]
    primary = {graded.get(name) for name in texts_at(document, "primary_metrics")}
    if not asked and not {*texts_at(document, "primary_metrics")} - {HELD_OUT_EPISODE_COUNT}:
        numbers = sorted({name for name in backbone.metrics if name not in graded} - {HELD_OUT_EPISODE_COUNT})
        return [
            "primary_metrics: nothing is judged: no question is asked, and no metric is named beside "
            f"{HELD_OUT_EPISODE_COUNT!r}; those that grade no question: {numbers or 'none'}"
        ]
    return unasked + [
        f"question {question!r} is asked and no primary metric grades it; "
        f"those that do: {sorted(name for name, each in graded.items() if each == question) or 'none'}"
        for question in asked
        if question not in primary
    ]
