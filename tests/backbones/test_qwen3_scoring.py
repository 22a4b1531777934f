"""Published prediction rows and metrics of a hand-made exam of three samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from qwen3_nano import qwen_settings

from omni_mlflow.backbones.base import Exam
from omni_mlflow.backbones.label_answers import answer_of, compact
from omni_mlflow.backbones.qwen3_omni_lora import BACKBONE
from omni_mlflow.backbones.qwen3_omni_lora.inference import answer_from
from omni_mlflow.backbones.qwen3_omni_lora.prompt import label_options
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.score import Request, score
from omni_mlflow.spine.rows import read_json_rows, write_document, writing_json_rows
from omni_mlflow.spine.types import Answer, Labels, Outcome, Sample, Span, Split, Target

SPAN = Span(start=20, stop=40)
POUR = Labels(
    action="pour",
    subtask="make coffee",
    objects=("jug",),
    in_contact=True,
    transition=False,
    next_action="stir",
)
STIR = POUR.model_copy(update={"action": "stir", "in_contact": False, "next_action": None})
POLISH = POUR.model_copy(update={"action": "polish"})


def target(number: int, labels: Labels) -> Target:
    return Target(id=f"ep{number}:20:20", episode_id=f"ep{number}", anchor=40, window=SPAN, labels=labels)


def sample(number: int) -> Sample:
    return Sample(
        id=f"ep{number}:20:20",
        episode_id=f"ep{number}",
        split=Split.TEST,
        anchor=40,
        observed=SPAN,
        inputs={},
    )


def answer(number: int, raw: str, outcome: Outcome = Outcome.ANSWERED) -> Answer:
    return Answer(id=f"ep{number}:20:20", episode_id=f"ep{number}", anchor=40, outcome=outcome, raw=raw)


@pytest.fixture(scope="module")
def exam() -> Exam:
    said = [
        answer(1, compact(answer_of(POUR, SPAN))),
        answer(2, compact(answer_of(POUR, SPAN))),
        answer(3, "I cannot tell", Outcome.MODEL_INVALID),
    ]
    train = TrainPriors.fit([target(7, POUR), target(8, POUR), target(9, STIR)])
    return Exam(
        samples=[sample(number) for number in (1, 2, 3)],
        targets=[target(1, POUR), target(2, STIR), target(3, POLISH)],
        answers=said,
        controls={"text_only": [answer(number, "nothing") for number in (1, 2, 3)]},
        fitted=train,
        arrays={},
        generated=Path("generated"),
        classes=("dust the lamp", "polish", "pour", "stir"),
        unasked={},
    )


@pytest.fixture(scope="module")
def scores(exam):
    return BACKBONE.score(exam, settings=qwen_settings())


def test_a_row_has_the_published_columns_and_ours_beside_them(scores):
    assert scores.predictions[0] == {
        "id": "ep1:20:20",
        "episode_id": "ep1",
        "split": "test",
        "target": "episode_qa",
        "anchor": 40,
        "outcome": "answered",
        "center_window": {"start_frame": 20, "end_frame": 39, "num_frames": 20},
        "true_json": answer_of(POUR, SPAN),
        "pred_json": answer_of(POUR, SPAN),
        "raw_prediction": compact(answer_of(POUR, SPAN)),
        "true_label": "pour",
        "predicted_label": "pour",
        "correct": 1,
        "true_label_seen_in_train": 1,
    }


def test_a_reply_that_is_no_json_is_wrong_and_is_not_dropped(scores):
    row = scores.predictions[2]
    assert (row["pred_json"], row["predicted_label"], row["correct"]) == ({}, None, 0)
    assert row["true_label_seen_in_train"] == 0
    assert row["raw_prediction"] == "I cannot tell"


def test_an_action_that_nobody_annotated_is_neither_right_nor_wrong(exam):
    mute = target(1, POUR.model_copy(update={"action": None}))
    scores = BACKBONE.score(replace(exam, targets=[mute, *exam.targets[1:]]), settings=qwen_settings())
    assert [row["correct"] for row in scores.predictions] == [None, 0, 0]
    assert scores.metrics["more"]["samples_without_action_label"] == 1
    assert scores.metrics["accuracy"] == 0


def test_what_counts_as_invalid_is_graded_as_wrong_and_what_is_graded_right_counts_as_answered(exam):
    """A reply in code fences is rescued by the published reading; half a JSON is not."""
    right = compact(answer_of(POUR, SPAN))
    replies = (f"```json\n{right}\n```", right[:-1], "I cannot tell")
    said = [answer_from(each, text) for each, text in zip(exam.samples, replies, strict=True)]
    assert [each.outcome for each in said] == ["answered", "model_invalid", "model_invalid"]
    scores = BACKBONE.score(replace(exam, answers=said), settings=qwen_settings())
    assert [row["correct"] for row in scores.predictions] == [1, 0, 0]
    assert scores.metrics["more"]["outcomes"] == {"answered": 1, "model_invalid": 2}
    assert scores.metrics["more"]["strict_json_validity_rate"] == 0


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"action": NaN}', {"action": None}),
        ('{"action": "pour", "objects": [1e999]}', {"action": "pour", "objects": [None]}),
        (r'{"action": "half \ud83d"}', {"action": "half ?"}),
        (r'{"half \ud83d": 1}', {"half ?": 1}),
        ('{"action": "pour", "objects": ' + "[" * 900 + "]" * 900 + "}", None),
    ],
)
def test_a_reply_that_no_file_can_hold_is_graded_and_written_without_what_it_cannot(
    exam, raw, said, tmp_path
):
    odd = replace(exam, answers=[answer(1, raw), *exam.answers[1:]])
    scores = BACKBONE.score(odd, settings=qwen_settings())
    with writing_json_rows(tmp_path / "predictions.jsonl") as write:
        for row in scores.predictions:
            write(row)
    written, *_ = read_json_rows(tmp_path / "predictions.jsonl")
    assert written["raw_prediction"] == raw
    if said is None:
        assert written["predicted_label"] == "pour"
    else:
        assert written["pred_json"] == said


def test_the_metrics_are_the_published_ones(scores):
    metrics = scores.metrics
    assert metrics["json_validity_rate"] == pytest.approx(2 / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["contact_accuracy"] == pytest.approx(1 / 3)
    assert metrics["next_action_accuracy"] == pytest.approx(1 / 2)  # nobody annotated one of three
    # jug, jug and jug are true; jug and jug were said: 2 x 2 hits of 3 + 2 names
    assert metrics["object_micro_f1"] == pytest.approx(4 / 5)
    assert metrics["seen_label_accuracy"] == pytest.approx(1 / 2)
    assert metrics["unseen_label_accuracy"] == 0
    assert metrics["held_out_episode_count"] == 3
    assert metrics["controls"]["text_only"]["accuracy"]["value"] == 0
    assert {**scores.metrics, **scores.metrics["more"]}.keys() >= BACKBONE.metrics.keys()


def test_every_table_can_be_written_as_csv(scores):
    assert scores.tables.keys() == {"per_class_metrics.csv", "confusion_matrix.csv"}
    assert {*scores.flattened, *scores.tables} < BACKBONE.eval_files
    for rows in scores.tables.values():
        assert len({tuple(row) for row in rows}) == 1
    flat = scores.flattened["predictions.csv"](scores.predictions[0])
    assert flat["true_objects"] == flat["predicted_objects"] == "jug"
    assert (flat["start_frame"], flat["end_frame"]) == (20, 39)
    pairs = {(row["true_label"], row["predicted_label"]) for row in scores.tables["confusion_matrix.csv"]}
    assert pairs == {("pour", "pour"), ("stir", "pour"), ("polish", "")}


def test_scoring_the_rows_of_an_evaluation_over_its_label_ledger_gives_its_numbers(exam, scores, tmp_path):
    counts = {
        Split.TRAIN: exam.fitted.action,
        Split.VAL: {"dust the lamp": 1},
        Split.TEST: {"pour": 1, "stir": 1, "polish": 1},
    }
    ledger = LabelLedger.of(counts)
    assert ledger.classes == exam.classes
    options = label_options(exam.fitted, max_options=qwen_settings().prompt.max_label_options)
    request = Request(
        predictions=tmp_path / "predictions.jsonl",
        label_options=tmp_path / "options.json",
        train_labels=tmp_path / "fitted.json",
        declared_classes=tmp_path / "label_ledger.json",
        engine=None,
        out=tmp_path / "out",
    )
    with writing_json_rows(request.predictions) as write:
        for row in scores.predictions:
            write(row)
    request.label_options.write_text(json.dumps(options))
    write_document(request.train_labels, exam.fitted)
    write_document(request.declared_classes, ledger)
    assert not score(request).problems
    found = json.loads((request.out / "metrics.json").read_text())
    theirs = {**scores.metrics, "controls": {}}
    for section, numbers in theirs.items():
        if section == "baselines":
            assert {name: each for name, each in found[section].items() if each} == numbers
        elif section == "more":
            assert {**found[section], "reasons": {}} == {**numbers, "reasons": {}}
        elif section != "verdicts":
            assert found[section] == numbers, section
    assert found["more"]["supported_class_macro_f1"] is not None
    assert found["baselines"]["supported_class_macro_f1"]["floors"].keys() == {"majority", "train_prior"}
    assert found["more"]["num_declared_classes"] == 4
