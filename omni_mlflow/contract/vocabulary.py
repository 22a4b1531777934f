"""Words of a contract that name no code: roles of entry points, and what a file that may leave can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = {
    "selection": "select",
    "neutral_index": "index",
    "eval": "evaluate",
    "merge_shards": "merge",
    "launcher": "main",
    **{name: name for name in ("split", "guard", "export", "train", "gate", "validate", "report")},
    **{name: name for name in ("register", "publish")},
}
"""The entry point of the MLflow project that plays each role of the specification."""

CATEGORIES = frozenset(
    {
        "action_spaces",
        "class_metrics",
        "confusion_matrices",
        "manifests",
        "metrics",
        "model_config",
        "normalization",
        "predictions",
        "qualitative_examples",
        "retargeting_audits",
        "retrieval_rankings",
        "run_reports",
        "skipped",
        "temporal_consistency",
        "training_metadata",
        "trajectory_metrics",
        "validation_summaries",
    }
)
"""What a file that may leave can be; none of them is a category that is forbidden."""


def wrong_roles(document: Mapping[str, Any]) -> list[str]:
    """Say which roles name another entry point than the one that plays them."""
    named = document.get("entrypoints")
    return [
        f"entrypoints.{role} names {stage!r}; it is {ROLES[role]!r}"
        for role, stage in (named.items() if isinstance(named, Mapping) else ())
        if role in ROLES and stage in ROLES.values() and stage != ROLES[role]
    ]


def categories_of(document: Mapping[str, Any]) -> list[str]:
    artifacts = document.get("artifact_contract")
    allowed = artifacts.get("public_package_allowed") if isinstance(artifacts, Mapping) else None
    rules = [rule for rule in allowed if isinstance(rule, Mapping)] if isinstance(allowed, list) else []
    return [rule["category"] for rule in rules if isinstance(rule.get("category"), str)]
