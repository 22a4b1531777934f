"""Reads a contract file, and lays a profile and single changes over it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from omni_mlflow.contract import Contract, ContractError, nearest, resolve
from omni_mlflow.contract.form_problems import problems
from omni_mlflow.contract.minimum_evidence import found_at, missing_evidence, texts_at
from omni_mlflow.contract.text import read_document

FIXED = ("schema_version", "id", "status", "default_model_id", "profiles")
"""What no profile changes."""


def load_contract(
    path: Path, *, profile: str | None = None, changes: Mapping[str, Any] | None = None
) -> Contract:
    """Read a contract, lay a profile over it, then single changes such as ``{"settings.lora.rank": 8}``.

    Raises:
        ContractError: the file is missing, is not YAML, holds an unknown key, contradicts itself, or names no
            such profile.
    """
    if not path.exists():
        others = [found.stem for found in path.parent.glob("*.yaml")]
        raise ContractError(f"{path}: no such contract; {nearest(path.stem, others)}")
    document = read_document(path)
    if issues := contradictions(document):
        raise ContractError(f"{path}: {'; '.join(issues)}", issues=issues)
    if profile is not None:
        document = with_profile(document, profile)
    for key, value in (changes or {}).items():
        _change(document, key, value)
    return parse_contract(document, where=str(path))


def contradictions(document: Mapping[str, Any]) -> list[str]:
    """Sections of the file itself, whatever profile is used, that contradict one another."""
    issues = []
    model, base = document.get("default_model_id"), found_at(document, "settings.base.model")
    if base is not None and model != base:
        issues.append(f"default_model_id {model!r} is not settings.base.model, {base!r}")
    if base is None and model is not None and document.get("status") == "implemented":
        issues.append(
            f"default_model_id {model!r} names weights that no settings.base.model asks for; "
            "it is null where nothing is fine-tuned"
        )
    if document.get("status") == "planned_adapter" and not texts_at(document, "extension_requirements"):
        issues.append("extension_requirements: a planned contract says what its code must do")
    return issues


def parse_contract(document: Mapping[str, Any], *, where: str) -> Contract:
    """Validate the form of a contract, and that it asks for the minimum of evidence.

    Raises:
        ContractError: listing every wrong key, with the nearest match for an unknown one, and every
            evidence it does not ask for.
    """
    issues = missing_evidence(document)
    try:
        contract = Contract.model_validate(document)
    except ValidationError as error:
        issues = [*problems(error, Contract), *issues]
    if issues:
        raise ContractError(f"{where}: {'; '.join(issues)}", issues=issues)
    return contract


def parse_changes(text: str | None) -> dict[str, Any]:
    """Read ``lora.rank=8,learning_rate=1e-4`` (the ``--set`` option) as changes of ``settings``.

    Values are read as YAML, so numbers are numbers. ``none`` and an empty text mean no change.

    Raises:
        ContractError: a part is not KEY=VALUE.
    """
    changes: dict[str, Any] = {}
    if text in (None, "", "none"):
        return changes
    for part in str(text).split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ContractError(f"--set {part!r} is not KEY=VALUE")
        number = _number(value)
        changes[f"settings.{key.strip()}"] = yaml.safe_load(value) if number is None else number
    return changes


def _number(text: str) -> float | int | None:
    """YAML 1.1 reads ``1e-4`` as text; people who type it mean a number."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def with_profile(document: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """Lay one of a document's own profiles over it.

    Raises:
        ContractError: it has no such profile, or the profile changes a key that the document does not have.
    """
    profiles = document.get("profiles")
    changes = resolve("profile", profile, profiles if isinstance(profiles, Mapping) else {})
    if not isinstance(changes, Mapping):
        raise ContractError(f"profile {profile!r} is no mapping of sections")
    if fixed := [key for key in FIXED if key in changes]:
        raise ContractError(f"a profile cannot change {fixed}: they say which contract this is")
    return _merged(document, changes, where="")


def _merged(document: Mapping[str, Any], over: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Lay ``over`` on ``document``; it may only change keys that the contract already has."""
    merged = dict(document)
    for key, value in over.items():
        if key not in merged:
            raise ContractError(f"a profile changes unknown key {where + key!r}; {nearest(key, merged)}")
        inner = merged[key]
        both_mappings = isinstance(value, dict) and isinstance(inner, dict)
        merged[key] = _merged(inner, value, where=f"{where}{key}.") if both_mappings else value
    return merged


def _change(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    block = document
    for depth, name in enumerate(parents):
        if not isinstance(block.get(name), dict):
            place = ".".join(parents[: depth + 1])
            raise ContractError(f"unknown setting {place!r}; {nearest(name, block)}")
        block[name] = dict(block[name])
        block = block[name]
    if last not in block:
        raise ContractError(f"unknown setting {dotted!r}; {nearest(last, block)}")
    block[last] = value
