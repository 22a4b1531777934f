"""Answers of two evaluations that differ in any part never mix; those that differ in none are all reused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import omni_mlflow
from omni_mlflow.events import JOURNAL_NAME
from omni_mlflow.journal import Journal
from omni_mlflow.loaded_code import LOADED
from omni_mlflow.spine.rows import BadRowError
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import ground_for
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.answering import AnswerJournal, ForeignAnswersError
from omni_mlflow.stages.asked import questions
from omni_mlflow.stages.evaluation_identity import differing
from omni_mlflow.stages.seal_ledger import LostLedgerError, opening_is_recorded
from omni_mlflow.workspace import Seal
from tests.conftest import TRIVIAL
from tests.workbench import Workbench, contents, edited_backbone

PARTS = {"checkpoint", "dataset", "media", "frame_plan", "contract", "code", "limit"}


@pytest.fixture
def bench(monkeypatch, place) -> Workbench:
    monkeypatch.syspath_prepend(str(TRIVIAL))
    return Workbench(place, [])


def identity_of(bench, **given):
    context = bench.context(**given)
    stage = STAGES["evaluate"]
    inputs = {
        name: context.workspace.stage(name, backbone="trivial" if STAGES[name].per_backbone else None)
        for name in stage.inputs
    }
    return questions(ground_for(stage, context, inputs)).identity


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def change_checkpoint(bench):
    flip_a_bit(bench.backbone / "train/checkpoint/model.json")
    return identity_of(bench)


def change_dataset(bench):
    path = bench.backbone / "export/dataset_manifest.json"
    manifest = json.loads(path.read_text())
    last = manifest["digest"][-1]
    path.write_text(json.dumps({**manifest, "digest": manifest["digest"][:-1] + "01"[last == "0"]}))
    reseal(bench.backbone / "export", "dataset_manifest.json")
    return identity_of(bench)


def change_media(bench):
    index = bench.place.workspace / "index"
    video = sorted((index / "episodes/test").rglob("*.mp4"))[0]
    flip_a_bit(video)
    reseal(index, video.relative_to(index).as_posix())
    return identity_of(bench)


def reseal(folder, name):
    from omni_mlflow.spine.rows import file_digest

    seal = json.loads((folder / "seal.json").read_text())
    seal["outputs"][name] = file_digest(folder / name)
    Seal.model_validate(seal)
    (folder / "seal.json").write_text(json.dumps(seal))


def change_frame_plan(bench):
    return identity_of(bench, changes={"windows.context_frames": 9})


def change_contract(bench):
    return identity_of(bench, changes={"split_policy.seed": 109})


def change_code(bench):
    """What the model says, spelled otherwise."""
    with edited_backbone(bench.place.root, '"action": None if silent', '"action": "none" if silent'):
        return identity_of(bench)


def change_limit(bench):
    return identity_of(bench, limit=5)


CHANGES = {
    "checkpoint": change_checkpoint,
    "dataset": change_dataset,
    "media": change_media,
    "frame_plan": change_frame_plan,
    "contract": change_contract,
    "code": change_code,
    "limit": change_limit,
}


@pytest.mark.parametrize("part", CHANGES)
def test_the_least_change_of_a_part_is_another_evaluation_and_the_part_is_named(bench, part):
    before = identity_of(bench)
    after = CHANGES[part](bench)
    assert set(before) == PARTS
    assert differing(before, after) == [part]
    path = bench.place.root / "partial.jsonl"
    with Journal(path) as rows:
        AnswerJournal(rows, before, batch_size=lambda: 1)
    with Journal(path) as rows, pytest.raises(ForeignAnswersError, match=rf"\(different: {part}\)"):
        AnswerJournal(rows, after, batch_size=lambda: 1)


@pytest.mark.parametrize("head", [{}, {"identity": {}}, {"identity": {}, "batch_size": 0}])
def test_a_journal_that_no_evaluation_began_is_refused_by_its_first_line(tmp_path, head):
    path = tmp_path / "evaluate/predictions.partial.jsonl"
    with Journal(path) as rows:
        rows.append(head)
    with (
        Journal(path) as rows,
        pytest.raises(BadRowError, match=r"jsonl:1: no evaluation begins its journal"),
    ):
        AnswerJournal(rows, {}, batch_size=lambda: 1)


def test_another_scoring_asks_nobody_again(bench):
    before = identity_of(bench)
    with edited_backbone(bench.place.root, "1.0 / step", "2.0 / step"):
        assert identity_of(bench) == before, "nor does another training: its checkpoint speaks for it"
    with edited_backbone(bench.place.root, "int(predicted == target", "int(predicted != target"):
        assert identity_of(bench) == before


@pytest.mark.parametrize(
    ("module", "is_part"),
    [
        ("stages/asking.py", True),
        ("backbones/base.py", True),
        ("stages/answering.py", False),
        ("stages/finalising.py", False),
        ("metrics/label_ledger.py", False),
        ("reporting/run_report.py", False),
    ],
)
def test_what_decides_between_an_answer_and_none_is_code_and_what_is_done_with_answers_is_not(
    bench, monkeypatch, module, is_part
):
    before = identity_of(bench)
    file = Path(omni_mlflow.__file__).parent / module
    source = LOADED.source
    monkeypatch.setattr(
        LOADED, "source", lambda each: source(each) + (b"\n_EDITED = 1\n" if each == file else b"")
    )
    assert differing(before, identity_of(bench)) == (["code"] if is_part else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation.max_retries": 5},
        {"evaluation.max_infrastructure_failed_share": 0.1},
        {"primary_metrics": ["action_accuracy", "held_out_episode_count"]},
    ],
)
def test_what_is_decided_about_given_answers_makes_no_other_evaluation(bench, changes):
    assert identity_of(bench, changes=changes) == identity_of(bench)


def test_an_unchanged_rerun_reuses_everything(bench):
    before = contents(bench.evaluation)
    assert bench.run("evaluate").reused
    assert contents(bench.evaluation) == before


def test_an_evaluation_with_another_bound_asks_nobody_again(bench, monkeypatch):
    from omni_trivial import Predictor

    def asked(*_):
        raise AssertionError("a sample was asked again")

    monkeypatch.setattr(Predictor, "answer", asked)
    before = (bench.evaluation / "predictions.jsonl").read_bytes()
    again = bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.5})
    assert not again.reused
    assert (bench.evaluation / "predictions.jsonl").read_bytes() == before


def test_scoring_finished_answers_again_is_a_look_of_its_own_at_the_truths(bench):
    [first] = bench.openings()
    bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.1})
    with edited_backbone(bench.place.root, "int(predicted == target", "int(predicted != target"):
        bench.run("evaluate")
    looks = bench.openings()
    assert len({each["look"] for each in looks}) == len(looks) == 3
    assert {each["evaluation"] for each in looks} == {first["evaluation"]}
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert "| Held-out targets opened | 3 times in this workspace, this one included |" in report


def test_other_answers_in_the_folder_of_a_killed_evaluation_are_another_look_at_the_truths(bench):
    seal = bench.evaluation / "seal.json"
    seal.unlink()
    bench.run("evaluate")
    assert len(bench.openings()) == 1, "it was killed, and goes on"
    seal.unlink()
    journal = bench.evaluation / "predictions.partial.jsonl"
    head, *rows = map(json.loads, journal.read_text().splitlines())
    rows[0]["raw"] = rows[-1]["raw"]
    journal.write_text("".join(f"{json.dumps(row)}\n" for row in (head, *rows)))
    bench.run("evaluate")
    one, other = bench.openings()
    assert one["look"] == other["look"]
    assert one["answers"] != other["answers"]
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert "| Held-out targets opened | 2 times in this workspace, this one included |" in report


def test_another_train_or_val_makes_no_test_episode_unseen_again(bench):
    [look] = bench.openings()
    then = {**look, "split_digest": "0" * 64, "look": "with another train split"}
    shared = {**then, "test_episodes": [look["test_episodes"][0], "attic__ep1"], "look": "one in common"}
    elsewhere = {**then, "test_episodes": ["attic__ep1"], "look": "at other episodes"}
    rows = (look, then, shared, elsewhere)
    (bench.place.workspace / "seal_ledger.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.1})
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert "| Held-out targets opened | 4 times in this workspace, this one included |" in report


@pytest.mark.parametrize("looked", ["this backbone", "another backbone"])
def test_nobody_looks_again_while_the_ledger_of_earlier_looks_is_gone(bench, looked):
    ledger = bench.place.workspace / "seal_ledger.jsonl"
    kept = ledger.read_text()
    ledger.unlink()
    if looked == "another backbone":
        (bench.place.workspace / "another").mkdir()
        bench.evaluation.rename(bench.place.workspace / "another/evaluate")
    again = {"changes": {"evaluation.max_infrastructure_failed_share": 0.1}}
    with pytest.raises(LostLedgerError, match=r"evaluation\.json rests on a look at held-out targets"):
        bench.run("evaluate", **again)
    assert bench.openings() == []
    ledger.write_text(kept)
    bench.run("evaluate", **again)
    assert len(bench.openings()) == 2


def test_a_ledger_that_lost_the_earlier_looks_bears_out_no_evaluation_that_counted_them(bench):
    bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.1})
    told = json.loads((bench.evaluation / "evaluation.json").read_text())
    workspace, ledger = bench.context().workspace, bench.place.workspace / "seal_ledger.jsonl"
    assert told["seal_openings"] == 2
    assert opening_is_recorded(workspace, told).ok
    *earlier, last = ledger.read_text().splitlines(keepends=True)
    assert len(earlier) == 1
    ledger.write_text(last)
    assert not opening_is_recorded(workspace, told).ok
    ledger.write_text("".join([*earlier, last, last.replace('"look":"', '"look":"a')]))
    assert opening_is_recorded(workspace, told).ok, "looks that came later are none that it counted"


def test_a_page_repeats_no_evaluation_whose_look_at_the_truths_is_in_no_ledger(bench):
    assert bench.run("report").reused
    (bench.place.workspace / "seal_ledger.jsonl").unlink()
    with pytest.raises(RulesBrokenError, match="opening_is_recorded"):
        bench.run("report")


def test_taking_a_finished_evaluation_back_opens_nothing(bench):
    before = contents(bench.evaluation)
    bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.1})
    assert bench.run("evaluate").reused
    assert contents(bench.evaluation) == before
    assert len(bench.openings()) == 2


def test_only_the_evaluation_that_goes_on_has_the_look_of_a_killed_one(bench):
    (bench.evaluation / "seal.json").unlink()
    os.truncate(bench.evaluation / JOURNAL_NAME, 0)  # the disk lost whose work it is
    bench.run("evaluate")
    assert len(bench.openings()) == 1
    shutil.rmtree(bench.evaluation)
    bench.run("evaluate")
    assert len(bench.openings()) == 2
