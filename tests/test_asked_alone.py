"""A few samples that were answered in batches are asked again alone; who says something else is named."""

from __future__ import annotations

import json

import pytest

from omni_mlflow.spine.types import Answer, Outcome
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stages.asking import NUM_ALONE
from omni_mlflow.stages.same_answers import answered_otherwise
from tests.conftest import TRIVIAL
from tests.workbench import Workbench, contents


@pytest.fixture
def bench(monkeypatch, place) -> Workbench:
    """A trained and gated checkpoint that nobody has asked anything yet."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bench = Workbench(place, [])
    bench.forget_evaluation()
    return bench


@pytest.fixture
def hangs_on_its_batch(bench, monkeypatch):
    """The model answers every third sample otherwise when it is asked alone."""
    from omni_trivial import Predictor

    answer = Predictor.answer

    def answered(predictor, samples):
        given = answer(predictor, samples)
        if len(samples) == 1 and samples[0].id in ids_of(bench)[::3] and samples[0].inputs:
            return [given[0].model_copy(update={"raw": json.dumps({"action": "something else"})})]
        return given

    monkeypatch.setattr(Predictor, "answer", answered)


def ids_of(bench):
    return [json.loads(line)["id"] for line in (bench.backbone / "export/samples/test.jsonl").open()]


def rows_of(folder):
    head, *rows = map(json.loads, (folder / "predictions.partial.jsonl").read_text().splitlines())
    return head, rows


def asked_alone(bench):
    return [row["id"] for row in rows_of(bench.evaluation)[1] if row["pass"] == "alone"]


def test_those_that_answer_otherwise_alone_are_named(bench, hangs_on_its_batch):
    bench.run("evaluate")
    drawn = asked_alone(bench)
    different = [each for each in drawn if each in ids_of(bench)[::3]]
    assert len(drawn) == min(NUM_ALONE, len(ids_of(bench)))
    assert 0 < len(different) < len(drawn)
    told = json.loads((bench.evaluation / "metrics.json").read_text())["asked_alone"]
    assert told == {"batch_size": 8, "asked": len(drawn), "different": different}
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert (
        f"Samples were asked in batches of up to 8. {len(different)} of {len(drawn)} that were asked "
        "again alone answered differently: "
    ) in report


def test_shards_share_the_draw_and_a_merge_tells_the_same(bench, hangs_on_its_batch):
    bench.run("evaluate")
    undisturbed, drawn = contents(bench.evaluation), asked_alone(bench)
    bench.forget_evaluation()
    shards = [bench.shard(offset, 3) for offset in range(3)]
    said = [{row["id"] for row in rows_of(folder)[1] if row["pass"] == "alone"} for folder in shards]
    assert sorted(each for ids in said for each in ids) == sorted(drawn)
    bench.run("merge")
    told = {
        name: json.loads(found["metrics.json"])["asked_alone"]
        for name, found in (("one", undisturbed), ("merged", contents(bench.evaluation)))
    }
    assert told["one"] == told["merged"]


def test_a_shard_that_did_not_ask_alone_is_not_merged(bench):
    folders = [bench.shard(offset, 2) for offset in range(2)]
    head, rows = rows_of(folders[0])
    lost = [row["id"] for row in rows if row["pass"] == "alone"][-1]
    (folders[0] / "seal.json").unlink()
    kept = [row for row in rows if (row["pass"], row["id"]) != ("alone", lost)]
    text = "".join(f"{json.dumps(row)}\n" for row in (head, *kept))
    (folders[0] / "predictions.partial.jsonl").write_text(text)
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("merge")
    assert [(each.rule, each.subject) for each in refused.value.failures] == [
        ("every_sample_is_answered", f"alone {lost}")
    ]


def test_who_was_asked_alone_at_first_is_not_asked_again(bench, monkeypatch):
    from omni_trivial import Predictor

    monkeypatch.setattr(Predictor, "batch_size", 1)
    bench.run("evaluate")
    assert asked_alone(bench) == []
    told = json.loads((bench.evaluation / "metrics.json").read_text())["asked_alone"]
    assert told == {"batch_size": 1, "asked": 0, "different": []}
    assert "asked again alone" not in (bench.evaluation / "RUN_REPORT.md").read_text()


def said(raw="", **values):
    return Answer(id="a", episode_id="e", anchor=9, outcome=Outcome.ANSWERED, raw=raw, values=values)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (said(depth_m=0.3), said(depth_m=0.3 + 6e-17), True),
        (said(depth_m=0.3), said(depth_m=0.3001), False),
        (said(hand_m=[[0.0, 0.5]]), said(hand_m=[[3.5e-18, 0.5]]), True),
        (said(hand_m=[[0.0, 0.5]]), said(hand_m=[[0.001, 0.5]]), False),
        (said(hand_m=[[0.0, 0.5]]), said(hand_m=[0.0, 0.5]), False),
        (said(hand_m=[float("nan"), 1.0]), said(hand_m=[float("nan"), 1.0]), True),
        (said(hand_m=[float("nan"), 1.0]), said(hand_m=[0.0, 1.0]), False),
        (said(hand_m=[float("inf"), 1.0]), said(hand_m=[float("inf"), 1.1]), False),
        (said(hand_m=[0.3, None]), said(hand_m=[0.3 + 6e-17, None]), True),
        (said(hands=[{"x": 0.3}]), said(hands=[{"x": 0.3 + 6e-17}]), True),
        (said(token=151_643), said(token=151_644), False),
        (said(hand={"left": [0.1]}), said(hand={"left": [0.1 + 1e-17]}), True),
        (said(hand={"left": [0.1]}), said(hand={"right": [0.1]}), False),
        (said(label="cut"), said(label="stir"), False),
        (said(raw='{"x": 0.1}'), said(raw='{"x": 0.10000000000000002}'), False),
    ],
)
def test_numbers_are_the_same_to_five_digits_and_texts_exactly(one, other, same):
    assert answered_otherwise([(one, other)]) == ([] if same else ["a"])


def test_a_number_that_is_near_zero_by_chance_is_held_against_those_of_all_samples():
    near = (said(depth_m=1e-9), said(depth_m=2e-9))
    assert answered_otherwise([near]) == ["a"]
    assert answered_otherwise([near, (said(depth_m=0.3), said(depth_m=0.3))]) == []
    assert answered_otherwise([near, (said(height_m=0.3), said(height_m=0.3))]) == ["a"]


def test_the_last_bit_of_a_number_names_nobody(bench, monkeypatch):
    from omni_trivial import Predictor

    answer = Predictor.answer

    def answered(predictor, samples):
        last_bit = 2**-54 if len(samples) == 1 else 0.0
        return [
            each.model_copy(update={"values": {**each.values, "depth_m": 0.3 + last_bit}})
            for each in answer(predictor, samples)
        ]

    monkeypatch.setattr(Predictor, "answer", answered)
    bench.run("evaluate")
    told = json.loads((bench.evaluation / "metrics.json").read_text())["asked_alone"]
    assert told["asked"] > 0
    assert told["different"] == []
