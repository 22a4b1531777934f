"""What a run may claim follows from facts, and nobody who tells or hands on a result may claim more."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.command import facts_of, line_of
from omni_mlflow.contract.file import load_contract
from omni_mlflow.events import JOURNAL_NAME, ModelVersion, read_events
from omni_mlflow.record import RunRecord
from omni_mlflow.registry import load_bound
from omni_mlflow.spine.evidence import Evidence, EvidenceFacts, evidence_of, shortcomings_of
from omni_mlflow.spine.rows import file_digest, write_document, write_rows
from omni_mlflow.stage_run import Finished
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options, Report, Run
from omni_mlflow.stages.evaluation_facts import EvaluationFacts
from omni_mlflow.stages.finalising import evaluation_tags, without_unfounded_verdicts
from omni_mlflow.workspace import Seal, Workspace
from tests.conftest import PROJECT, TRIVIAL

COUNTS = st.integers(min_value=0, max_value=4)
FACTS = st.builds(
    EvidenceFacts,
    synthetic=st.booleans(),
    guarded=st.booleans(),
    limit=st.none() | COUNTS,
    num_train_episodes=COUNTS,
    num_test_episodes=COUNTS,
    num_evaluated_episodes=COUNTS,
    num_test_samples=COUNTS,
    num_evaluated_samples=COUNTS,
    episodes_in_training=st.lists(st.sampled_from(["kitchen__ep1", "garage__ep1"]), max_size=2).map(tuple),
    overlapping_episodes=st.lists(st.sampled_from(["kitchen__ep1", "garage__ep1"]), max_size=1).map(tuple),
    seal_recorded=st.booleans(),
)
SOUND = EvidenceFacts(
    synthetic=False,
    guarded=True,
    limit=None,
    num_train_episodes=2,
    num_test_episodes=2,
    num_evaluated_episodes=2,
    num_test_samples=4,
    num_evaluated_samples=4,
    episodes_in_training=(),
    seal_recorded=True,
)
SPOILING: dict[str, dict[str, Any]] = {
    "a test episode that is also in another split": {"overlapping_episodes": ("kitchen__ep1",)},
    "generated episodes": {"synthetic": True},
    "an unguarded split": {"guarded": False},
    "a limit that leaves samples out": {"limit": 3, "num_evaluated_samples": 3},
    "a limit that leaves none out": {"limit": 4},
    "an episode answered in part": {"num_evaluated_samples": 3},
    "an episode not asked about": {"num_evaluated_episodes": 1},
    "one episode to learn from": {"num_train_episodes": 1},
    "one held-out episode": {"num_test_episodes": 1, "num_evaluated_episodes": 1},
    "no held-out sample": {"num_test_samples": 0, "num_evaluated_samples": 0},
    "a test episode in training": {"episodes_in_training": ("kitchen__ep1",)},
    "no row in the seal ledger": {"seal_recorded": False},
}


def test_a_whole_evaluation_of_a_guarded_real_split_is_held_out():
    assert evidence_of(SOUND) is Evidence.HELD_OUT


@given(spoiled=st.lists(st.sampled_from(sorted(SPOILING)), min_size=1, unique=True))
def test_no_combination_of_shortcuts_is_held_out(spoiled):
    changes: dict[str, Any] = {}
    for each in spoiled:
        changes |= SPOILING[each]
    found = evidence_of(SOUND.model_copy(update=changes))
    assert found is (Evidence.SYNTHETIC if "generated episodes" in spoiled else Evidence.SMOKE)


@pytest.mark.parametrize("spoiled", sorted(SPOILING))
def test_what_spoils_an_evaluation_is_told(spoiled):
    """The class of generated episodes is told by its own line; everything else has its reason."""
    told = {
        "a test episode that is also in another split": "held-out episodes that share a recording with",
        "an unguarded split": "the guard did not pass this split",
        "a limit that leaves samples out": "it was told to stop after 3 samples; 3 of 4 held-out samples",
        "a limit that leaves none out": "it was told to stop after 4 samples",
        "an episode answered in part": "3 of 4 held-out samples were answered",
        "an episode not asked about": "1 of 2 held-out episodes were answered",
        "one episode to learn from": "the model learned from one episode",
        "one held-out episode": "the split holds out one episode",
        "no held-out sample": "0 of 0 held-out samples were answered",
        "a test episode in training": "held-out episodes that were trained on: 1",
        "no row in the seal ledger": "no look at the held-out truths is recorded",
    }
    found = "; ".join(shortcomings_of(SOUND.model_copy(update=SPOILING[spoiled])))
    assert found.startswith(told.get(spoiled, "")), found
    assert bool(found) is (spoiled != "generated episodes")


@given(facts=FACTS)
def test_held_out_is_claimed_only_where_everything_was_asked_and_nothing_was_known(facts):
    if evidence_of(facts) is Evidence.HELD_OUT:
        assert (facts.synthetic, facts.guarded, facts.limit, facts.seal_recorded) == (False, True, None, True)
        assert facts.num_evaluated_samples == facts.num_test_samples > 0
        assert facts.num_evaluated_episodes == facts.num_test_episodes > 1
        assert facts.num_train_episodes > 1
        assert facts.episodes_in_training == ()
    else:
        assert (evidence_of(facts) is Evidence.SYNTHETIC) == facts.synthetic


@pytest.fixture
def hand_on(place, tmp_path, monkeypatch):
    """Let a stage work on the finished job as if its evaluation were of another class."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bound = load_bound(TRIVIAL / "trivial.yaml", profile=None, changes={})
    workspace = Workspace(place.workspace)

    def run(name: str, evidence: Evidence, **facts: Any) -> tuple[Report, Run]:
        evaluate = workspace.stage("evaluate", backbone="trivial")
        path = evaluate.path / "evaluation.json"
        write_document(path, json.loads(path.read_text()) | {"evidence": evidence.value, **facts})
        seal = evaluate.seal()
        evaluate.close(seal.model_copy(update={"outputs": {**seal.outputs, path.name: file_digest(path)}}))
        stage = STAGES[name]
        record = RunRecord(tmp_path / name)
        record.started(name, parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
        at_work = Run(
            stage=name,
            fingerprint="",
            folder=tmp_path / name,
            workspace=workspace,
            contract=bound.contract,
            backbone=bound.backbone,
            settings=bound.settings,
            options=Options(data_root=place.data_root, synthetic_root=place.data_root),
            record=record,
            bar=None,
            say=lambda line: None,
            inputs={
                each: workspace.stage(each, backbone="trivial" if STAGES[each].per_backbone else None)
                for each in stage.inputs
            },
            readable=stage.inputs,
            suites=PROJECT / "expectations",
        )
        report = stage.run(at_work)
        record.close()
        return report, at_work

    return run


@pytest.mark.parametrize("evidence", Evidence)
def test_only_held_out_evidence_has_verdicts_in_its_metrics_and_tags(finished, evidence):
    contract = load_contract(TRIVIAL / "trivial.yaml")
    scored = finished.json("trivial/evaluate/metrics.json")
    scored["verdicts"]["action"]["verdict"] = "beats_floor"
    facts = EvaluationFacts.model_validate(
        finished.json("trivial/evaluate/evaluation.json") | {"evidence": evidence.value}
    )
    metrics = without_unfounded_verdicts(scored, evidence)
    tags = evaluation_tags(contract, facts, metrics)
    told = {name: tag for name, tag in tags.items() if name.startswith("omni.verdict")}
    assert tags["omni.evidence"] == evidence
    if evidence is Evidence.HELD_OUT:
        assert told == {"omni.verdict": "beats_floor", "omni.verdict.action": "beats_floor"}
        assert metrics == scored
    else:
        assert told == {}
        assert {each["verdict"] for each in metrics["verdicts"].values()} == {None}
        reason = f"the evaluation is {evidence}, and only held_out evidence is judged"
        assert metrics["more"]["reasons"]["verdicts"] == reason
        assert metrics["action_accuracy"] == scored["action_accuracy"]


def test_a_synthetic_job_leaves_numbers_and_no_verdict_in_its_metrics_and_tags(finished):
    metrics = finished.json("trivial/evaluate/metrics.json")
    assert {each["verdict"] for each in metrics["verdicts"].values()} == {None}
    assert "the evaluation is synthetic" in metrics["more"]["reasons"]["verdicts"]
    assert 0 <= metrics["action_accuracy"] <= 1
    [tags] = [run.data.tags for run in finished.runs() if run.data.tags["omni.stage"] == "evaluate"]
    assert tags["omni.evidence"] == "synthetic"
    assert not [name for name in tags if name.startswith("omni.verdict")]


def versions(run: Run) -> list[ModelVersion]:
    return [event for event in read_events(run.folder / JOURNAL_NAME) if isinstance(event, ModelVersion)]


def test_held_out_evidence_gets_the_alias_validated(hand_on):
    [version] = versions(hand_on("register", Evidence.HELD_OUT)[1])
    assert version.alias == "validated"
    assert "Synthetic" not in version.description


def test_a_synthetic_version_says_so_in_its_alias_and_first_in_its_description(hand_on):
    [version] = versions(hand_on("register", Evidence.SYNTHETIC)[1])
    assert version.alias == "validated-synthetic"
    assert version.description.startswith("Synthetic episodes: no statement about real quality.")


def test_a_smoke_run_registers_no_version(hand_on):
    report, run = hand_on("register", Evidence.SMOKE)
    assert versions(run) == []
    assert "nothing registered: the evaluation is smoke" in report.skipped[0].reason


def test_a_part_of_a_held_out_evaluation_registers_no_version(hand_on):
    _, run = hand_on("register", Evidence.HELD_OUT, num_evaluated_samples=1)
    assert versions(run) == []


def test_a_smoke_run_is_not_published(hand_on):
    report, run = hand_on("publish", Evidence.SMOKE)
    assert not (run.folder / "package").exists()
    assert list(report.outputs) == []
    assert report.skipped[0].reason.startswith("nothing published: ")


@pytest.mark.parametrize(("name", "nothing"), [("register", "registered"), ("publish", "published")])
def test_a_smoke_run_says_at_the_terminal_that_nothing_came_of_it_and_why(hand_on, name, nothing):
    report, run = hand_on(name, Evidence.SMOKE)
    rows = f"skipped_{STAGES[name].rows}.jsonl"
    write_rows(run.folder / rows, report.skipped)
    seal = Seal(
        stage=name,
        backbone="trivial",
        fingerprint="",
        inputs={},
        outputs={rows: file_digest(run.folder / rows)},
        taken=report.taken,
        made=report.made,
        skipped=len(report.skipped),
    )
    facts = facts_of(Finished(name, "key", run.folder, seal, reused=False), run.folder.parent)
    assert facts["rows"] == {"taken": 1, "made": 0, "skipped": 1}
    assert facts["note"] == report.skipped[0].reason
    assert line_of(facts).endswith(facts["note"])
    assert facts["note"].startswith(f"nothing {nothing}: ")


def test_a_package_says_at_the_terminal_how_many_files_it_holds_and_how_many_it_leaves_out(finished):
    folder = Workspace(finished.workspace).stage("publish", backbone="trivial")
    seal = folder.seal()
    facts = facts_of(Finished("publish", "key", folder.path, seal, reused=True), finished.workspace)
    held = int(seal.metrics["rows/files_published"])
    left = len((folder.path / "skipped_files.jsonl").read_text().splitlines())
    assert min(held, left) > 0
    said = f"{held} of {held + left} files, {left} left out: skipped_files.jsonl"
    assert facts["note"] == said
    assert line_of(facts).endswith(f"; {said}")


def test_a_synthetic_package_and_both_reports_say_so_on_their_first_line(finished):
    said = "SYNTHETIC DATA: these numbers say nothing about model quality on real episodes."
    facts = finished.json("trivial/publish/package/package.json")["facts"]
    assert (facts["evidence"], facts["statement"]) == ("synthetic", said)
    package = finished.workspace / "trivial/publish/package"
    assert (package / "evaluate/RUN_REPORT.md").read_text().splitlines()[0] == said
    page = (finished.workspace / "trivial/report/report.html").read_text()
    body = re.sub(r"<[^>]+>", "", page[page.index("<body") :]).strip()
    assert body.startswith(said)


@pytest.mark.parametrize("name", ["register", "publish"])
def test_an_evaluation_whose_look_at_the_answers_is_in_no_ledger_goes_no_further(hand_on, place, name):
    (place.workspace / "seal_ledger.jsonl").unlink()
    report, run = hand_on(name, Evidence.HELD_OUT)
    assert [check.rule for check in report.failures] == ["opening_is_recorded"]
    assert versions(run) == []
    assert not (run.folder / "package").exists()


def test_whoever_lets_a_copy_into_the_test_split_has_no_result():
    """As the guard's own graph tells it, whatever rules the contract lets stop the pipeline."""
    from omni_mlflow.spine.leak_graph import Leak, LeakGraph
    from omni_mlflow.spine.types import Split

    def leak(rule, second_split):
        return Leak(
            rule=rule,
            layer="near_duplicate",
            first="kitchen__ep1",
            first_split=Split.TRAIN,
            second="garage__ep1",
            second_split=second_split,
            evidence="the same sound",
            blocks=False,
        )

    def shared(*edges):
        return LeakGraph(nodes=(), edges=edges, rules=()).sharing_with(Split.TEST)

    assert shared(leak("sound_disjoint", Split.TEST)) == ("garage__ep1",)
    assert shared(leak("content_disjoint", Split.VAL)) == ()
    assert shared(leak("pictures_disjoint", Split.TEST), leak("captions_disjoint", Split.TEST)) == ()
