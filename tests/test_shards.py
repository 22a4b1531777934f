"""Shards of one evaluation: any number, any order, any interruption, and the bytes of a single pass."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter

import pytest

import omni_mlflow.stages.seal_ledger as held_out
from omni_mlflow.spine.rows import file_digest
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stages.base import Shard
from omni_mlflow.workspace import StaleInputError
from tests.conftest import TRIVIAL
from tests.test_cut_journals import check_once
from tests.workbench import Workbench, contents

PASSES = ("intact", "nothing_shown")


@pytest.fixture(scope="module")
def undisturbed(finished):
    return contents(finished.workspace / "trivial/evaluate")


@pytest.fixture(scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        patch.setattr(os, "fsync", lambda _: None)
        check_once(patch)
        yield


@pytest.fixture
def bench(_quick, place) -> Workbench:
    """A trained and gated checkpoint that nobody has asked anything yet."""
    bench = Workbench(place, [])
    bench.forget_evaluation()
    return bench


@pytest.fixture
def asked(_quick, monkeypatch) -> Counter[tuple[str, bool]]:
    """How often each sample was shown to the model, as it is and under the control."""
    from omni_trivial import Predictor

    counts: Counter[tuple[str, bool]] = Counter()
    answer = Predictor.answer

    def counted(predictor, samples):
        counts.update((sample.id, bool(sample.inputs)) for sample in samples)
        return answer(predictor, samples)

    monkeypatch.setattr(Predictor, "answer", counted)
    return counts


def rows_of(folder):
    head, *rows = [json.loads(line) for line in (folder / "predictions.partial.jsonl").open()]
    return head, rows


def alone_in(folder):
    """The samples that were asked again, each by itself."""
    return [row["id"] for row in rows_of(folder)[1] if row["pass"] == "alone"]


def as_shown(times):
    """How often each sample was shown whole and without its input; asked alone it is shown whole."""
    shown = Counter()
    for (name, each), count in times.items():
        shown[each, name != "nothing_shown"] += count
    return shown


def write_rows(folder, head, rows):
    """Change a shard after the fact, as an unfinished one that somebody edited."""
    (folder / "seal.json").unlink(missing_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in (head, *rows))
    (folder / "predictions.partial.jsonl").write_text(text)


@pytest.mark.parametrize("stride", [2, 3, 8])
def test_any_number_and_order_of_shards_merges_into_the_bytes_of_one_pass(bench, undisturbed, stride):
    offsets = list(range(stride))
    random.Random(stride).shuffle(offsets)
    for offset in offsets:
        bench.shard(offset, stride)
    bench.run("merge")
    assert contents(bench.evaluation) == undisturbed


def test_a_shard_asks_every_nth_sample_and_is_told_no_truth(bench, monkeypatch):
    def opened(*_):
        raise AssertionError("a shard opened the sealed targets")

    monkeypatch.setattr(held_out, "open_targets", opened)
    before = bench.openings()
    folder = bench.shard(1, 3)
    ids = [json.loads(line)["id"] for line in (bench.backbone / "export/samples/test.jsonl").open()]
    _, rows = rows_of(folder)
    asked_again = [row["id"] for row in rows if row["pass"] == "alone"]
    assert [(row["pass"], row["id"]) for row in rows] == [
        *((name, each) for name in PASSES for each in ids[1::3]),
        *(("alone", each) for each in ids[1::3] if each in asked_again),
    ]
    assert {key for row in rows for key in row} == {
        *("pass", "id", "episode_id", "anchor", "outcome", "raw", "values", "reason")
    }
    assert bench.openings() == before
    assert not (bench.backbone / "evaluate").exists()


def test_eight_shards_then_three_then_one_ask_every_sample_once_and_end_in_the_same_bytes(
    bench, undisturbed, asked
):
    for offset in (0, 3, 5):
        bench.shard(offset, 8)
    torn = bench.shard(6, 8) / "predictions.partial.jsonl"
    whole = torn.read_bytes()
    (torn.parent / "seal.json").unlink()
    torn.write_bytes(whole[: len(whole) // 2])  # as one that was killed
    given = {(row["pass"], row["id"]) for row in map(json.loads, whole.splitlines()[1:])}
    kept = torn.read_bytes().rpartition(b"\n")[0].splitlines()[1:]
    lost = given - {(row["pass"], row["id"]) for row in map(json.loads, kept)}
    bench.shard(1, 3)
    bench.run("evaluate")
    ids = [json.loads(line)["id"] for line in (bench.backbone / "export/samples/test.jsonl").open()]
    expected = Counter({(name, each): 1 for name in PASSES for each in ids})
    expected += Counter(("alone", each) for each in alone_in(bench.evaluation)) + Counter(lost)
    assert lost
    assert asked == as_shown(expected)
    assert contents(bench.evaluation) == undisturbed


def test_shards_open_nothing_and_their_merge_is_one_look_at_the_truths(bench):
    for offset in (0, 1):
        bench.shard(offset, 2)
    assert bench.openings() == []
    bench.run("merge")
    [look] = bench.openings()
    assert look["purpose"] == "evaluate"


def test_the_stages_after_an_evaluation_go_on_from_a_merge(bench):
    for offset in (0, 1):
        bench.shard(offset, 2)
    bench.run("merge")
    assert bench.run("evaluate").reused
    assert bench.run("validate").reused


def test_a_merge_without_shards_says_how_to_make_them(bench):
    with pytest.raises(RulesBrokenError, match=r"there_are_shards .* --sample-offset 0 --sample-stride 2"):
        bench.run("merge")


def lose_a_row(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, head, rows[1:])


def contradict(bench, folder):
    head, rows = rows_of(folder)
    other = bench.backbone / "evaluate-0-of-3"
    shutil.copytree(folder, other)
    write_rows(other, head, [{**rows[0], "raw": '{"action": "something else"}'}, *rows[1:]])


def say_it_twice(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, head, [*rows, rows[0]])


def answer_with(part):
    def change(bench, folder):
        head, rows = rows_of(folder)
        write_rows(folder, {**head, "identity": {**head["identity"], part: "0" * 64}}, rows)

    return change


def answer_a_train_sample(bench, folder):
    head, rows = rows_of(folder)
    first = json.loads((bench.backbone / "export/samples/train.jsonl").open().readline())["sample"]
    strange = {**rows[0], **{key: first[key] for key in ("id", "episode_id", "anchor")}}
    write_rows(folder, head, [*rows, strange])


def bring_a_truth(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, head, [*rows, {**rows[0], "true_label": "Cut the bread"}])


def swap_the_episode(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, head, [*rows[:-1], {**rows[-1], "episode_id": "elsewhere__ep1"}])


def say_nothing(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, head, [*rows[:-1], {**rows[-1], "raw": " ", "values": {}}])


def begin_without_a_batch_size(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, {"identity": head["identity"]}, rows)


def begin_with_a_batch_size_in_quotes(bench, folder):
    head, rows = rows_of(folder)
    write_rows(folder, {**head, "batch_size": str(head["batch_size"])}, rows)


def write_nonsense(bench, folder):
    (folder / "seal.json").unlink()
    with (folder / "predictions.partial.jsonl").open("a") as out:
        out.write("{nonsense}\n")


def leave_a_line_blank(bench, folder):
    (folder / "seal.json").unlink()
    path = folder / "predictions.partial.jsonl"
    head, first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, first, "\n", *rest]))


def edit_a_sealed_shard(bench, folder):
    path = folder / "predictions.partial.jsonl"
    path.write_bytes(path.read_bytes().replace(b"answered", b"ANSWERED", 1))


FAULTS = {
    lose_a_row: "every_sample_is_answered",
    contradict: "one_answer_per_sample",
    say_it_twice: "one_row_per_answer",
    answer_with("checkpoint"): "shard_is_of_this_checkpoint",
    answer_with("dataset"): "shard_is_of_this_dataset",
    answer_a_train_sample: "row_answers_a_held_out_sample",
    bring_a_truth: "row_holds_no_truth",
    swap_the_episode: "row_names_its_sample",
    say_nothing: "row_is_an_answer",
    begin_without_a_batch_size: "shard_can_be_read",
    begin_with_a_batch_size_in_quotes: "shard_can_be_read",
    write_nonsense: "shard_can_be_read",
    leave_a_line_blank: "shard_can_be_read",
    edit_a_sealed_shard: "shard_can_be_read",
}


def rules(refused) -> set[str]:
    return {failure.rule for failure in refused.value.failures}


@pytest.mark.parametrize(("spoil", "rule"), FAULTS.items(), ids=FAULTS.values())
def test_what_cannot_be_one_evaluation_is_refused_for_its_own_reason(bench, spoil, rule):
    folder, _ = [bench.shard(offset, 2) for offset in (0, 1)]
    spoil(bench, folder)
    before = bench.openings()
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("merge")
    also = {"every_sample_is_answered"} if spoil in (swap_the_episode, say_nothing) else {}
    assert rules(refused) == {rule, *also}
    assert bench.openings() == before
    assert not bench.evaluation.exists(), "nothing was joined"


def test_a_shard_of_an_earlier_training_is_refused_with_a_remedy_that_works(bench):
    other = {"settings.training.seed": 1}
    old = bench.shard(1, 2)
    bench.run("train", changes=other)
    bench.run("gate", changes=other)
    bench.run("evaluate", changes=other, shard=Shard(0, 2))
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("merge", changes=other)
    found = {failure.rule: failure.found for failure in refused.value.failures}
    told = found["shard_is_of_this_checkpoint"]
    assert "this folder holds answers of another checkpoint: ask that shard again with the present" in told
    assert f"or move {old} out of the workspace" in told
    bench.run("evaluate", changes=other, shard=Shard(1, 2))
    bench.run("merge", changes=other)
    assert (bench.evaluation / "metrics.json").is_file()


def test_every_refusal_is_listed_at_once(bench):
    folders = [bench.shard(offset, 4) for offset in range(4)]
    lose_a_row(bench, folders[0])
    answer_with("checkpoint")(bench, folders[1])
    answer_with("dataset")(bench, folders[1])
    answer_a_train_sample(bench, folders[2])
    bring_a_truth(bench, folders[3])
    head, rows = rows_of(folders[3])
    shutil.copytree(folders[3], bench.backbone / "evaluate-3-of-5")
    write_rows(bench.backbone / "evaluate-3-of-5", head, [{**rows[0], "raw": "{}"}])
    alter_the_truth_and_seal_it_again(bench)
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("merge")
    assert rules(refused) >= {
        "every_sample_is_answered",
        "one_answer_per_sample",
        "shard_is_of_this_checkpoint",
        "shard_is_of_this_dataset",
        "row_answers_a_held_out_sample",
        "row_holds_no_truth",
        "sealed_truth_is_that_of_the_dataset",
    }


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [(each, FAULTS[each]) for each in (answer_a_train_sample, bring_a_truth, swap_the_episode, contradict)],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_what_a_merge_refuses_is_not_taken_over_by_an_evaluation(bench, spoil, rule):
    folder, _ = [bench.shard(offset, 2) for offset in (0, 1)]
    spoil(bench, folder)
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("evaluate")
    assert rules(refused) == {rule}
    assert not bench.openings()


def test_a_second_answer_in_its_own_journal_is_refused_and_not_the_last_word(bench):
    folder = bench.shard(0, 2)
    head, rows = rows_of(folder)
    bench.evaluation.mkdir()
    write_rows(bench.evaluation, head, [*rows, {**rows[0], "raw": '{"action": "INVENTED"}'}])
    shutil.rmtree(folder)
    with pytest.raises(RulesBrokenError) as refused:
        bench.run("evaluate")
    assert rules(refused) == {"one_answer_per_sample"}


def test_every_evaluation_that_is_begun_is_a_look_at_the_truths(bench):
    bench.run("evaluate")
    shutil.rmtree(bench.evaluation)
    bench.run("evaluate")
    looks = bench.openings()
    assert len(looks) == 2
    assert looks[0] != looks[1]
    assert {**looks[0], "look": ""} == {**looks[1], "look": ""}
    assert (
        "| Held-out targets opened | 2 times in this workspace, this one included |"
        in (bench.evaluation / "RUN_REPORT.md").read_text()
    )


def alter_the_truth_and_seal_it_again(bench):
    """Somebody who knows about seals, and rewrites them all."""
    export = bench.backbone / "export"
    targets = export / "sealed/test_targets.jsonl"
    targets.write_bytes(targets.read_bytes().replace(b'"action":"', b'"action":"Not ', 1))
    text = (export / "seal.json").read_text()
    old = json.loads(text)["outputs"]["sealed/test_targets.jsonl"]
    (export / "seal.json").write_text(text.replace(old, file_digest(targets)))
    (export / ".stat.json").unlink()
    for name in ("train", "gate"):
        reseal(bench, name)


def reseal(bench, name):
    """Let a stage name the inputs that are there now."""
    from omni_mlflow.workspace import Seal

    path = bench.backbone / name / "seal.json"
    seal = json.loads(path.read_text())
    for upstream in seal["inputs"]:
        for root in (bench.backbone, bench.place.workspace):
            found = root / upstream / "seal.json"
            if found.is_file():
                seal["inputs"][upstream] = Seal.model_validate_json(found.read_text()).digest
    path.write_text(json.dumps(seal))


def test_an_altered_sealed_truth_stops_a_merge(bench):
    for offset in (0, 1):
        bench.shard(offset, 2)
    targets = bench.backbone / "export/sealed/test_targets.jsonl"
    targets.write_bytes(targets.read_bytes().replace(b'"action":"', b'"action":"Not ', 1))
    with pytest.raises(StaleInputError, match=r"test_targets\.jsonl changed after 'export' sealed it"):
        bench.run("merge")


def test_shards_of_another_checkpoint_are_told_and_not_taken(bench, undisturbed, asked):
    answer_with("checkpoint")(bench, bench.shard(0, 2))
    asked.clear()
    bench.run("evaluate")
    ids = [json.loads(line)["id"] for line in (bench.backbone / "export/samples/test.jsonl").open()]
    every = Counter((name, each) for name in PASSES for each in ids)
    assert asked == as_shown(every + Counter(("alone", each) for each in alone_in(bench.evaluation)))
    assert "trivial/evaluate: trivial/evaluate-0-of-2 holds answers of another evaluation " in str(bench.said)
    assert "different: checkpoint" in str(bench.said)
    assert contents(bench.evaluation) == undisturbed


@pytest.mark.slow
def test_each_process_of_accelerate_launch_is_one_shard(place, undisturbed):
    """``--multi_gpu`` because ``--cpu`` and a MULTI_CPU configuration silently start one process."""
    Workbench(place, []).forget_evaluation()
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [*launcher, "-m", *place.arguments("evaluate")[2:]]
    launched = subprocess.run(
        command, env=place.environment, cwd=place.root, capture_output=True, text=True, check=False
    )
    assert launched.returncode == 0, launched.stderr
    folders = [place.workspace / f"trivial/evaluate-{rank}-of-2" for rank in (0, 1)]
    started = [json.loads((folder / "journal.jsonl").open().readline()) for folder in folders]
    assert len({row["process"]["pid"] for row in started}) == 2
    counts = [len(rows_of(folder)[1]) for folder in folders]
    assert abs(counts[0] - counts[1]) <= len(PASSES)
    merged = place.run("merge")
    assert merged.returncode == 0, merged.stderr
    assert contents(place.workspace / "trivial/evaluate") == undisturbed


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        (("--sample-offset", "2", "--sample-stride", "2"), {}, "numbered from 0 to 1"),
        (("--sample-offset", "1"), {}, "numbered from 0 to 0"),
        (("--sample-stride", "2"), {"WORLD_SIZE": "2", "RANK": "0"}, "each is a shard already"),
        ((), {"WORLD_SIZE": "2"}, "RANK is not set, WORLD_SIZE is '2': a launcher numbers"),
        ((), {"WORLD_SIZE": "2", "RANK": "5"}, "RANK is '5', WORLD_SIZE is '2': a launcher numbers"),
        ((), {"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1'"),
        ((), {"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'"),
        ((), {"WORLD_SIZE": "2", "RANK": ""}, "RANK is not set"),
        (("--sample-offset", "1"), {"WORLD_SIZE": "", "RANK": ""}, "numbered from 0 to 0"),
    ],
)
def test_what_is_no_shard_is_wrong_usage(options, variables, told, monkeypatch):
    from click.testing import CliRunner

    from omni_mlflow.__main__ import build

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(build(), ["evaluate", *options])
    assert done.exit_code == 2
    assert told in " ".join(done.output.split()).replace("│ ", "")
