"""Bind a contract to code: every name it holds must resolve, and all that do not are listed at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omni_mlflow.backbones.base import Backbone
from omni_mlflow.contract import Contract, ContractError, explain, nearest, resolve
from omni_mlflow.contract_file import load_contract
from omni_mlflow.gates import gate_names, gate_of
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.spine.leaks import LEAK_RULES
from omni_mlflow.stages import STAGES

ENTRY_POINT_GROUP = "omni_mlflow.backbones"


@dataclass(frozen=True)
class Bound:
    """A contract whose every name has been found in the code."""

    contract: Contract
    backbone: Backbone
    settings: Any


def bind(contract: Contract) -> Bound:
    """Resolve every name of ``contract``.

    Raises:
        ContractError: listing all names that nobody implements, each with the nearest match.
    """
    backbone = load_backbone(contract.id)
    issues = [
        *_unknown_names(contract, backbone),
        *_unknown_blocks(contract, backbone),
        *_unusable_gates(contract, backbone),
    ]
    settings = None
    try:
        local_copy = os.environ.get(contract.local_model_env)
        settings = backbone.settings_type.model_validate(
            contract.settings, context={"local_copy": local_copy}
        )
    except ValidationError as error:
        issues += [f"settings: {line}" for line in explain(error, backbone.settings_type).split("; ")]
    if issues:
        raise ContractError(f"contract {contract.id!r}: " + "; ".join(issues))
    return Bound(contract, backbone, settings)


def load_bound(path: Path, *, profile: str | None, changes: Mapping[str, Any]) -> Bound:
    """Read a contract file with its profile and changes, and bind it."""
    return bind(load_contract(path, profile=profile, changes=changes))


def load_backbone(backbone_id: str) -> Backbone:
    """Return the ``BACKBONE`` of ``omni_mlflow/backbones/<id>/`` or of an installed package.

    A package of somebody else adds a backbone with an entry point of the group ``omni_mlflow.backbones``
    whose name is the contract id.

    Raises:
        ContractError: nobody provides that backbone, or its package defines no BACKBONE.
    """
    folder = Path(__file__).parent / "backbones"
    modules = {
        path.parent.name: f"omni_mlflow.backbones.{path.parent.name}" for path in folder.glob("*/__init__.py")
    }
    modules |= {each.name: each.value for each in entry_points(group=ENTRY_POINT_GROUP)}
    module = importlib.import_module(resolve("backbone", backbone_id, modules))
    backbone: Backbone | None = getattr(module, "BACKBONE", None)
    if backbone is None:
        raise ContractError(f"{module.__name__} defines no BACKBONE")
    return backbone


def _unusable_gates(contract: Contract, backbone: Backbone) -> list[str]:
    """Gates that nobody provides, and installed ones that cannot be imported."""
    issues = []
    for name in gate_names(contract):
        try:
            gate_of(name, backbone)
        except ContractError as error:
            issues.append(str(error))
    return issues


def _unknown_blocks(contract: Contract, backbone: Backbone) -> list[str]:
    """Blocks of ``settings`` that a stage claims to depend on must be there."""
    return [
        f"stage {stage!r} depends on unknown settings block {block!r}; {nearest(block, contract.settings)}"
        for stage, blocks in backbone.stage_settings.items()
        for block in blocks
        if block not in contract.settings
    ]


def _unknown_names(contract: Contract, backbone: Backbone) -> list[str]:
    files = contract.artifact_contract
    used: list[tuple[str, Collection[str], Collection[str]]] = [
        ("entrypoint", contract.entrypoints.values(), {*STAGES, "main"}),
        ("leakage guard", contract.split_policy.leakage_guard, LEAK_RULES),
        ("metric", contract.primary_metrics, backbone.metrics),
        ("training file", files.required_training_files, backbone.training_files),
        ("evaluation file", files.required_eval_files, backbone.eval_files),
        ("forbidden category", files.public_package_forbidden, DETECTORS),
        ("stage of stage_settings", backbone.stage_settings, STAGES),
    ]
    return [
        f"unknown {kind} {name!r}; {nearest(name, known)}"
        for kind, names, known in used
        for name in names
        if name not in known
    ]


def validate_contracts(folder: Path, *, only: str | None, bind_names: bool) -> list[dict[str, Any]]:
    """Check every contract of ``folder``: its form, and with ``bind_names`` every name in it.

    Returns:
        One ``{"id", "status", "issues"}`` per contract, sorted by id.

    Raises:
        ContractError: the folder does not exist or holds no contract of that name.
    """
    paths = sorted(folder.glob("*.yaml"))
    if only is not None:
        paths = [path for path in paths if path.stem == only]
    if not paths:
        raise ContractError(f"no contract {only or '*'}.yaml in {folder}")
    rows: list[dict[str, Any]] = []
    for path in paths:
        row: dict[str, Any] = {"id": path.stem, "status": "unreadable", "issues": []}
        rows.append(row)
        try:
            contract = load_contract(path)
            row["status"] = contract.status
            if contract.id != path.stem:
                row["issues"].append(f"id {contract.id!r} is not the file's name")
            if bind_names and contract.status == "implemented":
                bind(contract)
        except ContractError as error:
            row["issues"].append(str(error))
    return rows
