"""Any predictions file in the published row format is scored alike, or refused with all that is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from omni_mlflow.__main__ import build
from omni_mlflow.label_files import UnusableFileError
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import METRIC_OF
from omni_mlflow.predictions_file import PredictionsFile, ranges
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Labels, Span, Split, Target

OPTIONS = ["Pour water", "Stir", "Cut"]


@pytest.fixture
def given(tmp_path):
    """Writes what a user has at hand, and scores it."""

    def run(rows, *flags, options=OPTIONS, train_labels=None, out=tmp_path / "out"):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        predictions = tmp_path / "predictions.jsonl"
        predictions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        label_options = tmp_path / "options.json"
        label_options.write_text(options if isinstance(options, str) else json.dumps(options))
        words = ["--predictions", predictions, "--label-options", label_options, "--out", out]
        if train_labels is not None:
            labels = tmp_path / "train.json"
            labels.write_text(train_labels if isinstance(train_labels, str) else json.dumps(train_labels))
            words += ["--train-labels", labels]
        return CliRunner().invoke(build(), ["score", *map(str, [*words, *flags])])

    return run


@pytest.fixture
def metrics_of(given, tmp_path):
    """Scores what must be scorable, and reads the result."""

    def scored(rows, *flags, **options):
        result = given(rows, *flags, **options)
        assert (result.exit_code, result.exception) == (0, None), result.output
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return scored


@pytest.fixture
def problems_of(given, tmp_path):
    """What is wrong with a file that nothing may be scored of."""

    def refused(rows):
        result = given(rows, "--json")
        assert result.exit_code == 1
        assert not (tmp_path / "out").exists()
        told = json.loads(result.stdout)
        assert told["ok"] is False
        assert told["headline"] == {}
        return told["problems"]

    return refused


@pytest.fixture
def rows(make_row):
    """Two episodes of two samples; one answer of four is wrong."""
    return [
        make_row("a", episode="kitchen__ep1"),
        make_row("b", episode="kitchen__ep1", truth={"action": "Stir"}),
        make_row("c", episode="garden__ep1", truth={"action": "Cut"}, said={"action": "Stir"}),
        make_row("d", episode="garden__ep1", truth={"action": "Stir"}),
    ]


def test_the_published_run_is_reproduced_to_twelve_digits(metrics_of, qwen_v2):
    rows, published = qwen_v2
    found = metrics_of(rows, options=published["labels"][:1187])
    names = [name for name in found if name in published]
    assert {"accuracy", "macro_f1", "object_micro_f1", "labels", "eval_label_counts"} <= {*names}
    assert len(names) == 18
    for name in names:
        value = (
            pytest.approx(published[name], abs=1e-12) if type(published[name]) is float else published[name]
        )
        assert found[name] == value, name


def test_a_result_says_who_answered_and_that_nobody_vouches_for_it(metrics_of, rows, tmp_path):
    found = metrics_of(rows, "--engine", "vllm 0.11")
    record = json.loads((tmp_path / "out" / "score.json").read_text())
    assert (found["engine"], found["evidence"]) == ("vllm 0.11", "unverified")
    assert (record["engine"], record["evidence"]) == ("vllm 0.11", "unverified")
    assert "no held-out result" in record["claim"]
    assert {each["verdict"] for each in found["verdicts"].values()} == {None}
    assert "unverified" in found["more"]["reasons"]["verdicts"]
    for name, file in (("predictions", "predictions.jsonl"), ("label_options", "options.json")):
        digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        assert record["inputs"][name] == {"file": file, "sha256": digest}
    written = hashlib.sha256((tmp_path / "out" / "metrics.json").read_bytes()).hexdigest()
    assert record["outputs"] == {"metrics.json": written}


def test_without_train_labels_floors_are_null_with_a_reason(metrics_of, rows):
    found = metrics_of(rows)
    assert found["baselines"]["accuracy"] is None
    assert found["verdicts"]["action"] == {"verdict": None, "metric": "accuracy", "floor": None}
    assert "no train labels were given" in found["more"]["reasons"]["baselines.accuracy"]
    assert found["baselines"]["next_action_accuracy"]["best"] == "same_as_now"  # needs no train
    assert found["more"]["evidence_window_iou_of_prompt"] == 1.0


def test_train_labels_give_the_floors_of_the_action(metrics_of, rows):
    found = metrics_of(rows, train_labels=["Stir", "Stir", "Cut"])
    assert found["baselines"]["accuracy"]["floors"]["majority"] == 2 / 4  # b and d are Stir
    assert found["baselines"]["accuracy"]["floors"]["train_prior"] == pytest.approx(5 / 3 / 4)
    assert found["baselines"]["contact_accuracy"] is None
    assert "no train sample answers" in found["more"]["reasons"]["baselines.contact_accuracy"]


def test_what_a_checkpoint_was_fitted_on_gives_the_floors_of_every_question(metrics_of, rows, tmp_path):
    labels = Labels(action="Stir", in_contact=False, next_action="Cut")
    target = Target(id="t", episode_id="e", anchor=9, span=Span(start=0, stop=9), labels=labels)
    write_document(tmp_path / "fitted.json", TrainPriors.fit([target]))
    found = metrics_of(rows, train_labels=(tmp_path / "fitted.json").read_text())
    assert found["baselines"]["contact_accuracy"]["floors"]["majority"] == 0.0
    assert found["baselines"]["next_action_accuracy"]["floors"]["next_given_current"] == 0.0


OVER_DECLARED = (
    "supported_class_macro_f1",
    "num_declared_classes",
    "num_supported_classes",
    "num_off_taxonomy_predictions",
)


def test_without_declared_classes_their_numbers_are_null_and_the_reason_names_the_option(metrics_of, rows):
    found = metrics_of(rows, train_labels=["Stir", "Cut"])
    assert [found["more"][name] for name in OVER_DECLARED] == [None] * 4
    assert found["baselines"]["supported_class_macro_f1"] is None
    assert "supported_class_macro_f1" not in found["intervals"]
    assert all("--declared-classes" in found["more"]["reasons"][name] for name in OVER_DECLARED)
    assert found["macro_f1"] is not None


def test_declared_classes_are_those_of_our_averages_and_of_no_published_number(metrics_of, rows, tmp_path):
    plain = metrics_of(rows, train_labels=["Stir", "Cut"])
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps(["Pour water", "Cut", "Wash"]))
    found = metrics_of(rows, "--declared-classes", classes, train_labels=["Stir", "Cut"])
    # Pour water 1, Cut 0: Wash is true nowhere, Stir undeclared and said three times
    assert [found["more"][name] for name in OVER_DECLARED] == [1 / 2, 3, 2, 3]
    assert found["baselines"]["supported_class_macro_f1"]["floors"]["majority"] == pytest.approx(1 / 5)
    assert found["intervals"]["supported_class_macro_f1"]["method"]
    assert not {*OVER_DECLARED} & found["more"]["reasons"].keys()
    assert {name: found[name] for name in plain if type(plain[name]) is float} == {
        name: value for name, value in plain.items() if type(value) is float
    }
    record = json.loads((tmp_path / "out" / "score.json").read_text())
    digest = hashlib.sha256(classes.read_bytes()).hexdigest()
    assert record["inputs"]["declared_classes"] == {"file": "classes.json", "sha256": digest}
    assert "2 of 4 rows have a true label that is none of the declared classes" in str(notes_of(tmp_path))


def test_a_label_ledger_declares_its_classes(metrics_of, rows, tmp_path):
    counts = {Split.TRAIN: {"Stir": 2, "Cut": 1}, Split.VAL: {"Wash": 1}, Split.TEST: {"Pour water": 1}}
    ledger, classes = tmp_path / "label_ledger.json", tmp_path / "classes.json"
    write_document(ledger, LabelLedger.of(counts))
    classes.write_text(json.dumps(["Stir", "Cut", "Wash", "Pour water"]))
    found = metrics_of(rows, "--declared-classes", ledger)
    assert found["more"]["num_declared_classes"] == 4
    assert found == metrics_of(rows, "--declared-classes", classes)


@pytest.mark.parametrize("classes", ["Stir\n", "[]", '{"labels": ["Stir"]}', '["Stir", 3]'])
def test_declared_classes_of_another_form_are_refused_in_words(given, rows, tmp_path, classes):
    path = tmp_path / "classes.json"
    path.write_text(classes)
    error = given(rows, "--declared-classes", path).exception
    assert isinstance(error, UnusableFileError)
    assert "JSON list with every action label of the dataset" in str(error)
    assert not (tmp_path / "out").exists()


def test_unknown_columns_and_a_claimed_correct_change_no_number(metrics_of, rows):
    plain = metrics_of(rows)
    assert metrics_of([{**row, "correct": 1, "latency_s": 0.3} for row in rows]) == plain


@pytest.mark.parametrize(
    "answer",
    [
        {"raw_prediction": "I cannot tell", "pred_json": {}, "predicted_label": "I cannot tell"},
        {"raw_prediction": "", "pred_json": None, "predicted_label": None},
        {"raw_prediction": None, "pred_json": "Stir", "predicted_label": ["Stir"]},
        {"raw_prediction": "{", "pred_json": [], "predicted_label": "half a pair \ud83d"},
    ],
)
def test_an_answer_that_cannot_be_read_is_wrong_and_stays_in_the_denominator(metrics_of, rows, answer):
    found = metrics_of([{**row, **answer} for row in rows[:1]] + rows[1:])
    assert found["accuracy"] == 2 / 4
    assert found["contact_accuracy"] == 3 / 4
    assert found["json_validity_rate"] == 3 / 4


def test_an_answer_that_its_reply_does_not_give_is_counted(metrics_of, rows, tmp_path):
    metrics_of([{**rows[0], "raw_prediction": "no idea"}, *rows[1:]])
    [note] = json.loads((tmp_path / "out" / "score.json").read_text())["notes"]
    assert note.startswith("1 rows have another pred_json than their raw_prediction")


def notes_of(tmp_path):
    return json.loads((tmp_path / "out" / "score.json").read_text())["notes"]


def test_a_label_that_its_answer_does_not_give_is_counted(metrics_of, rows, tmp_path):
    wrong = {**rows[2], "predicted_label": rows[2]["true_label"]}
    mute = {**rows[3], "pred_json": {}, "raw_prediction": "?"}
    metrics_of([*rows[:2], wrong, mute])
    assert [note.partition("; ")[0] for note in notes_of(tmp_path)] == [
        "2 rows have another predicted_label than the action of their pred_json"
    ]


def test_rows_without_any_reply_are_counted(metrics_of, rows, tmp_path):
    metrics_of([{**rows[0], "raw_prediction": " ", "pred_json": None, "predicted_label": None}, *rows[1:]])
    [note] = notes_of(tmp_path)
    assert note.startswith("1 rows hold no reply at all, and are graded as wrong")


@pytest.mark.parametrize(
    ("outcome", "spelled"), [("success", "'success'"), ("infra", "'infra'"), ({"a": 1}, "{'a': 1}"), (3, "3")]
)
def test_an_outcome_of_the_engine_s_own_is_ignored_and_told_once(
    metrics_of, rows, tmp_path, outcome, spelled
):
    plain = metrics_of(rows)
    assert metrics_of([*({**row, "outcome": outcome} for row in rows[:3]), rows[3]]) == plain
    assert plain["more"]["outcomes"] == {"not_recorded": 4}
    [note] = notes_of(tmp_path)
    assert note.startswith("3 of 4 rows have an outcome that is none of answered, model_invalid, infra")
    assert f"such as {spelled};" in note


def test_an_outcome_of_null_is_one_that_nobody_recorded(metrics_of, rows, tmp_path):
    found = metrics_of([{**row, "outcome": None} for row in rows])
    assert found["more"]["outcomes"] == {"not_recorded": 4}
    assert notes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"outcome": "model_invalid"}, "model_invalid, yet pred_json or predicted_label holds an answer"),
        (
            {"outcome": "answered", "pred_json": None, "predicted_label": None, "raw_prediction": "no idea"},
            "answered, yet neither pred_json nor predicted_label holds an answer",
        ),
    ],
)
def test_an_outcome_that_its_row_contradicts_is_refused(problems_of, rows, row, what):
    [(problem, lines)] = problems_of([rows[1], {**rows[0], **row}]).items()
    assert problem.startswith(what)
    assert lines == [2]


def test_an_outcome_that_its_row_bears_out_is_counted(metrics_of, rows):
    invalid = {"outcome": "model_invalid", "pred_json": {}, "predicted_label": None, "raw_prediction": "?"}
    found = metrics_of([{**rows[0], **invalid}, *({**row, "outcome": "answered"} for row in rows[1:])])
    assert found["more"]["outcomes"] == {"answered": 3, "model_invalid": 1}
    assert found["accuracy"] == 2 / 4


def test_a_row_whose_action_nobody_annotated_is_asked_nothing_about_it_and_counted(
    metrics_of, given, rows, make_row, tmp_path
):
    plain = metrics_of(rows)
    unknown = make_row("e", truth={"action": "unknown"}, said={"action": "Stir"}, seen=0)
    found = metrics_of([*rows, unknown])
    for name in ("accuracy", "macro_f1", "num_unseen_label_samples", "unseen_eval_labels"):
        assert found[name] == plain[name], name
    assert found["more"]["closed_vocabulary_ceiling"] == plain["more"]["closed_vocabulary_ceiling"]
    assert found["subtask_accuracy"] == 1
    assert found["num_samples"] == 5
    assert found["more"]["samples_without_action_label"] == 1
    note, of_floor = notes_of(tmp_path)
    assert note.startswith("1 of 5 rows have the true label 'unknown': nobody annotated their action")
    assert of_floor.startswith(
        "in 1 of the 5 rows that say the true next_action nobody annotated what is now"
    )
    assert note in given([*rows, unknown]).output


def test_truths_outside_the_label_options_are_counted_and_told(given, rows, tmp_path):
    truth = {**rows[0]["true_json"], "action": "Polish"}
    told = given([{**rows[0], "true_label": "Polish", "true_json": truth}, *rows[1:]]).output
    [note] = json.loads((tmp_path / "out" / "score.json").read_text())["notes"]
    assert note.startswith("1 of 4 rows have a true label that is none of the label options")
    assert note in told


def test_train_labels_that_contradict_the_rows_are_counted(metrics_of, rows, tmp_path):
    metrics_of(rows, train_labels=["Stir", "Cut"])  # all rows claim to be seen; Pour water is not
    [note] = json.loads((tmp_path / "out" / "score.json").read_text())["notes"]
    assert note.startswith("1 rows say of their true label")


def test_every_problem_is_listed_with_its_lines_and_nothing_is_scored(problems_of, rows):
    a, b, c, d = rows
    torn = json.dumps(d)[:-9]
    without_truth = {key: value for key, value in b.items() if key not in ("true_json", "true_label")}
    of_train = {**c, "id": "e", "split": "train"}
    lines = [a, torn, "", a, without_truth, of_train, "[1]", {**c, "outcome": "infrastructure_failed"}, b, b]
    problems = problems_of(lines)
    assert {tuple(numbers): what for what, numbers in problems.items() if "not JSON" not in what} == {
        (4,): "id 'a' is there already, in line 1",
        (5,): "no true_json, true_label",
        (6,): "of split 'train', not of 'test'",
        (7,): "a JSON list, not an object",
        (8,): "infrastructure_failed: nobody answered; ask this sample again",
        (9, 10): "id 'b' is there already, in line 5",
    }
    assert [numbers for what, numbers in problems.items() if "not JSON" in what] == [[2], [3]]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"id": 7}, "id is no text"),
        ({"episode_id": ""}, "episode_id is no text"),
        ({"true_label": "\ud83d"}, "true_label is no text"),
        ({"true_label": "Stir"}, "true_label is not the action of true_json"),
        ({"true_json": []}, "true_json is no object"),
        ({"true_json": {"contact": True}}, "true_json.contact is no text"),
        ({"true_json": {"objects": "knife, board"}}, "true_json.objects is no list of texts"),
        ({"true_json": {"objects": ["knife", {"name": "board"}]}}, "true_json.objects is no list of texts"),
        ({"true_json": {"objects": None}}, "true_json.objects is no list of texts"),
        (
            {"true_json": {"evidence_window": {"start_frame": "0", "end_frame": "9"}}},
            "true_json.evidence_window is no window: start_frame and end_frame, whole numbers from 0 in this "
            "order",
        ),
        (
            {"center_window": None},
            "center_window is no window: start_frame and end_frame, whole numbers from 0 in this order",
        ),
        (
            {"center_window": {"start_frame": 9, "end_frame": 0}},
            "center_window is no window: start_frame and end_frame, whole numbers from 0 in this order",
        ),
        ({"true_label_seen_in_train": None}, "true_label_seen_in_train is neither 0 nor 1"),
    ],
)
def test_a_truth_that_cannot_be_read_is_refused(problems_of, rows, changed, what):
    problems = problems_of([rows[1], {**rows[0], **changed}])
    assert problems[what] == [2]


def test_a_label_that_train_both_shows_and_does_not_show_is_refused(problems_of, rows):
    a, b, c, d = rows  # b and d are both of Stir
    problems = problems_of([a, b, c, {**d, "true_label_seen_in_train": 0}])
    assert problems == {"true_label_seen_in_train of 'Stir' is another than in line 2": [4]}


def test_a_question_that_nobody_annotated_is_no_problem_of_the_file(metrics_of, rows):
    unannotated = {**rows[0]["true_json"], "contact": "unknown", "evidence_window": None}
    del unannotated["objects"]
    found = metrics_of([{**rows[0], "true_json": unannotated}, *rows[1:]])
    assert found["clusters"]["worth"]["evidence_window_iou"]["samples"] == 3


def test_a_line_that_is_python_but_not_json_is_refused(problems_of, rows):
    [what] = problems_of([json.dumps(rows[0]).replace('"correct": 1', '"correct": NaN')])
    assert what == "not JSON: NaN is not JSON"


def test_bytes_that_are_no_text_are_refused_with_their_line(given, tmp_path, rows):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(rows[0]).encode() + b'\n{"id": "caf\xe9"}\n')
    found = PredictionsFile(path)
    assert len(list(found.rows())) == 1
    assert list(found.problems.values()) == [[2]]


def test_a_last_line_without_its_line_feed_is_whole_when_it_can_be_read(rows, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = PredictionsFile(path)
    assert [row["id"] for row in found.rows()] == ["a", "b", "c", "d"]
    assert found.problems == {}
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_empty_file_is_refused(problems_of):
    assert problems_of([]) == {"the file holds no row": [1]}


def test_without_json_each_problem_is_a_line_on_stderr(given, rows):
    result = given([*rows, *rows])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "predictions.jsonl: line 5: id 'a' is there already, in line 1" in result.stderr


@pytest.mark.parametrize("options", ["Pour water,Stir\n", '{"Pour water": 1}', '["Stir", 3]', '[""]'])
def test_label_options_that_are_no_json_list_of_strings_are_refused_in_words(given, rows, options):
    error = given(rows, options=options).exception
    assert isinstance(error, UnusableFileError)
    assert "write them as JSON" in str(error)


@pytest.mark.parametrize("labels", ["action\nStir\n", "[]", '{"Stir": 3}'])
def test_train_labels_of_another_form_are_refused_in_words(given, rows, labels):
    error = given(rows, train_labels=labels).exception
    assert isinstance(error, UnusableFileError)
    assert "JSON list with the action of each train sample" in str(error)


def test_the_metrics_of_an_evaluation_are_not_overwritten(given, rows, tmp_path):
    theirs = tmp_path / "evaluate"
    theirs.mkdir()
    (theirs / "metrics.json").write_text("{}")
    assert isinstance(given(rows, out=theirs).exception, UnusableFileError)
    assert (theirs / "metrics.json").read_text() == "{}"


def test_scoring_again_replaces_what_score_wrote(metrics_of, rows):
    assert metrics_of(rows)["num_samples"] == 4
    assert metrics_of(rows[:3])["num_samples"] == 3


def test_the_order_of_lines_changes_no_number(metrics_of, rows):
    first, again = metrics_of(rows), metrics_of(rows[::-1])
    ordered = ("labels", "eval_label_counts")  # published in order of appearance
    assert {k: v for k, v in first.items() if k not in ordered} == {
        k: v for k, v in again.items() if k not in ordered
    }


@pytest.mark.parametrize(
    ("numbers", "told"), [([3], "line 3"), ([3, 5, 6, 7], "lines 3, 5-7"), ([1, 2], "lines 1-2")]
)
def test_line_numbers_are_told_as_ranges(numbers, told):
    assert ranges(numbers) == told


@pytest.mark.parametrize(
    "option", ["--predictions", "--label-options", "--train-labels", "--declared-classes"]
)
def test_a_pipe_is_refused_for_it_can_be_read_only_once(given, rows, tmp_path, option):
    """A doubled id was not found in what came through a pipe, and its digest was that of nothing."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    error = given(rows, option, fifo, train_labels=OPTIONS).exception
    assert isinstance(error, UnusableFileError)
    assert f"{fifo} is no regular file but a pipe" in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"[]", mtime=0), "is compressed; unpack it first"),
        (b"\xef\xbb\xbf[]", "a byte order mark"),
    ],
    ids=["gzip", "byte order mark"],
)
def test_a_file_that_is_compressed_or_marked_is_refused_in_words(given, rows, tmp_path, content, told):
    path = tmp_path / "odd"
    path.write_bytes(content)
    for option in ("--predictions", "--label-options", "--train-labels", "--declared-classes"):
        error = given(rows, option, path, train_labels=OPTIONS).exception
        assert isinstance(error, UnusableFileError), option
        assert told in str(error)


def test_a_refused_file_says_that_the_result_of_an_earlier_one_is_still_there(
    metrics_of, given, rows, tmp_path
):
    before = metrics_of(rows)
    refused = given([*rows, rows[0]])
    assert refused.exit_code == 1
    assert "metrics.json is still that of an earlier scoring, not of this file" in refused.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == before


def test_a_scoring_that_was_cut_is_done_again(given, metrics_of, rows, monkeypatch, tmp_path):
    def cut(*_):
        raise KeyboardInterrupt

    whole = metrics_of(rows)
    with monkeypatch.context() as patch:
        patch.setattr("omni_mlflow.score.write_text", cut)
        assert given(rows[:3]).exit_code == 1
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert metrics_of(rows) == whole


def test_objects_that_no_row_has_a_truth_of_are_null_and_never_zero(metrics_of, rows):
    bare = [
        {**row, "true_json": {name: value for name, value in row["true_json"].items() if name != "objects"}}
        for row in rows
    ]
    found = metrics_of(bare)
    assert found["object_micro_f1"] is None
    assert found["more"]["reasons"]["object_micro_f1"] == "no row says which objects there are"
    assert found["intervals"].get("object_micro_f1") is None
    assert found["baselines"].get("object_micro_f1") is None
    assert found["accuracy"] is not None


def test_rows_that_lack_a_truth_which_others_have_are_counted(metrics_of, rows, tmp_path):
    truth = {key: value for key, value in rows[0]["true_json"].items() if key not in ("contact", "objects")}
    found = metrics_of([{**rows[0], "true_json": truth}, *rows[1:]])
    assert found["more"]["truths_missing"] == {"contact": 1, "objects": 1}
    assert notes_of(tmp_path) == [
        "1 of 4 rows have no contact in their true_json, and are in no number about it",
        "1 of 4 rows have no objects in their true_json, and count as naming none",
    ]


def without(row, question):
    return {**row, "pred_json": {key: row["pred_json"][key] for key in row["pred_json"] if key != question}}


UNASKED = {
    "it is not there": ("contact", lambda row: without(row, "contact")),
    "it is null": ("contact", lambda row: {**row, "pred_json": {**row["pred_json"], "contact": None}}),
    "the label is null": ("action", lambda row: {**without(row, "action"), "predicted_label": None}),
}


@pytest.mark.parametrize("case", UNASKED)
def test_a_question_that_no_answer_holds_is_told_apart_from_one_answered_wrong(
    metrics_of, rows, tmp_path, case
):
    question, unasked = UNASKED[case]
    metric = METRIC_OF[question]
    assert metrics_of([unasked(row) for row in rows])[metric] == 0
    said = f"0 of 4 rows answer {question}, and {metric} counts the others as wrong"
    assert any(said in note for note in notes_of(tmp_path))
    metrics_of(rows)
    assert not any("if nobody asked it" in note for note in notes_of(tmp_path))


def test_a_question_that_hardly_any_answer_holds_is_told_as_well(metrics_of, make_row, tmp_path):
    many = [make_row(f"s{number}", episode=f"e{number % 4}") for number in range(60)]
    metrics_of([*many[:2], *(without(row, "contact") for row in many[2:])])
    assert any("2 of 60 rows answer contact" in note for note in notes_of(tmp_path))
    metrics_of([*many[:3], *(without(row, "contact") for row in many[3:])])
    assert not any("answer contact" in note for note in notes_of(tmp_path))


def test_train_samples_without_an_action_are_in_no_floor_and_told(metrics_of, rows, tmp_path):
    plain = metrics_of(rows, train_labels=["Stir", "Cut", "Stir"])
    found = metrics_of(rows, train_labels=["Stir", "unknown", "Cut", "Stir", "unknown", "unknown", "unknown"])
    assert found["baselines"] == plain["baselines"]
    [note] = [note for note in notes_of(tmp_path) if "train samples" in note]
    assert note == "4 of 7 train samples have no action label: no floor counts them"


def test_a_label_ledger_that_was_changed_declares_nothing(given, rows, tmp_path):
    counts = {Split.TRAIN: {"Stir": 3, "Cut": 1}, Split.TEST: {"Stir": 1}}
    ledger = LabelLedger.of(counts)
    path = tmp_path / "label_ledger.json"
    path.write_text(ledger.model_copy(update={"labels": ledger.labels[:1]}).model_dump_json())
    error = given(rows, "--declared-classes", str(path)).exception
    assert isinstance(error, UnusableFileError)
    assert "its labels are not those of its digest" in str(error)


def test_half_a_character_is_no_label(given, rows):
    error = given(rows, options='["Stir", "\\ud800"]').exception
    assert isinstance(error, UnusableFileError)


def test_metrics_that_the_record_beside_them_does_not_tell_of_are_not_replaced(given, rows, tmp_path):
    given(rows)
    metrics = tmp_path / "out" / "metrics.json"
    metrics.write_text('{"accuracy": 1.0}')
    error = given(rows).exception
    assert isinstance(error, UnusableFileError)
    assert "is not the one that score.json beside it tells of" in str(error)
    assert metrics.read_text() == '{"accuracy": 1.0}'
    metrics.unlink()
    assert given(rows).exit_code == 0


def test_unknown_is_no_declared_class(metrics_of, rows, tmp_path):
    classes = tmp_path / "classes.json"
    classes.write_text('["Stir", "unknown", "Cut"]')
    assert metrics_of(rows, "--declared-classes", str(classes))["more"]["num_declared_classes"] == 2


@pytest.mark.parametrize("outputs", [None, []])
def test_a_record_of_another_form_is_none_of_ours(given, rows, tmp_path, outputs):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "score.json").write_text(json.dumps({"claim": 1, "inputs": 2, "outputs": outputs}))
    (tmp_path / "out" / "metrics.json").write_text("{}")
    error = given(rows).exception
    assert isinstance(error, UnusableFileError)
    assert "was not written by 'score'" in str(error)


@pytest.mark.parametrize("foreign", ["score.json", "metrics.json"])
def test_files_of_somebody_else_are_not_replaced(given, rows, tmp_path, foreign):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / foreign).write_text('{"music": "opus 1"}')
    result = given(rows)
    assert isinstance(result.exception, UnusableFileError)
    assert f"{foreign} was not written by 'score'" in str(result.exception)
    assert (tmp_path / "out" / foreign).read_text() == '{"music": "opus 1"}'


def test_a_missing_file_is_wrong_usage(tmp_path):
    words = ["score", "--predictions", str(Path(tmp_path) / "none.jsonl")]
    assert CliRunner().invoke(build(), words).exit_code == 2
