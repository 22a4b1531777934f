"""Every held-out sample is answered, invalid, or was not to be asked: none is scored as wrong in silence."""

from __future__ import annotations

import json
import shutil

import pytest

from omni_mlflow.spine.types import Answer, Outcome, Sample, Span, Split
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stages.asking import WrongAnswersError, ask
from omni_mlflow.stages.base import Shard
from tests.conftest import TRIVIAL
from tests.workbench import Workbench, answers_of


def sample(number: int) -> Sample:
    return Sample(
        id=f"kitchen__ep1:20:{number}",
        episode_id="kitchen__ep1",
        split=Split.TEST,
        anchor=number + 20,
        observed=Span(start=number, stop=number + 20),
        inputs={},
    )


class OutOfMemory:
    """Cannot take more than ``room`` samples at once, and fails each of ``hard`` so many times."""

    batch_size = 4

    def __init__(self, *, room: int = 4, hard: dict[str, int] | None = None, says: str = "yes") -> None:
        self.room, self.hard, self.says = room, dict(hard or {}), says
        self.batches: list[int] = []

    def answer(self, samples):
        self.batches.append(len(samples))
        if len(samples) > self.room:
            raise RuntimeError("CUDA out of memory")
        for each in samples:
            if len(samples) == 1 and self.hard.get(each.id, 0) > 0:
                self.hard[each.id] -= 1
                raise OSError(f"{each.id}.mp4 cannot be read")
            if len(samples) > 1 and self.hard.get(each.id, 0) > 0:
                raise OSError("one of them cannot be read")
        return [
            Answer(
                id=each.id,
                episode_id=each.episode_id,
                anchor=each.anchor,
                outcome=Outcome.ANSWERED,
                raw=self.says,
            )
            for each in samples
        ]


def test_a_batch_that_does_not_fit_is_asked_one_by_one():
    predictor = OutOfMemory(room=1)
    answers = ask(predictor, [sample(number) for number in range(4)])
    assert predictor.batches == [4, 1, 1, 1, 1]
    assert {each.outcome for each in answers} == {Outcome.ANSWERED}


def test_only_the_sample_that_cannot_be_asked_is_failed_and_its_reason_is_kept():
    samples = [sample(number) for number in range(3)]
    answers = ask(OutOfMemory(hard={samples[1].id: 9}), samples)
    assert [each.outcome for each in answers] == [
        Outcome.ANSWERED,
        Outcome.INFRASTRUCTURE_FAILED,
        Outcome.ANSWERED,
    ]
    assert [each.reason for each in answers] == [
        None,
        "OSError: kitchen__ep1:20:1.mp4 cannot be read",
        None,
    ]


@pytest.mark.parametrize(("failures", "outcome"), [(2, "answered"), (3, "infrastructure_failed")])
def test_a_failed_sample_is_asked_again_as_often_as_the_contract_says(tmp_path, failures, outcome):
    samples = [sample(number) for number in range(5)]
    predictor = OutOfMemory(hard={samples[3].id: failures})
    answers = answers_of(predictor, samples, tmp_path / "partial.jsonl", max_retries=2)
    assert answers[3].outcome == outcome
    assert [each.outcome for each in answers if each.id != samples[3].id] == [Outcome.ANSWERED] * 4
    rows = [json.loads(line) for line in (tmp_path / "partial.jsonl").open()][1:]
    assert sum(row["id"] == samples[3].id for row in rows) == 3


@pytest.mark.parametrize("says", ["", " \n"])
def test_an_empty_answer_is_invalid(says):
    [given] = ask(OutOfMemory(says=says), [sample(0)])
    assert (given.outcome, given.raw) == (Outcome.MODEL_INVALID, says)


@pytest.mark.parametrize(
    "confused",
    [
        lambda answers: answers[::-1],
        lambda answers: answers[:1],
        lambda answers: [*answers, answers[0]],
        lambda _: None,
        lambda answers: [each.raw for each in answers],
    ],
    ids=["in another order", "too few", "too many", "nothing", "no answers"],
)
def test_what_is_no_answer_to_each_sample_is_a_defect_of_the_backbone_and_no_failure(confused):
    class Confused(OutOfMemory):
        def answer(self, samples):
            return confused(super().answer(samples))

    with pytest.raises(WrongAnswersError, match="it must return one Answer for each sample, in order"):
        ask(Confused(), [sample(0), sample(1)])


@pytest.fixture
def bench(monkeypatch, place) -> Workbench:
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bench = Workbench(place, [])
    bench.forget_evaluation()
    return bench


@pytest.fixture
def lost(bench, monkeypatch) -> list[str]:
    """Ids of two held-out samples whose media this machine cannot read; clear it to mend the disk."""
    from omni_trivial import Predictor

    ids = [json.loads(line)["id"] for line in (bench.backbone / "export/samples/test.jsonl").open()]
    lost = [ids[2], ids[5]]
    answer = Predictor.answer

    def broken(predictor, samples):
        if any(each.id in lost for each in samples):
            raise OSError("a media file cannot be read")
        return answer(predictor, samples)

    monkeypatch.setattr(Predictor, "answer", broken)
    return lost


def test_too_many_lost_samples_are_refused_by_id_before_any_truth_is_opened(bench, lost):
    before = bench.openings()
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("evaluate")
    assert {failure.subject for failure in refused.value.failures} == set(lost)
    assert {failure.rule for failure in refused.value.failures} == {"the_infrastructure_gave_an_answer"}
    assert "OSError: a media file cannot be read" in str(refused.value)
    assert not (bench.evaluation / "metrics.json").exists()
    assert bench.openings() == before
    lost.clear()
    assert bench.run("evaluate").seal.made == 18


def test_a_bearable_share_is_counted_left_out_and_reported(bench, lost):
    done = bench.run("evaluate", changes={"evaluation.max_infrastructure_failed_share": 0.2})
    assert (done.seal.taken, done.seal.made, done.seal.skipped) == (18, 16, 2)
    metrics = json.loads((bench.evaluation / "metrics.json").read_text())
    assert metrics["outcomes"] == {"answered": 16, "model_invalid": 0, "infrastructure_failed": 2}
    assert metrics["num_rows"] == 16
    skipped = [json.loads(line) for line in (bench.evaluation / "skipped_samples.jsonl").open()]
    assert [row["subject"] for row in skipped] == lost
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert (
        "2 samples could not be asked (memory, media, disk); no number here includes them, and `ev" in report
    )
    assert json.loads((bench.evaluation / "evaluation.json").read_text())["infrastructure_failed"] == lost


def test_an_evaluation_with_lost_samples_is_valid_up_to_the_bound_of_its_contract(bench, lost):
    changes = {"evaluation.max_infrastructure_failed_share": 0.2}
    bench.run("evaluate", changes=changes)
    assert bench.run("validate", changes=changes).seal.outputs


def asked_in(predictor_class, monkeypatch) -> list[str]:
    asked: list[str] = []
    answer = predictor_class.answer

    def noted(predictor, samples):
        asked.extend(each.id for each in samples)
        return answer(predictor, samples)

    monkeypatch.setattr(predictor_class, "answer", noted)
    return asked


def test_only_the_samples_that_a_finished_evaluation_lost_are_asked_again(bench, lost, monkeypatch):
    """The numbers are then those of an evaluation that lost none, and what was found first is kept."""
    from omni_trivial import Predictor

    changes = {"evaluation.max_infrastructure_failed_share": 0.2}
    first = bench.run("evaluate", changes=changes)
    asked = asked_in(Predictor, monkeypatch)
    assert bench.run("evaluate", changes=changes).reused
    were, lost[:] = list(lost), []
    again = bench.run("evaluate", changes=changes, retry_failed=True)
    assert (again.reused, again.seal.made, again.seal.skipped) == (False, 18, 0)
    assert set(asked) == set(were)
    assert again.key != first.key
    [earlier] = (bench.backbone / "superseded").glob("evaluate-earlier-*")
    assert json.loads((earlier / "metrics.json").read_text())["num_rows"] == 16
    assert bench.run("evaluate", changes=changes, retry_failed=True).reused, "nothing is lost any more"
    files = ["predictions.jsonl", "metrics.json"]
    found = {name: (bench.evaluation / name).read_bytes() for name in files}
    shutil.rmtree(bench.backbone / "superseded")
    bench.forget_evaluation()
    bench.run("evaluate", changes=changes)
    assert found == {name: (bench.evaluation / name).read_bytes() for name in files}


def test_a_shard_is_asked_again_for_what_it_lost_and_the_merge_is_made_anew(bench, lost, monkeypatch):
    from omni_trivial import Predictor

    changes = {"evaluation.max_infrastructure_failed_share": 0.3}
    shards = [Shard(offset=offset, stride=2) for offset in range(2)]
    for shard in shards:
        bench.run("evaluate", changes=changes, shard=shard)
    assert bench.run("merge", changes=changes).seal.skipped == 2
    asked = asked_in(Predictor, monkeypatch)
    were, lost[:] = list(lost), []
    reused = [bench.run("evaluate", changes=changes, shard=each, retry_failed=True).reused for each in shards]
    assert (reused, set(asked)) == ([False, False], set(were)), "each shard had lost one of the two"
    merged = bench.run("merge", changes=changes)
    assert (merged.reused, merged.seal.made, merged.seal.skipped) == (False, 18, 0)
    assert bench.run("merge", changes=changes).reused


def test_a_merge_whose_shards_lost_the_same_again_is_reused(bench, lost):
    changes = {"evaluation.max_infrastructure_failed_share": 0.3}
    shards = [Shard(offset=offset, stride=2) for offset in range(2)]
    for retry_failed in (False, True):
        for shard in shards:
            bench.run("evaluate", changes=changes, shard=shard, retry_failed=retry_failed)
        merged = bench.run("merge", changes=changes)
        assert (merged.reused, merged.seal.skipped) == (retry_failed, 2)
    assert len(bench.openings()) == 1
