"""The rules of the validator, by how much of a run they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from omni_mlflow.spine.types import Check
from omni_mlflow.stages import claim_rules, evaluation_rules, split_rules, training_rules
from omni_mlflow.stages.run_under_test import RunUnderTest, UnreadableEvidenceError, check

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


RULES: dict[str, tuple[Rule, ...]] = {
    "manifest": (
        split_rules.no_leak_between_splits,
        split_rules.rules_of_the_guard_blocked,
        split_rules.leak_graph_is_of_this_split,
        split_rules.sessions_are_disjoint,
        split_rules.guarded_this_split,
    ),
    "dataset": (split_rules.dataset_is_of_this_split, split_rules.sample_files_are_those_exported),
    "training": (
        training_rules.required_training_files,
        training_rules.checkpoint_is_the_one_listed,
        training_rules.checkpoint_lists_every_file,
        training_rules.checkpoint_names_its_proofs,
        training_rules.training_is_complete,
        training_rules.training_tells_of_its_steps,
        training_rules.gate_passed,
        training_rules.gates_of_the_contract_were_asked,
        training_rules.trained_on_this_dataset,
        training_rules.trained_on_this_split,
        training_rules.no_test_episode_in_training,
    ),
    "eval": (
        evaluation_rules.required_eval_files,
        evaluation_rules.primary_metrics,
        evaluation_rules.evaluated_this_checkpoint,
        evaluation_rules.one_prediction_per_sample,
        evaluation_rules.predictions_are_held_out,
        evaluation_rules.held_out_episodes,
        evaluation_rules.outputs_follow_from_themselves,
        claim_rules.evaluation_names_what_it_was_made_of,
        claim_rules.counts_follow_from_the_split,
        claim_rules.headline_is_of_the_metrics,
        claim_rules.evidence_follows_from_the_facts,
        claim_rules.report_begins_with_its_class,
    ),
}
"""How much of a run can be required, in order, and the rules that each level adds."""
