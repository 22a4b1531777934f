"""The validator names every required file and metric that is gone or damaged, all of them at once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context
from omni_mlflow.contract.file import load_contract
from omni_mlflow.registry import load_bound
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.stages.validate import LEVELS
from omni_mlflow.validation import Verdict, validate_workspace
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL, Place
from tests.judging import request_of

CONTRACT = load_contract(TRIVIAL / "trivial.yaml")
TRAINING_FILES = {
    "training_metadata.json": "trivial/train/training_metadata.json",
    "progress.jsonl": "trivial/train/progress.jsonl",
    "model.json": "trivial/train/checkpoint/model.json",
}
EVAL_FILES = {name: f"trivial/evaluate/{name}" for name in CONTRACT.artifact_contract.required_eval_files}
OTHER_FILES = (
    "split/split_manifest.json",
    "guard/episode_manifest.json",
    "guard/leak_graph.json",
    "trivial/export/dataset_manifest.json",
    "trivial/export/samples/test.jsonl",
    "trivial/train/training_ledger.jsonl",
    "trivial/train/checkpoint/fitted.json",
    "trivial/gate/gate.json",
    "trivial/evaluate/evaluation.json",
)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x04
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "flipped": flip,
}
METRIC_DAMAGES: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "removed": lambda metrics, name: metrics.pop(name),
    "NaN": lambda metrics, name: metrics.update({name: float("nan")}),
    "infinite": lambda metrics, name: metrics.update({name: float("inf")}),
    "a string": lambda metrics, name: metrics.update({name: str(metrics[name])}),
    "true": lambda metrics, name: metrics.update({name: True}),
    "null without a reason": lambda metrics, name: metrics.update({name: None}),
}


@pytest.fixture(scope="module")
def job(finished, tmp_path_factory) -> Place:
    """A finished job that every test of this module gives back as it was."""
    return finished.copy(tmp_path_factory.mktemp("validator"))


@pytest.fixture
def damage(job) -> Iterator[Callable[[str, Callable[[Path], Any]], None]]:
    """Damage a file of the job; it is restored afterwards."""
    kept: dict[Path, bytes] = {}

    def apply(name: str, change: Callable[[Path], Any]) -> None:
        path = job.workspace / name
        kept.setdefault(path, path.read_bytes())
        change(path)

    yield apply
    for path, content in kept.items():
        path.write_bytes(content)
    shutil.rmtree(job.workspace / "trivial/validate")


@pytest.fixture
def validate(job, monkeypatch):
    """Run the stage and return every rule that it wrote down."""
    monkeypatch.syspath_prepend(str(TRIVIAL))

    def run(require_stage: str = "eval") -> list[Check]:
        bound = load_bound(TRIVIAL / "trivial.yaml", profile=None, changes={})
        context = Context(
            workspace=Workspace(job.workspace),
            bound=bound,
            shared=bound.contract,
            options=Options(
                data_root=job.data_root, synthetic_root=job.data_root, require_stage=require_stage
            ),
            bar=TerminalBar(Console(quiet=True)),
            say=lambda _: None,
            suites=PROJECT / "expectations",
            source={},
        )
        folder = job.workspace / "trivial/validate"
        try:
            run_stage(STAGES["validate"], context)
        except RulesBrokenError as error:
            assert not (folder / "seal.json").exists()
            told = {(check.rule, check.subject) for check in error.failures}
            rules = read(folder)
            assert told == {(check.rule, check.subject) for check in broken(rules)}
            return rules
        return read(folder)

    def read(folder: Path) -> list[Check]:
        written = json.loads((folder / "validation.json").read_text())
        rules = [Check.model_validate(rule) for rule in written["rules"]]
        assert written["ok"] == (not broken(rules))
        return rules

    return run


def named(rules: list[Check]) -> set[str]:
    """What the broken rules name."""
    return {check.subject for check in broken(rules)}


def test_a_finished_job_breaks_no_rule(validate):
    rules = validate()
    assert broken(rules) == []
    assert {check.subject for check in rules} >= {*TRAINING_FILES, *EVAL_FILES, *CONTRACT.primary_metrics}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", [*TRAINING_FILES, *EVAL_FILES])
def test_every_damaged_required_file_is_named(validate, damage, name, how):
    path = {**TRAINING_FILES, **EVAL_FILES}[name]
    damage(path, DAMAGES[how])
    found = {(check.rule, check.subject): check.found for check in broken(validate())}
    assert ("sealed_file_is_unchanged", path) in found
    if how in ("deleted", "emptied"):
        kind = "required_training_file" if name in TRAINING_FILES else "required_eval_file"
        assert found[kind, name] == {"deleted": "missing", "emptied": "empty"}[how]


@pytest.mark.parametrize("how", ["deleted", "flipped"])
@pytest.mark.parametrize("name", OTHER_FILES)
def test_every_other_damaged_file_that_a_rule_reads_is_named(validate, damage, name, how):
    damage(name, DAMAGES[how])
    assert name in named(validate())


@pytest.mark.parametrize("how", METRIC_DAMAGES)
@pytest.mark.parametrize("name", CONTRACT.primary_metrics)
def test_every_damaged_metric_is_named(validate, damage, name, how):
    def change(path: Path) -> None:
        metrics = json.loads(path.read_text())
        METRIC_DAMAGES[how](metrics, name)
        path.write_text(json.dumps(metrics))

    damage("trivial/evaluate/metrics.json", change)
    [refused] = [check.subject for check in broken(validate()) if check.rule == "primary_metric"]
    assert refused == name


def test_a_metric_may_be_null_with_a_reason(validate, damage):
    def explain(path: Path) -> None:
        metrics = json.loads(path.read_text())
        metrics |= {"anchor_error": None, "more": {"reasons": {"anchor_error": "no answer was a number"}}}
        path.write_text(json.dumps(metrics))

    damage("trivial/evaluate/metrics.json", explain)
    rules = broken(validate())
    assert [check.rule for check in rules] == ["sealed_file_is_unchanged"]


def test_several_damages_are_named_at_once(validate, damage):
    damage("trivial/evaluate/predictions.jsonl", DAMAGES["deleted"])
    damage("trivial/evaluate/metrics.json", DAMAGES["emptied"])
    damage("trivial/train/progress.jsonl", DAMAGES["truncated"])
    damage("guard/leak_graph.json", DAMAGES["flipped"])
    refused = named(validate())
    assert refused >= {
        "trivial/evaluate/predictions.jsonl",
        "trivial/evaluate/metrics.json",
        "trivial/train/progress.jsonl",
        "guard/leak_graph.json",
        *CONTRACT.primary_metrics,
    }


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_asks_for_its_stages_and_those_before_and_no_more(validate, damage, level):
    levels = list(LEVELS)
    asked = {stage for name in levels[: levels.index(level) + 1] for stage in LEVELS[name]}
    for stage in ("guard", "trivial/export", "trivial/train", "trivial/evaluate"):
        damage(f"{stage}/seal.json", Path.unlink)
    unfinished = {check.subject for check in broken(validate(level)) if check.rule == "stage_is_finished"}
    assert {title.rpartition("/")[2] for title in unfinished} == asked & {
        "guard",
        "export",
        "train",
        "evaluate",
    }


def test_a_torn_seal_is_a_broken_rule(validate, damage):
    damage("trivial/evaluate/seal.json", DAMAGES["truncated"])
    assert ("stage_is_finished", "trivial/evaluate") in {
        (each.rule, each.subject) for each in broken(validate())
    }


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed(**values: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        (
            "trivial/evaluate/evaluation.json",
            changed(checkpoint_digest="0" * 64),
            "evaluated_this_checkpoint",
        ),
        ("trivial/evaluate/metrics.json", changed(held_out_episode_count=3), "held_out_episodes"),
        (
            "trivial/evaluate/predictions.jsonl",
            lambda path: rewrite(path, lambda row: row.update(split="train")),
            "predictions_are_held_out",
        ),
        (
            "trivial/evaluate/predictions.jsonl",
            lambda path: rewrite(path, lambda row: row.update(episode_id="garage__ep1")),
            "predicted_episodes_are_held_out",
        ),
        (
            "trivial/evaluate/predictions.jsonl",
            lambda path: path.write_text("".join(path.open().readlines()[1:])),
            "one_prediction_per_sample",
        ),
        ("trivial/train/training_metadata.json", changed(dataset_digest="0" * 64), "trained_on_this_dataset"),
        ("trivial/gate/gate.json", changed(ok=False), "gate_passed"),
        ("trivial/gate/gate.json", changed(rules=[]), "gate_passed"),
        ("trivial/export/dataset_manifest.json", changed(split_digest="0" * 64), "dataset_is_of_this_split"),
        ("split/split_manifest.json", changed(digest="0" * 64), "guarded_this_split"),
        (
            "guard/leak_graph.json",
            changed(edges=[{"blocks": True}]),
            "no_leak_between_splits",
        ),
        (
            "trivial/train/progress.jsonl",
            lambda path: path.write_text("".join(path.open().readlines()[:-1])),
            "training_is_complete",
        ),
    ],
)
def test_files_that_disagree_break_the_rule_that_compares_them(validate, damage, name, change, rule):
    damage(name, change)
    assert rule in {check.rule for check in broken(validate())}


def test_a_leak_rule_that_compared_no_pair_is_told_and_breaks_nothing(validate, damage, job):
    rules = job.json("guard/leak_graph.json")["rules"]
    blind = {"pairs": 0, "pairs_not_compared": 11}
    told = [{**rule, **blind} if rule["rule"] == "sound_disjoint" else rule for rule in rules]
    damage("guard/leak_graph.json", changed(rules=told))
    checks = validate("manifest")
    assert [check.rule for check in broken(checks)] == ["sealed_file_is_unchanged"]
    [judged] = [check for check in checks if check.rule == "no_leak_between_splits"]
    assert judged.found.startswith("0 leaks; ")
    assert judged.found.endswith("sound_disjoint compared 0 of 11 pairs")


def test_a_refused_validation_is_a_failed_run_beside_the_earlier_one_and_passes_once_the_files_are_back(
    place,
):
    metrics = place.workspace / "trivial/evaluate/metrics.json"
    sound = metrics.read_bytes()
    before = {path for path in place.workspace.rglob("*") if "validate" not in str(path)}
    metrics.write_text('{"action_accuracy": NaN}')
    (place.workspace / "trivial/train/progress.jsonl").rename(place.root / "progress.jsonl")
    refused = place.run("validate", "--json")
    assert refused.returncode == 1, refused.stderr
    told = json.loads(refused.stdout)
    subjects = {rule["subject"] for rule in told["backbones"][0]["rules"] if not rule["ok"]}
    assert not told["ok"]
    assert subjects >= {"progress.jsonl", "trivial/evaluate/metrics.json", *CONTRACT.primary_metrics}
    runs = {run.info.status: run for run in place.runs() if run.data.tags["omni.stage"] == "validate"}
    assert sorted(runs) == ["FAILED", "FINISHED"], "what was found now leaves the earlier verdict as it was"
    assert runs["FAILED"].data.tags["omni.outcome"] == "refused"
    reason = runs["FAILED"].data.tags["mlflow.note.content"]
    assert "primary_metric (action_accuracy): expected a number" in reason
    assert [path.name for path in place.artifacts(runs["FAILED"])] == ["validation.json"]
    (place.root / "progress.jsonl").rename(place.workspace / "trivial/train/progress.jsonl")
    metrics.write_bytes(sound)
    after = {path for path in place.workspace.rglob("*") if "validate" not in str(path)}
    made = {path for path in after - before if ".projected" not in path.parts}
    assert {path for path in made if path.suffix in (".tmp", ".json")} == set()
    again = place.run("validate")
    assert again.returncode == 0, again.stderr
    assert "trivial, up to eval: 0 of" in again.stdout


@pytest.mark.parametrize("closed", ["", "trivial/validate"])
def test_a_workspace_in_which_nothing_can_be_written_is_judged_and_left_as_it_is(place, closed, monkeypatch):
    """Such as a colleague's; root may write anywhere, so the look at the folder is answered for it."""
    folder = place.workspace / closed
    monkeypatch.setattr(
        "omni_mlflow.validation.trouble_with", lambda root: "Read-only" if root == folder else None
    )
    monkeypatch.syspath_prepend(str(TRIVIAL))

    def look() -> tuple[Verdict, dict[Path, int], list[str]]:
        told: list[str] = []
        request = request_of(place, workspace=place.workspace, data_root=place.data_root)
        [verdict] = validate_workspace(request, bar=TerminalBar(Console()), say=told.append)
        files = {path: path.lstat().st_mtime_ns for path in place.root.rglob("*")}
        return verdict, files, told

    first, files, told = look()
    assert (first.ok, first.run) == (True, None)
    assert told == [f"nothing can be written to {place.workspace}, so no run records this verdict"]
    (place.workspace / "trivial/evaluate/metrics.json").write_text("{}")
    files[place.workspace / "trivial/evaluate/metrics.json"] = 0
    second, after, _ = look()
    after[place.workspace / "trivial/evaluate/metrics.json"] = 0
    assert not second.ok
    assert after == files


@pytest.mark.parametrize("ledger", ["gone", "empty", "foreign", "damaged"])
def test_a_look_at_the_held_out_answers_that_no_ledger_holds_is_a_broken_rule(validate, damage, ledger):
    changes = {
        "gone": Path.unlink,
        "empty": lambda path: path.write_bytes(b""),
        "foreign": lambda path: path.write_text(
            re.sub('"checkpoint_digest":"..', '"checkpoint_digest":"__', path.read_text())
        ),
        "damaged": lambda path: path.write_text("{}\n"),
    }
    damage("seal_ledger.jsonl", changes[ledger])
    assert [check.rule for check in broken(validate())] == ["opening_is_recorded"]
    assert not broken(validate("training"))


def test_finished_validation_is_not_reused_once_the_seal_ledger_is_gone(place):
    ledger = place.workspace / "seal_ledger.jsonl"
    ledger.rename(place.root / ledger.name)
    refused = place.run("validate", "--json")
    assert refused.returncode == 1
    rules = json.loads(refused.stdout)["backbones"][0]["rules"]
    assert [rule["rule"] for rule in rules if not rule["ok"]] == ["opening_is_recorded"]
    (place.root / ledger.name).rename(ledger)
    again = place.run("validate")
    assert again.returncode == 0, again.stderr
