"""Rules of the validator about what an evaluation says of itself: each is computed again from other files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.reporting.wording import class_line
from omni_mlflow.spine.evidence import Evidence, EvidenceFacts, evidence_of
from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.types import Check, Split
from omni_mlflow.stages.manifests import CONTRACT, LEDGER
from omni_mlflow.stages.run_under_test import RunUnderTest, check, held_out, learned_episodes

_EVALUATION = "evaluate/evaluation.json"
_OVER_FLOOR = "_over_floor"


def evaluation_names_what_it_was_made_of(run: RunUnderTest) -> Iterable[Check]:
    """Split, dataset and contract that it names are those of split, export and the contract beside it.

    That contract is the one the run was made with; whether it fits the one that is asked for, the settings of
    each stage tell: an evaluation is kept when a contract changes in what does not shape it.
    """
    record = run.json("evaluate", "evaluation.json")
    split, dataset = run.json("split", "split_manifest.json"), run.json("export", "dataset_manifest.json")
    yield check("evaluated_this_split", _EVALUATION, split["digest"], record["split_digest"])
    yield check("evaluated_this_dataset", _EVALUATION, dataset["digest"], record["dataset_digest"])
    used = Contract.model_validate(run.json("evaluate", CONTRACT)).digest
    yield check("evaluated_under_its_contract", _EVALUATION, used, record["contract_digest"])


def counts_follow_from_the_split(run: RunUnderTest) -> Iterable[Check]:
    """How much was held out, and what of it shares a recording with train or val, by guard and export."""
    record = run.json("evaluate", "evaluation.json")
    wanted = {
        "num_test_episodes": len(held_out(run)),
        "num_test_samples": sum(_asked_for(run).values()),
        "overlapping_episodes": list(_overlapping(run)),
    }
    for name, expected in wanted.items():
        yield check("counts_follow_from_the_split", f"{_EVALUATION}: {name}", expected, record[name])


def headline_is_of_the_metrics(run: RunUnderTest) -> Iterable[Check]:
    """Every number to compare is in ``metrics.json``, or is there as the difference to the best floor."""
    metrics = run.json("evaluate", "metrics.json")
    for name, found in sorted(run.json("evaluate", "evaluation.json")["headline"].items()):
        wanted = _metric(metrics, name)
        told = "none in metrics.json" if wanted is None else wanted
        yield check("headline_is_of_the_metrics", f"{_EVALUATION}: {name}", told, found, ok=wanted == found)


def evidence_follows_from_the_facts(run: RunUnderTest) -> Iterable[Check]:
    """The class that the evaluation claims is the one that split, leak graph, ledger and predictions allow.

    A tracking store holds no ledger of what was really learned from: there the episodes that training names
    stand for it, and less may be claimed than they allow.
    """
    wanted, claimed = evidence_of(_facts(run)), run.json("evaluate", "evaluation.json")["evidence"]
    claims = {_EVALUATION: claimed}
    if run.whole:
        claims["evaluate/run_facts.json"] = run.json("evaluate", "run_facts.json")["evidence"]
    for subject, found in claims.items():
        less = not run.whole and (wanted, found) == (Evidence.HELD_OUT, Evidence.SMOKE)
        yield check("evidence_follows_from_the_facts", subject, wanted, found, ok=less or found == wanted)


def report_begins_with_its_class(run: RunUnderTest) -> Iterable[Check]:
    """The first line of the report says what the evaluation's class demands."""
    record = run.json("evaluate", "evaluation.json")
    wanted = class_line(
        Evidence(record["evidence"]),
        samples=(record["num_evaluated_samples"], record["num_test_samples"]),
        episodes=(record["num_evaluated_episodes"], record["num_test_episodes"]),
        overlapping_episodes=len(record["overlapping_episodes"]),
    )
    found = run.text("evaluate", "RUN_REPORT.md").partition("\n")[0]
    yield check("report_begins_with_its_class", "evaluate/RUN_REPORT.md", wanted, found)


def _facts(run: RunUnderTest) -> EvidenceFacts:
    record, guard = run.json("evaluate", "evaluation.json"), run.json("guard", "episode_manifest.json")
    dataset, training = (
        run.json("export", "dataset_manifest.json"),
        run.json("train", "training_metadata.json"),
    )
    withheld = run.withholds("train", LEDGER)
    learned_from = {*training["train_episode_ids"]} if withheld else learned_episodes(run)
    answered = run.rows("evaluate", run.backbone.predictions_file)
    generated = any(each["synthetic"] for each in guard["episodes"])
    return EvidenceFacts(
        synthetic=generated or guard["synthetic"] or dataset["synthetic"] or training["synthetic"],
        guarded=guard["split_digest"] == dataset["split_digest"],
        limit=record["limit"],
        num_train_episodes=len(learned_from),
        num_test_episodes=len(held_out(run)),
        num_evaluated_episodes=len({row["episode_id"] for row in answered}),
        num_test_samples=sum(_asked_for(run).values()),
        num_evaluated_samples=len(answered),
        episodes_in_training=tuple(sorted(held_out(run) & learned_from)),
        overlapping_episodes=_overlapping(run),
        seal_recorded=record["seal_openings"] > 0,
    )


def _asked_for(run: RunUnderTest) -> Mapping[str, int]:
    """The number of held-out samples of each episode."""
    counts: Mapping[str, int] = run.json("export", "dataset_manifest.json")["samples_per_episode"][Split.TEST]
    return counts


def _overlapping(run: RunUnderTest) -> tuple[str, ...]:
    return LeakGraph.model_validate(run.json("guard", "leak_graph.json")).sharing_with(Split.TEST)


def _metric(metrics: Mapping[str, Any], name: str) -> Any:
    """A metric's value, or that of its difference to its best floor; None where there is none."""
    known = {**(metrics.get("more") or {}), **metrics}
    if name in known:
        return known[name]
    baseline = (metrics.get("baselines") or {}).get(name.removesuffix(_OVER_FLOOR))
    return baseline["difference"]["value"] if name.endswith(_OVER_FLOOR) and baseline else None
