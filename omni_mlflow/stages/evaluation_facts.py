"""What is known about an evaluation beside its scores: what it may claim, what was skipped on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omni_mlflow.reporting.facts import Flow, ReportedFile, RunFacts
from omni_mlflow.spine.evidence import Evidence, EvidenceFacts, evidence_of, shortcomings_of
from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.rows import file_digest, read_document, read_rows
from omni_mlflow.spine.types import SCHEMA_VERSION, Row, Skip, Split
from omni_mlflow.stages.asked import Questions
from omni_mlflow.stages.base import Run
from omni_mlflow.stages.manifests import DatasetManifest, EpisodeManifest, episodes_learned_from
from omni_mlflow.stages.seal_ledger import openings_of

ROWS_OF = {
    "select": "episodes",
    "split": "episodes",
    "guard": "episodes",
    "index": "episodes",
    "export": "windows",
    "train": "samples",
}
"""The stages before an evaluation that count rows, and what they count."""


class EvaluationFacts(Row):
    """``evaluation.json``: which checkpoint answered which held-out samples, and what that may claim.

    Attributes:
        overlapping_episodes: test episodes that share a recording with train or val: then it is no result.
        infrastructure_failed: ids of the samples that were asked in vain; they are no evaluated samples.
        identity: what the answers depend on, part by part.
    """

    schema_version: int = SCHEMA_VERSION
    evidence: Evidence
    limit: int | None
    checkpoint_digest: str
    dataset_digest: str
    split_digest: str
    contract_digest: str
    num_test_episodes: int
    num_test_samples: int
    num_evaluated_episodes: int
    num_evaluated_samples: int
    overlapping_episodes: tuple[str, ...]
    infrastructure_failed: tuple[str, ...]
    identity: dict[str, str]
    seal_openings: int
    shortcomings: tuple[str, ...] = ()


def evaluation_facts(run: Run, asked: Questions, *, lost: Sequence[Skip]) -> EvaluationFacts:
    """Collect the facts and compute the class of the run from them."""
    dataset, identity = asked.dataset, asked.identity
    manifest = read_document(run.open("guard", "episode_manifest.json"), EpisodeManifest)
    test = dataset.samples_per_episode[Split.TEST]
    in_vain = {each.subject for each in lost}
    evaluated = [
        episode for each, episode in zip(asked.ids, asked.episodes, strict=True) if each not in in_vain
    ]
    openings = openings_of(run, dataset)
    held_out = {each.episode_id for each in manifest.episodes if each.split is Split.TEST}
    learned_from = episodes_learned_from(run)
    facts = EvidenceFacts(
        synthetic=manifest.synthetic or dataset.synthetic,
        guarded=manifest.split_digest == dataset.split_digest,
        limit=run.options.limit,
        num_train_episodes=len(learned_from),
        num_test_episodes=len(held_out),
        num_evaluated_episodes=len({*evaluated}),
        num_test_samples=sum(test.values()),
        num_evaluated_samples=len(evaluated),
        episodes_in_training=tuple(sorted(held_out & learned_from)),
        overlapping_episodes=read_document(run.open("guard", "leak_graph.json"), LeakGraph).sharing_with(
            Split.TEST
        ),
        seal_recorded=any(each.checkpoint_digest == identity["checkpoint"] for each in openings),
    )
    return EvaluationFacts(
        evidence=evidence_of(facts),
        limit=facts.limit,
        checkpoint_digest=identity["checkpoint"],
        dataset_digest=dataset.digest,
        split_digest=dataset.split_digest,
        contract_digest=run.contract.digest,
        num_test_episodes=facts.num_test_episodes,
        num_test_samples=facts.num_test_samples,
        num_evaluated_episodes=facts.num_evaluated_episodes,
        num_evaluated_samples=facts.num_evaluated_samples,
        overlapping_episodes=facts.overlapping_episodes,
        infrastructure_failed=tuple(each.subject for each in lost),
        identity=identity,
        seal_openings=len(openings),
        shortcomings=shortcomings_of(facts),
    )


def run_facts(
    run: Run,
    facts: EvaluationFacts,
    metrics: Mapping[str, Any],
    *,
    files: Sequence[str],
    lost: Sequence[Skip],
) -> RunFacts:
    """Everything that ``RUN_REPORT.md`` and the report page say."""
    training = json.loads(run.open("train", "training_metadata.json").read_text(encoding="utf-8"))
    return RunFacts(
        evidence=facts.evidence,
        backbone=run.model.id,
        display_name=run.contract.display_name,
        base_model=str(training["base_model"]),
        base_revision=str(training["base_revision"]),
        checkpoint_digest=facts.checkpoint_digest,
        split_digest=facts.split_digest,
        dataset_digest=facts.dataset_digest,
        contract_digest=facts.contract_digest,
        train_episodes=len(training["train_episode_ids"]),
        split_episodes=facts.num_test_episodes,
        split_samples=facts.num_test_samples,
        answered_episodes=facts.num_evaluated_episodes,
        answered_samples=facts.num_evaluated_samples,
        questions=run.contract.questions.asked,
        metrics=metrics,
        kinds=run.model.metrics,
        primary_metrics=run.contract.primary_metrics,
        seal_openings=facts.seal_openings,
        overlapping_episodes=len(facts.overlapping_episodes),
        shortcomings=facts.shortcomings,
        flows=(*_flows(run), _own_flow(facts)),
        skipped=(*_skips(run), *lost),
        files=tuple(_reported(run, name) for name in files),
    )


def _flows(run: Run) -> Iterable[Flow]:
    for stage, unit in ROWS_OF.items():
        seal = run.inputs[stage].seal()
        if seal is not None:
            yield Flow(stage=stage, unit=unit, taken=seal.taken, made=seal.made, skipped=seal.skipped)


def _own_flow(facts: EvaluationFacts) -> Flow:
    answered, lost = facts.num_evaluated_samples, len(facts.infrastructure_failed)
    return Flow(stage="evaluate", unit="samples", taken=answered + lost, made=answered, skipped=lost)


def _skips(run: Run) -> Iterable[Skip]:
    for stage, unit in ROWS_OF.items():
        seal = run.inputs[stage].seal()
        name = f"skipped_{unit}.jsonl"
        if seal is not None and name in seal.outputs:
            yield from read_rows(run.open(stage, name), Skip)


def unasked_episodes(run: Run, dataset: DatasetManifest) -> dict[str, dict[str, int]]:
    """Return the held-out episodes without any sample, and what was left out of them, by reason."""
    manifest = read_document(run.open("guard", "episode_manifest.json"), EpisodeManifest)
    asked = dataset.samples_per_episode[Split.TEST]
    held_out = sorted(each.episode_id for each in manifest.episodes if each.split is Split.TEST)
    reasons: dict[str, Counter[str]] = {each: Counter() for each in held_out if each not in asked}
    for skip in _skips(run):
        of_window = skip.subject.rsplit(":", 2)[0]  # see window_id; 'index' leaves out whole episodes
        if (episode := skip.subject if skip.subject in reasons else of_window) in reasons:
            reasons[episode][skip.reason] += 1
    return {episode: dict(sorted(counts.items())) for episode, counts in reasons.items()}


def _reported(run: Run, name: str) -> ReportedFile:
    path = run.folder / name
    holds = HOLDS if run.contract.questions.asked else HOLDS | HOLDS_WITHOUT_QUESTIONS
    return ReportedFile(
        name=name, sha256=file_digest(path), size_bytes=path.stat().st_size, holds=holds.get(name, "")
    )


HOLDS = {
    "contract.json": "the contract as it was used, profile and changes included",
    "label_ledger.json": "every action of the dataset: samples per split, other spellings, what train lacks",
    "metrics.json": "every number of this report, with intervals, floors, controls and verdicts",
    "predictions.jsonl": "one row per held-out sample: truth, answer, raw reply",
    "predictions.csv": "the same rows as a table",
    "per_class_metrics.csv": "precision, recall and F1 of every action",
    "confusion_matrix.csv": "true against predicted actions",
    "policy_predictions.jsonl": "one row per held-out sample: labels, chunk of actions, error of its hands",
    "trajectory_metrics.csv": "every error of hands by method and episode, in mm",
    "action_confusion_matrix.csv": "true against predicted actions",
    "retargeting_audit.json": "what the action space loses of each episode's hands, and what it leaves out",
    "hand_paths.json": "wrists of a few samples, true and foretold; true motion, so it is never published",
}

HOLDS_WITHOUT_QUESTIONS = {
    "metrics.json": "every number of this report",
    "predictions.jsonl": "one row per held-out sample",
}
"""The same files of a backbone that answers no label question."""
