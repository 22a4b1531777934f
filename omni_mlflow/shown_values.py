"""Are the numbers and tags that runs and registered versions show those of the files behind them?

A metric or a tag that no file speaks of is a person's own note, and is left to that person.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.checkpoint_checks import MANIFEST
from omni_mlflow.stages.evaluation_facts import EvaluationFacts
from omni_mlflow.stages.finalising import evaluation_tags, shown_metrics
from omni_mlflow.stages.register import ALIASES
from omni_mlflow.stages.run_under_test import RunUnderTest, check
from omni_mlflow.stages.training_log import last_of_the_curves
from omni_mlflow.stages.validate import stages_of
from omni_mlflow.stages.validation_rules import judged
from omni_mlflow.tracking import ShownRun, ShownVersion, store_name

_EVIDENCE, _VERDICT = "omni.evidence", "omni.verdict"
_ABSENT = "none"


def judge_shown(run: RunUnderTest, shown: Sequence[ShownRun], level: str) -> list[Check]:
    """Compare what each run shows with its files, up to ``level``; nothing is raised."""
    rules = {"train": shown_as_trained, "evaluate": shown_as_evaluated}
    return [
        found
        for stage in stages_of(level)
        if stage in rules
        for each in shown
        if each.stage in (stage, "main")
        for found in judged(rules[stage].__name__, partial(rules[stage], run, each))
    ]


def judge_versions(run: RunUnderTest, versions: Sequence[ShownVersion]) -> list[Check]:
    """Compare what the versions registered for an evaluation say with its files; nothing is raised."""
    rule = shown_as_registered
    return [found for each in versions for found in judged(rule.__name__, partial(rule, run, each))]


def shown_as_trained(run: RunUnderTest, shown: ShownRun) -> Iterator[Check]:
    manifest = run.json("train", f"checkpoint/{MANIFEST}")
    yield from _tags(shown, {"omni.checkpoint_digest": digest_of(manifest["files"])[:16]})
    if shown.stage == "train" and shown.own:
        yield from _tags(shown, {"omni.contract_digest": manifest["contract_digest"][:16]})
    if shown.stage == "train":
        synthetic = run.json("train", "training_metadata.json")["synthetic"]
        # The split may have taken none of the generated episodes that were selected: the tag stays.
        synthetic = synthetic or shown.tags.get(_EVIDENCE) == Evidence.SYNTHETIC
        yield from _tags(shown, {_EVIDENCE: Evidence.SYNTHETIC.value if synthetic else None})
        metadata = run.json("train", "training_metadata.json")
        digests = {f"omni.{name}": metadata[name][:16] for name in ("dataset_digest", "split_digest")}
        yield from _tags(shown, {key: digest for key, digest in digests.items() if key in shown.tags})
    if shown.stage == "train" and shown.own:
        yield from _metrics(shown, last_of_the_curves(run.rows("train", "progress.jsonl")))


def shown_as_evaluated(run: RunUnderTest, shown: ShownRun) -> Iterator[Check]:
    record, metrics = (run.json("evaluate", name) for name in ("evaluation.json", "metrics.json"))
    facts = EvaluationFacts.model_validate(record)
    unfounded = [key for key in shown.tags if key == _VERDICT or key.startswith(f"{_VERDICT}.")]
    tags: dict[str, str | None] = {
        **dict.fromkeys(unfounded),
        **evaluation_tags(run.contract, facts, metrics),
    }
    if shown.stage == "evaluate" and shown.own:
        tags["omni.contract_digest"] = facts.contract_digest[:16]
    yield from _tags(shown, tags)
    headline = shown_metrics(record["headline"])
    yield from _metrics(shown, {**_beyond_headline(run, shown, metrics), **headline})


def shown_as_registered(run: RunUnderTest, shown: ShownVersion) -> Iterator[Check]:
    """A version's tags are those of its evaluation, and our aliases point to it only as its class allows."""
    facts = EvaluationFacts.model_validate(run.json("evaluate", "evaluation.json"))
    rule, subject = "registered_version_is_that_of_the_files", f"version {shown.version} of {shown.name}"
    tags = {
        "omni.evidence": facts.evidence.value,
        "omni.checkpoint_digest": facts.checkpoint_digest,
        "omni.dataset_digest": facts.dataset_digest[:16],
        "omni.split_digest": facts.split_digest[:16],
    }
    for key, wanted in tags.items():
        yield check(rule, f"{subject}: {key}", wanted, shown.tags.get(store_name(key), _ABSENT))
    allowed = ALIASES.get(facts.evidence, _ABSENT)
    beyond = sorted(shown.aliases & {*ALIASES.values()} - {allowed})
    yield check(rule, f"{subject}: aliases", f"no other than {allowed}", beyond, ok=not beyond)


def _beyond_headline(
    run: RunUnderTest, shown: ShownRun, metrics: Mapping[str, Any]
) -> dict[str, float | None]:
    """What the run shows of other metrics that an evaluation knows, which nobody but a person added."""
    known = {**(metrics.get("more") or {}), **metrics}
    names = {*run.backbone.metrics, *run.contract.primary_metrics, *known}
    numbers = shown_metrics({name: value for name, value in known.items() if isinstance(value, int | float)})
    return {name: numbers.get(name) for name in names if store_name(name) in shown.metrics}


def _metrics(shown: ShownRun, expected: Mapping[str, float | None]) -> Iterable[Check]:
    for name, wanted in sorted(expected.items()):
        found = shown.metrics.get(store_name(name))
        if found is not None or shown.finished:
            yield _check(
                "shown_metric_is_that_of_the_files", shown, name, wanted, found, ok=_same(wanted, found)
            )


def _tags(shown: ShownRun, expected: Mapping[str, str | None]) -> Iterable[Check]:
    for key, wanted in sorted(expected.items()):
        found = shown.tags.get(store_name(key))
        if found is not None or shown.finished:
            yield _check("shown_tag_is_that_of_the_files", shown, key, wanted, found, ok=wanted == found)


def _same(wanted: float | None, found: float | None) -> bool:
    """The tracker shows infinity as NaN."""
    if wanted is None or found is None:
        return wanted is found
    return wanted == found or not (math.isfinite(wanted) or math.isfinite(found))


def _check(rule: str, shown: ShownRun, key: str, wanted: object, found: object, *, ok: bool) -> Check:
    texts = (_ABSENT if value is None else value for value in (wanted, found))
    return check(rule, f"{shown.stage} run {shown.run_id}: {key}", *texts, ok=ok)
