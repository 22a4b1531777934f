"""Each rule breaks alone: files that were changed with all their digests are refused by what other files say.

The rules are applied to the files as they lie there, without seals: as if these had been made to fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.contract import Contract
from omni_mlflow.logged_files import LoggedFiles
from omni_mlflow.registry import load_bound
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.run_under_test import RunUnderTest
from omni_mlflow.stages.validate import stages_of
from omni_mlflow.stages.validation_rules import judge
from tests.conftest import TRIVIAL, Place
from tests.test_validator import changed, rewrite

OTHER = "0" * 64
EVALUATION = "evaluate/evaluation.json"
MANIFEST = "train/checkpoint/checkpoint_manifest.json"
METADATA = "train/training_metadata.json"
FLAGS_OF_GENERATED_DATA = (
    "guard/episode_manifest.json",
    "export/dataset_manifest.json",
    "train/training_metadata.json",
)


@pytest.fixture(scope="module")
def job(finished, tmp_path_factory) -> Place:
    """A finished job that every test of this module gives back as it was."""
    return finished.copy(tmp_path_factory.mktemp("rules"))


@pytest.fixture
def under_test(job, monkeypatch) -> RunUnderTest:
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bound = load_bound(TRIVIAL / "trivial.yaml", profile=None, changes={})
    folders = {
        stage: job.workspace / ("trivial" if STAGES[stage].per_backbone else "") / stage
        for stage in stages_of("eval")
    }
    return RunUnderTest(folders, bound.contract, bound.backbone, bound.settings, logged=None)


@pytest.fixture
def change(under_test) -> Iterator[Callable[[str, Callable[[Path], Any]], None]]:
    """Change ``<stage>/<name>``; it is given back afterwards."""
    kept: dict[Path, bytes] = {}

    def apply(name: str, how: Callable[[Path], Any]) -> None:
        stage, _, inner = name.partition("/")
        path = under_test.path(stage, inner)
        kept.setdefault(path, path.read_bytes())
        how(path)

    yield apply
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.fixture
def refused(under_test) -> Callable[[], list[tuple[str, str]]]:
    """Name every broken rule with its subject."""
    return lambda: pairs(judge(under_test, "eval"))


def pairs(rules: list[Check]) -> list[tuple[str, str]]:
    return [(each.rule, each.subject) for each in broken(rules)]


def edited(name: str, how: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change one value of a JSON file by what it was."""

    def apply(path: Path) -> None:
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document | {name: how(document[name])}))

    return apply


def only_the_end(path: Path) -> None:
    path.write_text(path.read_text().splitlines(keepends=True)[-1])


def without_first_line(path: Path) -> None:
    path.write_text(path.read_text().partition("\n")[2])


def test_a_finished_job_breaks_no_rule_and_proves_something_by_each(under_test):
    rules = judge(under_test, "eval")
    assert broken(rules) == []
    assert {each.rule for each in rules} >= {rule for _, _, (rule, _) in ALONE}


ALONE: list[tuple[str, Callable[[Path], Any], tuple[str, str]]] = [
    (
        "guard/leak_graph.json",
        edited("rules", lambda rules: [{**rule, "blocks": False} for rule in rules]),
        ("rules_of_the_guard_blocked", "guard/leak_graph.json"),
    ),
    ("guard/leak_graph.json", changed(rules=[]), ("rules_of_the_guard_blocked", "guard/leak_graph.json")),
    ("guard/leak_graph.json", changed(nodes=[]), ("leak_graph_is_of_this_split", "guard/leak_graph.json")),
    (
        "guard/leak_graph.json",
        edited("nodes", lambda nodes: [{**node, "split": "train"} for node in nodes]),
        ("leak_graph_is_of_this_split", "guard/leak_graph.json"),
    ),
    (MANIFEST, changed(files={}), ("checkpoint_lists_every_file", MANIFEST)),
    (MANIFEST, changed(contract_digest=OTHER), ("checkpoint_names_its_contract", MANIFEST)),
    (MANIFEST, changed(dataset_digest=OTHER), ("checkpoint_names_its_dataset", MANIFEST)),
    (MANIFEST, changed(training_ledger_digest=OTHER), ("checkpoint_names_its_training_ledger", MANIFEST)),
    (METADATA, changed(contract_digest=OTHER), ("checkpoint_names_its_contract", MANIFEST)),
    (METADATA, changed(split_digest=OTHER), ("trained_on_this_split", METADATA)),
    (METADATA, changed(train_episode_ids=[]), ("training_names_its_episodes", METADATA)),
    (METADATA, changed(val_episode_ids=[]), ("training_names_its_episodes", METADATA)),
    ("train/progress.jsonl", only_the_end, ("training_tells_of_its_steps", "train/progress.jsonl")),
    ("gate/gate.json", changed(gates=[]), ("gates_of_the_contract_were_asked", "gate/gate.json")),
    (EVALUATION, changed(split_digest=OTHER), ("evaluated_this_split", EVALUATION)),
    (EVALUATION, changed(dataset_digest=OTHER), ("evaluated_this_dataset", EVALUATION)),
    (EVALUATION, changed(contract_digest=OTHER), ("evaluated_under_its_contract", EVALUATION)),
    (
        "evaluate/contract.json",
        changed(training_objective="another"),
        ("evaluated_under_its_contract", EVALUATION),
    ),
    (
        EVALUATION,
        edited("headline", lambda numbers: {**numbers, "action_accuracy": 0.999}),
        ("headline_is_of_the_metrics", f"{EVALUATION}: action_accuracy"),
    ),
    (
        EVALUATION,
        edited("headline", lambda numbers: {**numbers, "made_up": 1.0}),
        ("headline_is_of_the_metrics", f"{EVALUATION}: made_up"),
    ),
    (
        EVALUATION,
        changed(num_test_episodes=1),
        ("counts_follow_from_the_split", f"{EVALUATION}: num_test_episodes"),
    ),
    (
        EVALUATION,
        changed(overlapping_episodes=["kitchen__ep1"]),
        ("counts_follow_from_the_split", f"{EVALUATION}: overlapping_episodes"),
    ),
    (
        "evaluate/run_facts.json",
        changed(evidence="held_out"),
        ("evidence_follows_from_the_facts", "evaluate/run_facts.json"),
    ),
    (
        "evaluate/RUN_REPORT.md",
        lambda path: path.write_text("#"),
        ("report_begins_with_its_class", "evaluate/RUN_REPORT.md"),
    ),
    (
        "evaluate/RUN_REPORT.md",
        without_first_line,
        ("report_begins_with_its_class", "evaluate/RUN_REPORT.md"),
    ),
]


@pytest.mark.parametrize(("name", "how", "broken_rule"), ALONE)
def test_a_change_that_only_another_file_contradicts_breaks_one_rule(change, refused, name, how, broken_rule):
    change(name, how)
    assert refused() == [broken_rule]


def test_a_leak_that_says_of_itself_that_it_does_not_block_is_one_if_the_guard_names_its_rule(
    change, refused, under_test
):
    first, second = under_test.json("guard", "leak_graph.json")["nodes"][:2]
    leak = {
        "rule": "motion_disjoint",
        "layer": "near_duplicate",
        "first": first["episode_id"],
        "first_split": first["split"],
        "second": second["episode_id"],
        "second_split": second["split"],
        "evidence": "the same motion",
        "blocks": False,
    }
    change("guard/leak_graph.json", changed(edges=[leak]))
    assert ("no_leak_between_splits", "guard/leak_graph.json") in refused()
    guard = tuple(each for each in under_test.contract.split_policy.leakage_guard if each != leak["rule"])
    policy = under_test.contract.split_policy.model_copy(update={"leakage_guard": guard})
    allowed = replace(under_test, contract=under_test.contract.model_copy(update={"split_policy": policy}))
    assert "no_leak_between_splits" not in {rule for rule, _ in pairs(judge(allowed, "eval"))}


def with_gate(contract: Contract, name: str) -> Contract:
    files = contract.artifact_contract.model_copy(update={"further_gates": (name,)})
    return contract.model_copy(update={"artifact_contract": files})


def test_a_gate_that_the_contract_names_and_nobody_asked_is_told(under_test):
    other = replace(under_test, contract=with_gate(under_test.contract, "depth_second_check"))
    [told] = broken(judge(other, "eval"))
    assert (told.rule, told.found) == ("gates_of_the_contract_were_asked", "['trivial_gate']")
    assert "depth_second_check" in told.expected


def claim(path: Path, evidence: str) -> None:
    changed(evidence=evidence)(path)


def test_held_out_over_generated_episodes_is_refused_also_when_every_report_says_so(change, refused):
    change(EVALUATION, lambda path: claim(path, "held_out"))
    change("evaluate/run_facts.json", lambda path: claim(path, "held_out"))
    told = dict(refused())
    assert set(told) == {"evidence_follows_from_the_facts", "report_begins_with_its_class"}


@pytest.fixture
def real(change) -> None:
    """As if nobody had generated the episodes."""
    for name in FLAGS_OF_GENERATED_DATA:
        change(name, changed(synthetic=False))
    change(
        "guard/episode_manifest.json",
        edited("episodes", lambda rows: [{**row, "synthetic": False} for row in rows]),
    )


@pytest.fixture
def claimed(change) -> Callable[[str, str], None]:
    """Write a class into every file that tells one."""

    def write(evidence: str, line: str) -> None:
        change(EVALUATION, lambda path: claim(path, evidence))
        change("evaluate/run_facts.json", lambda path: claim(path, evidence))
        change("evaluate/RUN_REPORT.md", lambda path: path.write_text(f"{line}\n\nand so on\n"))

    return write


ANSWERED = "{0} of {0} held-out samples in 2 of 2 held-out episodes"
HELD_OUT = f"HELD-OUT EVALUATION: {ANSWERED}, none of them seen in training."
SMOKE = f"SMOKE RUN ({ANSWERED}): these numbers say nothing about model quality."


def test_a_whole_evaluation_of_real_episodes_may_say_so_and_one_that_was_limited_may_not(
    change, refused, real, claimed, under_test
):
    count = under_test.json("evaluate", "metrics.json")["num_rows"]
    claimed("held_out", HELD_OUT.format(count))
    assert refused() == []
    change(EVALUATION, changed(limit=count))
    assert {rule for rule, _ in refused()} == {"evidence_follows_from_the_facts"}
    claimed("smoke", SMOKE.format(count))
    assert refused() == []


def test_an_evaluation_after_one_episode_taught_is_no_result_whatever_the_metadata_say(
    change, refused, real, claimed, under_test
):
    count = under_test.json("evaluate", "metrics.json")["num_rows"]
    claimed("held_out", HELD_OUT.format(count))
    first = under_test.rows("train", "training_ledger.jsonl")[0]["ids"][0]
    change("train/training_ledger.jsonl", lambda path: rewrite(path, lambda row: row.update(ids=[first])))
    told = {rule for rule, _ in refused()}
    assert told == {"ledger_is_the_one_of_the_training", "evidence_follows_from_the_facts"}


def test_where_the_ledger_is_withheld_less_may_be_claimed_than_the_other_facts_allow(
    refused, real, claimed, under_test
):
    claimed("smoke", SMOKE.format(under_test.json("evaluate", "metrics.json")["num_rows"]))
    assert {rule for rule, _ in refused()} == {"evidence_follows_from_the_facts"}
    folder = under_test.folders["train"]
    digests = {
        path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()
    }
    shown = {name: digest for name, digest in digests.items() if name != "training_ledger.jsonl"}
    stored = replace(under_test, logged={"train": LoggedFiles(shown=shown, outputs=digests)})
    assert pairs(judge(stored, "eval")) == []
