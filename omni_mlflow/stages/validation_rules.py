"""The rules of the validator, by how much of a run they ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations

from omni_mlflow.metrics.metrics_file import metric_checks
from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import Check
from omni_mlflow.stages.checkpoint_checks import MANIFEST
from omni_mlflow.stages.manifests import LEDGER, checkpoint_digest
from omni_mlflow.stages.run_under_test import RunUnderTest, UnreadableEvidenceError, check, damage_of

Rule = Callable[[RunUnderTest], Iterable[Check]]


def judge(run: RunUnderTest, level: str) -> list[Check]:
    """Apply every rule up to ``level``; one that cannot be judged is broken, and the others are applied."""
    names = list(RULES)
    wanted = names[: names.index(level) + 1]
    return [
        found
        for name in wanted
        for rule in RULES[name]
        for found in judged(rule.__name__, partial(rule, run))
    ]


def judged(rule: str, apply: Callable[[], Iterable[Check]]) -> list[Check]:
    """Apply one rule; evidence that keeps it from being judged breaks it, and nothing is raised."""
    found: list[Check] = []
    wanted = "evidence that can be judged"
    try:
        for each in apply():
            found.append(each)
    except UnreadableEvidenceError as error:
        found.append(check(rule, error.subject, wanted, error, ok=False))
    except Exception as error:  # damaged content, or a backbone's own code that stumbles over it
        found.append(check(rule, "content", wanted, f"{type(error).__name__}: {error}", ok=False))
    return found


def no_leak_between_splits(run: RunUnderTest) -> Iterable[Check]:
    """A rule that compared no pair breaks nothing, for tiny splits are allowed, but it is told."""
    graph = LeakGraph.model_validate(run.json("guard", "leak_graph.json"))
    found = "; ".join((f"{len(graph.blocking)} leaks", *graph.gaps))
    subject, ok = "guard/leak_graph.json", not graph.blocking
    yield check("no_leak_between_splits", subject, "0 leaks", found, ok=ok)


def sessions_are_disjoint(run: RunUnderTest) -> Iterable[Check]:
    per_split: dict[str, set[str]] = {}
    for episode in run.json("guard", "episode_manifest.json")["episodes"]:
        per_split.setdefault(episode["split"], set()).add(episode["session_id"])
    for left, right in combinations(sorted(per_split), 2):
        both = sorted(per_split[left] & per_split[right])
        yield check("sessions_are_disjoint", f"{left}/{right}", "no session in both", both, ok=not both)


def guarded_this_split(run: RunUnderTest) -> Iterable[Check]:
    split, guard = run.json("split", "split_manifest.json"), run.json("guard", "episode_manifest.json")
    subject = "guard/episode_manifest.json"
    yield check("guarded_this_split", subject, split["digest"], guard["split_digest"])
    episodes = sorted((each["episode_id"], each["split"]) for each in split["episodes"])
    guarded = sorted((each["episode_id"], each["split"]) for each in guard["episodes"])
    found = "the same" if episodes == guarded else f"{len(guarded)} others"
    yield check(
        "guarded_every_episode", subject, f"the {len(episodes)} of the split", found, ok=episodes == guarded
    )


def dataset_is_of_this_split(run: RunUnderTest) -> Iterable[Check]:
    split = run.json("split", "split_manifest.json")["digest"]
    found = run.json("export", "dataset_manifest.json")["split_digest"]
    yield check("dataset_is_of_this_split", "export/dataset_manifest.json", split, found)


def sample_files_are_those_exported(run: RunUnderTest) -> Iterable[Check]:
    dataset = run.json("export", "dataset_manifest.json")
    files = dict(sorted(dataset["files"].items()))
    yield check(
        "dataset_digest_is_of_its_files", "export/dataset_manifest.json", dataset["digest"], digest_of(files)
    )
    for name, digest in files.items():
        yield _as_listed(run, "sample_file_is_the_one_exported", "export", name, digest)


def required_training_files(run: RunUnderTest) -> Iterable[Check]:
    for name in run.contract.artifact_contract.required_training_files:
        places = (name, f"checkpoint/{name}")
        here = next((each for each in places if run.path("train", each).is_file()), name)
        withheld = next((each for each in places if run.withholds("train", each)), None)
        path = run.path("train", here)
        damage = None if withheld else damage_of(path)
        found = _by_digest(run, "train", withheld) if withheld else damage or f"{path.stat().st_size} bytes"
        yield check("required_training_file", name, "present, filled and readable", found, ok=damage is None)


def checkpoint_is_the_one_listed(run: RunUnderTest) -> Iterable[Check]:
    for name, digest in sorted(run.json("train", f"checkpoint/{MANIFEST}")["files"].items()):
        yield _as_listed(run, "checkpoint_file_is_the_one_listed", "train", f"checkpoint/{name}", digest)


def training_is_complete(run: RunUnderTest) -> Iterable[Check]:
    rows = run.rows("train", "progress.jsonl")
    last = rows[-1]["event"] if rows else "nothing"
    yield check("training_is_complete", "train/progress.jsonl", "complete", last)


def gate_passed(run: RunUnderTest) -> Iterable[Check]:
    gate = run.json("gate", "gate.json")
    refused = [rule["rule"] for rule in gate["rules"] if not rule["ok"]]
    sound = gate["ok"] is True and not refused and bool(gate["rules"])
    yield check("gate_passed", "gate/gate.json", "ok", "ok" if sound else f"refused by {refused}", ok=sound)


def trained_on_this_dataset(run: RunUnderTest) -> Iterable[Check]:
    dataset = run.json("export", "dataset_manifest.json")["digest"]
    found = run.json("train", "training_metadata.json")["dataset_digest"]
    yield check("trained_on_this_dataset", "train/training_metadata.json", dataset, found)


def no_test_episode_in_training(run: RunUnderTest) -> Iterable[Check]:
    """By what training says, and by the ledger of what it really consumed."""
    held_out = _held_out(run)
    metadata = run.json("train", "training_metadata.json")
    named = {*metadata["train_episode_ids"], *metadata["val_episode_ids"]}
    rule = "no_test_episode_in_training"
    yield check(rule, "train/training_metadata.json", [], sorted(held_out & named))
    wanted = metadata["training_ledger_digest"]
    yield _as_listed(run, "ledger_is_the_one_of_the_training", "train", LEDGER, wanted)
    if run.withholds("train", LEDGER):  # the gate read it
        return
    episode_of = {
        row["sample"]["id"]: row["sample"]["episode_id"]
        for split in ("train", "val")
        for row in run.rows("export", f"samples/{split}.jsonl")
    }
    consumed = {sample for row in run.rows("train", LEDGER) for sample in row["ids"]}
    learned = {episode_of.get(sample, sample.partition(":")[0]) for sample in consumed}
    yield check(rule, f"train/{LEDGER}", [], sorted(held_out & learned))


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
    foreign = sorted(episodes - _held_out(run))
    yield check("predicted_episodes_are_held_out", run.backbone.predictions_file, [], foreign)
    recorded = run.json("evaluate", "evaluation.json")["num_evaluated_episodes"]
    counted = run.json("evaluate", "metrics.json").get("held_out_episode_count")
    same = counted == recorded == len(episodes) > 0 and not isinstance(counted, bool)
    yield check("held_out_episodes", "evaluate/metrics.json", len(episodes), counted, ok=same)


def outputs_follow_from_themselves(run: RunUnderTest) -> Iterable[Check]:
    """The gate's second look, at what the evaluation left."""
    yield from run.backbone.check_outputs(run.path("evaluate", "."), settings=run.settings)


RULES: dict[str, tuple[Rule, ...]] = {
    "manifest": (no_leak_between_splits, sessions_are_disjoint, guarded_this_split),
    "dataset": (dataset_is_of_this_split, sample_files_are_those_exported),
    "training": (
        required_training_files,
        checkpoint_is_the_one_listed,
        training_is_complete,
        gate_passed,
        trained_on_this_dataset,
        no_test_episode_in_training,
    ),
    "eval": (
        required_eval_files,
        primary_metrics,
        evaluated_this_checkpoint,
        one_prediction_per_sample,
        predictions_are_held_out,
        held_out_episodes,
        outputs_follow_from_themselves,
    ),
}
"""How much of a run can be required, in order, and the rules that each level adds."""


def _as_listed(run: RunUnderTest, rule: str, stage: str, name: str, digest: str) -> Check:
    """A file that another one lists has the digest it is listed with."""
    found = run.digest(stage, name)
    told = _by_digest(run, stage, name) if run.withholds(stage, name) else found or "missing"
    return check(rule, f"{stage}/{name}", digest, told, ok=found == digest)


def _by_digest(run: RunUnderTest, stage: str, name: str) -> str:
    digest = str(run.digest(stage, name))
    return f"not in the tracking store, which holds no large files: by its logged digest {digest[:16]}"


def _held_out(run: RunUnderTest) -> set[str]:
    episodes = run.json("guard", "episode_manifest.json")["episodes"]
    return {each["episode_id"] for each in episodes if each["split"] == "test"}
