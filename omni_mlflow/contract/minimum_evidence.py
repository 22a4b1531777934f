"""The evidence that every contract must ask for, whatever its family of models.

It is read from the document and not from the parsed contract, so that what is missing is listed beside what
is malformed, and the published form of a contract is held to the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EvidenceRule:
    """One thing that a contract must ask for.

    Attributes:
        place: the key that must ask for it, with dots between the levels.
        demand: what the place must say, as the end of a sentence.
        is_met: whether what stands at the place (None where nothing does) says so.
    """

    name: str
    place: str
    demand: str
    is_met: Callable[[Any], bool]


def _lists(name: str, place: str, wanted: str) -> EvidenceRule:
    return EvidenceRule(name, place, f"must also list {wanted!r}", lambda found: wanted in _texts(found))


def _forbids(category: str) -> EvidenceRule:
    return _lists(f"forbids_{category}", "artifact_contract.public_package_forbidden", category)


def _says_something(found: Any) -> bool:
    return any(text.strip() for text in _texts(found))


_SPLITS = ("train", "val", "test")
_EVALUATION = "artifact_contract.required_eval_files"
_TRAINING = "artifact_contract.required_training_files"

MINIMUM_EVIDENCE: tuple[EvidenceRule, ...] = (
    EvidenceRule("episode_split", "split_policy.unit", "must be 'episode'", lambda found: found == "episode"),
    EvidenceRule(
        "split_defaults",
        "split_policy.default_counts",
        "must give the numbers of train, val and test episodes",
        lambda found: isinstance(found, Mapping) and all(_is_count(found.get(split)) for split in _SPLITS),
    ),
    EvidenceRule("leakage_guard", "split_policy.leakage_guard", "must name a guard", _says_something),
    _lists("held_out_episode_count", "primary_metrics", "held_out_episode_count"),
    _lists("metrics_file", _EVALUATION, "metrics.json"),
    EvidenceRule(
        "prediction_file",
        _EVALUATION,
        "must list a JSONL prediction file (its name ends in predictions.jsonl)",
        lambda found: any(name.endswith("predictions.jsonl") for name in _texts(found)),
    ),
    _lists("run_report", _EVALUATION, "RUN_REPORT.md"),
    _lists("training_metadata", _TRAINING, "training_metadata.json"),
    _lists("progress_log", _TRAINING, "progress.jsonl"),
    *map(
        _forbids,
        ("raw_video", "annotation_hdf5", "rerun_rrd", "model_weights", "checkpoints", "archives"),
    ),
)


def missing_evidence(document: Mapping[str, Any]) -> list[str]:
    """Return one sentence, begun by the name of the rule, for each that ``document`` does not meet."""
    return [
        f"{rule.name}: {rule.place} {rule.demand}"
        for rule in MINIMUM_EVIDENCE
        if not rule.is_met(found_at(document, rule.place))
    ]


def found_at(document: Any, place: str) -> Any:
    """What stands at a dotted place of a document of any shape; None where nothing does."""
    for key in place.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def texts_at(document: Any, place: str) -> list[str]:
    """The texts at a dotted place: one, those of a list, or the values of a mapping."""
    found = found_at(document, place)
    return _texts(list(found.values()) if isinstance(found, Mapping) else found)


def _texts(found: Any) -> list[str]:
    listed = found if isinstance(found, list | tuple) else [found]
    return [each for each in listed if isinstance(each, str)]


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and found >= 0
