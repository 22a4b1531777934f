"""Rules of the validator about the answers of an evaluation: whole, held out, and of this checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from omni_mlflow.metrics.metrics_file import metric_checks
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.checkpoint_checks import MANIFEST
from omni_mlflow.stages.manifests import checkpoint_digest
from omni_mlflow.stages.run_under_test import (
    RunUnderTest,
    UnreadableEvidenceError,
    check,
    damage_of,
    held_out,
)


def required_eval_files(run: RunUnderTest) -> Iterable[Check]:
    for name in run.contract.artifact_contract.required_eval_files:
        path = run.path("evaluate", name)
        damage = damage_of(path)
        found = damage or f"{path.stat().st_size} bytes"
        yield check("required_eval_file", name, "present, filled and readable", found, ok=damage is None)


def primary_metrics(run: RunUnderTest) -> Iterable[Check]:
    """Every metric that the contract names is a finite number, or null with a reason."""
    try:
        metrics = run.json("evaluate", "metrics.json")
    except UnreadableEvidenceError as error:
        for name in run.contract.primary_metrics:
            yield check(
                "primary_metric", name, "a number, or null with a reason", f"metrics.json: {error}", ok=False
            )
        return
    yield from metric_checks(metrics, primary=run.contract.primary_metrics)


def evaluated_this_checkpoint(run: RunUnderTest) -> Iterable[Check]:
    if run.whole:
        expected = checkpoint_digest(run.path("train", "checkpoint"))
    else:
        expected = digest_of(run.json("train", f"checkpoint/{MANIFEST}")["files"])
    found = run.json("evaluate", "evaluation.json")["checkpoint_digest"]
    yield check("evaluated_this_checkpoint", "evaluate/evaluation.json", expected, found)


def one_prediction_per_sample(run: RunUnderTest) -> Iterable[Check]:
    """Every held-out sample has one prediction, in order; of a limited evaluation the first ones have.

    Samples that the infrastructure left unanswered are named, and no more of them than the contract bears.
    """
    name = run.backbone.predictions_file
    rows = run.rows("evaluate", name)
    record = run.json("evaluate", "evaluation.json")
    wanted = record["num_evaluated_samples"]
    ids = [row["id"] for row in rows]
    lost = record["infrastructure_failed"]
    asked = wanted + len(lost)
    bearable = len(lost) <= run.contract.evaluation.max_infrastructure_failed_share * asked
    whole = len(ids) == len(set(ids)) == wanted and bearable
    whole = whole and (record["limit"] or asked == record["num_test_samples"])
    if run.whole:
        exported = [row["id"] for row in run.rows("export", "samples/test.jsonl")]
        whole = whole and ids == [each for each in exported[:asked] if each not in lost]
    found = f"{len(ids)} ids, {len(set(ids))} different"
    yield check(
        "one_prediction_per_sample", name, f"{wanted} held-out samples, in order", found, ok=bool(whole)
    )


def predictions_are_held_out(run: RunUnderTest) -> Iterable[Check]:
    name = run.backbone.predictions_file
    rows = run.rows("evaluate", name)
    splits = sorted({str(row["split"]) for row in rows})
    yield check("predictions_are_held_out", name, ["test"], splits)
    counted = Counter(row["episode_id"] for row in rows)
    exported = run.json("export", "dataset_manifest.json")["samples_per_episode"]["test"]
    record = run.json("evaluate", "evaluation.json")
    limited = record["limit"] is not None or record["infrastructure_failed"]
    wrong = sorted(
        episode
        for episode in {*counted, *exported}
        if counted[episode] > exported.get(episode, 0)
        or (not limited and counted[episode] < exported.get(episode, 0))
    )
    yield check("predictions_are_of_the_exported_episodes", name, [], wrong)


def held_out_episodes(run: RunUnderTest) -> Iterable[Check]:
    """The counted episodes are those that were asked about, and they are held out."""
    episodes = {row["episode_id"] for row in run.rows("evaluate", run.backbone.predictions_file)}
    foreign = sorted(episodes - held_out(run))
    yield check("predicted_episodes_are_held_out", run.backbone.predictions_file, [], foreign)
    recorded = run.json("evaluate", "evaluation.json")["num_evaluated_episodes"]
    counted = run.json("evaluate", "metrics.json").get("held_out_episode_count")
    same = counted == recorded == len(episodes) > 0 and not isinstance(counted, bool)
    yield check("held_out_episodes", "evaluate/metrics.json", len(episodes), counted, ok=same)


def outputs_follow_from_themselves(run: RunUnderTest) -> Iterable[Check]:
    """The gate's second look, at what the evaluation left."""
    yield from run.backbone.check_outputs(run.path("evaluate", "."), settings=run.settings)
