"""Answers of the policy against the truth: labels, hand motion and retargeting, each by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from policy_exports import relabelled, truthful

from omni_mlflow.backbones.policy_vla_branch import BACKBONE
from omni_mlflow.backbones.policy_vla_branch.affordance import with_afforded
from omni_mlflow.backbones.policy_vla_branch.controls import CONTROLS, controlled
from omni_mlflow.backbones.policy_vla_branch.motion_exam import OtherActionSpaceError
from omni_mlflow.backbones.policy_vla_branch.scoring import check_outputs, score_exam
from omni_mlflow.metrics.measures import why_no_column
from omni_mlflow.metrics.trajectories import FARTHEST_MM
from omni_mlflow.spine.rows import write_document, writing_json_rows
from omni_mlflow.spine.types import Answer, Labels, Outcome, Span, Target, broken


@pytest.fixture(scope="module")
def truth(policy_exported):
    return score_exam(policy_exported.exam(), policy_exported.settings)


def test_true_labels_score_one_and_the_true_chunk_loses_what_the_space_loses(truth):
    metrics = truth.metrics
    assert metrics["action_accuracy"] == metrics["contact_accuracy"] == 1.0
    assert metrics["object_affordance_f1"] == 1.0
    lost = metrics["trajectories"]["round_trip"]["trajectory_mpjpe"]
    assert 0 < metrics["trajectory_mpjpe"] == pytest.approx(lost, abs=1e-6)
    assert metrics["trajectories"]["actions_mean_of_8"]["trajectory_mpjpe"] == pytest.approx(lost, abs=1e-6)


def test_an_answer_that_the_hands_stay_scores_as_the_baseline_that_says_so(policy_exported):
    def stay(_, made, chunk):
        still = np.zeros_like(chunk)
        still[:, [3, 7, 19, 23]] = 1.0  # no rotation: r11 = r22 = 1 on either hand
        still[:, 9:16], still[:, 25:] = chunk[0, 9:16], chunk[0, 25:]
        return truthful(made, still)

    metrics = score_exam(policy_exported.exam(stay), policy_exported.settings).metrics
    floors = metrics["baselines"]["trajectory_mpjpe"]["floors"]
    assert metrics["trajectory_mpjpe"] == pytest.approx(floors["constant_position"], abs=3.5)
    assert metrics["wrist_error"] == pytest.approx(
        metrics["baselines"]["wrist_error"]["floors"]["constant_position"], abs=1e-3
    )


def test_any_action_space_is_also_scored_as_robot_tokens(truth):
    """The true chunk misses a token where the space loses some aperture, and half a bin of the rest."""
    metrics = truth.metrics
    interval = metrics["intervals"]["robot_action_token_accuracy"]
    assert 0.9 < metrics["robot_action_token_accuracy"] <= 1.0
    assert interval["low"] < metrics["robot_action_token_accuracy"] <= interval["high"]
    baseline = metrics["baselines"]["robot_action_token_accuracy"]
    hardest = baseline["floors"][baseline["best"]]
    assert baseline["difference"]["value"] == pytest.approx(
        metrics["robot_action_token_accuracy"] - hardest, abs=1e-6
    )
    assert baseline["difference"]["low"] == min(each["low"] for each in baseline["differences"].values())
    assert max(baseline["floors"].values()) < 0.9
    tokens = metrics["trajectories"]["robot_action_tokens"]["trajectory_mpjpe"]
    of_truth = metrics["robot_action_tokens_of_truth"]
    assert tokens == pytest.approx(of_truth["tokens_mpjpe_mm"], abs=0.5)
    assert of_truth["ee20_mpjpe_mm"] < of_truth["tokens_mpjpe_mm"]
    assert of_truth["largest_share_of_a_bin"] <= 0.5 + 1e-9
    assert "robot_action_tokens" in {row["method"] for row in truth.tables["trajectory_metrics.csv"]}


def test_an_answer_without_a_chunk_has_no_token_right(policy_exported, truth):
    scores = score_exam(
        policy_exported.exam(lambda _, made, chunk: truthful(made, chunk).model_copy(update={"values": {}})),
        policy_exported.settings,
    )
    assert scores.metrics["robot_action_token_accuracy"] == 0.0
    assert scores.metrics["trajectories"]["robot_action_tokens"]["trajectory_mpjpe"] == FARTHEST_MM


def test_an_invalid_answer_is_wrong_at_every_question_as_far_off_as_can_be_and_never_dropped(policy_exported):
    def silent(row, made, chunk):
        full = truthful(made, chunk)
        return full.model_copy(update={"values": {}, "outcome": Outcome.MODEL_INVALID}) if row == 0 else full

    scores = score_exam(policy_exported.exam(silent), policy_exported.settings)
    first = scores.predictions[0]["trajectory_mpjpe"]
    assert first["sum"] == pytest.approx(FARTHEST_MM * first["of"])
    assert (scores.predictions[0]["pred_json"], scores.predictions[0]["correct"]) == ({}, 0)
    assert scores.metrics["action_accuracy"] < 1
    assert len(scores.predictions) == scores.metrics["num_samples"]


def test_rows_hold_what_motion_and_affordance_are_sums_of_so_that_runs_can_be_paired(policy_exported):
    """Half of a chunk of one sample is off, so the rows differ."""

    def partly(row, made, chunk):
        return truthful(made, chunk + 0.05 * (row == 0))

    scores = score_exam(policy_exported.exam(partly), policy_exported.settings)
    for name in ("trajectory_mpjpe", "object_affordance_f1"):
        kind, reported = BACKBONE.metrics[name], scores.metrics[name]
        assert why_no_column(name, kind, scores.predictions, reported=reported) is None, name


def test_a_chunk_of_another_action_space_is_an_error_and_never_a_number(policy_exported):
    exam = policy_exported.exam(lambda _, made, chunk: truthful(made, chunk[:, :20]))
    with pytest.raises(OtherActionSpaceError, match=r"shape \(16, 20\), but synergy32 has \(16, 32\)"):
        score_exam(exam, policy_exported.settings)


def test_a_label_with_one_class_is_null_with_the_class_counts(policy_exported):
    exam = relabelled(policy_exported.exam(), next_in_contact=False)
    metrics = score_exam(exam, policy_exported.settings).metrics
    assert metrics["contact_accuracy"] is None
    assert metrics["contact_f1"] is None
    assert (
        metrics["more"]["reasons"]["contact_accuracy"]
        == f"one true class alone: {{'no': {len(exam.samples)}}}"
    )
    assert "contact_accuracy" not in metrics["baselines"]
    assert "next_contact" not in metrics["verdicts"]


def test_objects_that_are_the_same_in_every_window_are_null_for_a_constant_names_them(policy_exported):
    exam = policy_exported.exam()
    thing = min(exam.fitted.objects)
    targets = policy_exported.settings.targets.model_copy(update={"object_affordance": "objects_of_window"})
    settings = policy_exported.settings.model_copy(update={"targets": targets})
    scores = score_exam(relabelled(exam, objects=(thing,)), settings)
    assert scores.metrics["more"]["class_counts"]["objects"].keys() == {thing}
    assert scores.metrics["object_affordance_f1"] is None
    assert "one true class alone" in scores.metrics["more"]["reasons"]["object_affordance_f1"]
    assert "object_affordance_f1" not in {*scores.headline, *scores.metrics["intervals"]}


@pytest.mark.parametrize("seen", [True, False])
def test_an_action_of_one_true_class_is_null_in_every_number_of_actions(policy_exported, seen):
    exam = policy_exported.exam()
    action = min(exam.fitted.action) if seen else "Fly a kite"
    exam = relabelled(replace(exam, classes=sorted({*exam.classes, action})), action=action)
    scores = score_exam(exam, policy_exported.settings)
    metrics = scores.metrics
    for name in (
        "action_accuracy",
        "action_macro_f1",
        "supported_class_macro_f1",
        "seen_label_accuracy",
        "unseen_label_accuracy",
    ):
        assert metrics[name] is None, name
        assert (
            metrics["more"]["reasons"][name] == f"one true class alone: {{'{action}': {len(exam.samples)}}}"
        )
        assert name not in metrics["intervals"]
        assert name not in metrics["baselines"]
        assert name not in metrics["clusters"]["worth"]  # a report asks there which rows it has
        assert name not in scores.headline
    assert metrics["next_action_accuracy"] is not None


def test_a_window_whose_action_nobody_annotated_counts_for_motion_and_for_what_comes_next(policy_exported):
    """One window says the wrong next action and contact, and its own action has no label."""

    def answer(row, made, chunk):
        wrong = {"next_action": "Fly kite", "next_contact": "perhaps"} if row == 0 else {}
        return truthful(made, chunk, **wrong)

    exam = policy_exported.exam(answer)
    first = exam.targets[0]
    assert first.labels.next_action is not None
    assert first.labels.next_in_contact is not None
    bare = first.model_copy(update={"labels": first.labels.model_copy(update={"action": None})})
    metrics = score_exam(replace(exam, targets=[bare, *exam.targets[1:]]), policy_exported.settings).metrics
    assert metrics["more"]["samples_without_action_label"] == 1
    assert metrics["action_accuracy"] == 1.0
    asked = {
        name: sum(getattr(target.labels, field) is not None for target in exam.targets)
        for name, field in (
            ("next_action_accuracy", "next_action"),
            ("contact_accuracy", "next_in_contact"),
        )
    }
    for name, count in asked.items():
        assert metrics[name] == pytest.approx(1 - 1 / count), name
        assert metrics["clusters"]["worth"][name]["samples"] == count
    assert metrics["clusters"]["samples"] == len(exam.samples)
    assert metrics["clusters"]["worth"]["action_accuracy"]["samples"] == len(exam.samples) - 1
    assert (
        metrics["trajectories"]["scored"]
        == score_exam(exam, policy_exported.settings).metrics["trajectories"]["scored"]
    )


def test_the_three_families_are_told_apart(truth):
    assert {"action_accuracy", "trajectory_mpjpe", "retargeting"} <= {*truth.metrics}
    assert {*truth.tables} == {"trajectory_metrics.csv", "action_confusion_matrix.csv"}
    assert {*truth.documents} == {"retargeting_audit.json", "hand_paths.json"}
    assert truth.documents["retargeting_audit.json"]["action_space"] == "synergy32"
    methods = {row["method"] for row in truth.tables["trajectory_metrics.csv"]}
    assert {"actions", "actions_mean_of_8", "round_trip", "damped_velocity", "train_mean_action"} <= methods


def test_metrics_follow_from_the_predictions_and_a_changed_one_is_found(truth, tmp_path):
    with writing_json_rows(tmp_path / "policy_predictions.jsonl") as write:
        for row in truth.predictions:
            write(row)
    write_document(tmp_path / "metrics.json", truth.metrics)
    write_document(tmp_path / "retargeting_audit.json", truth.documents["retargeting_audit.json"])
    assert broken(check_outputs(tmp_path)) == []
    for name in ("trajectory_mpjpe", "action_accuracy", "contact_accuracy"):
        write_document(tmp_path / "metrics.json", {**truth.metrics, name: 0.123})
        refused = [check.rule for check in broken(check_outputs(tmp_path))]
        assert refused == ["metrics_follow_from_predictions"], name
    more = {
        **truth.metrics["more"],
        "class_counts": {each: {"yes": 1} for each in ("action", "next_contact")},
    }
    nulls = dict.fromkeys(("action_accuracy", "contact_accuracy"))
    write_document(tmp_path / "metrics.json", {**truth.metrics, **nulls, "more": more})
    assert [check.rule for check in broken(check_outputs(tmp_path))] == ["metrics_follow_from_predictions"]


def test_a_held_out_episode_without_a_valid_hand_is_in_the_audit_with_its_reason(policy_exported):
    unasked = {"handless__ep1": {"no hand is valid at the last observed frame": 59}}
    exam = replace(policy_exported.exam(), unasked=unasked)
    audit = score_exam(exam, policy_exported.settings).documents["retargeting_audit.json"]
    assert audit["unasked"] == unasked
    assert "handless__ep1" not in {each["episode_id"] for each in audit["episodes"]}


def test_an_episode_whose_hands_do_not_come_back_breaks_a_rule_of_the_evaluation(truth, tmp_path):
    audit = truth.documents["retargeting_audit.json"]
    first, *others = audit["episodes"]
    worse = {**first, "round_trip": {"mean_mm": 2.0, "max_mm": 9.0}, "within_bound": False}
    with writing_json_rows(tmp_path / "policy_predictions.jsonl") as write:
        for row in truth.predictions:
            write(row)
    write_document(tmp_path / "metrics.json", truth.metrics)
    write_document(tmp_path / "retargeting_audit.json", {**audit, "episodes": [worse, *others]})
    [check] = broken(check_outputs(tmp_path))
    assert check.rule == "motion_comes_back_within_the_bound"
    assert check.found == f"{first['episode_id']}: mean 2.00 mm, worst step 9.00 mm"


def test_a_control_stands_beside_the_intact_answers(policy_exported):
    exam = policy_exported.exam()
    worse = [
        answer.model_copy(update={"values": {"actions": (2 * np.array(answer.values["actions"])).tolist()}})
        for answer in exam.answers
    ]
    metrics = score_exam(replace(exam, controls={"state_only": worse}), policy_exported.settings).metrics
    found = metrics["controls"]["state_only"]["trajectory_mpjpe"]
    assert found["difference"]["value"] == pytest.approx(
        found["value"] - metrics["trajectory_mpjpe"], abs=1e-6
    )
    assert metrics["controls"]["state_only"]["action_accuracy"]["value"] == 1.0


def test_controls_take_the_picture_or_the_order_of_the_words_away(policy_exported):
    samples = [each.sample for each in policy_exported.made[:3]]
    changed = {name: controlled(name, samples)[0].inputs for name in CONTROLS}
    before = samples[0].inputs
    assert changed["blank_image"] == {**before, "observation": None}
    assert changed["state_only"] == {**before, "observation": None, "instruction": ""}
    words = changed["shuffled_text"]["instruction"].split()
    assert sorted(words) == sorted(before["instruction"].split())
    assert words != before["instruction"].split()


@pytest.mark.parametrize(
    ("rule", "afforded"),
    [("objects_in_action", ("red block",)), ("objects_of_window", ("red block", "table"))],
)
def test_afforded_objects_are_those_that_the_contracts_rule_leaves(rule, afforded):
    labels = Labels(action="Brush red block", objects=("red block", "table"))
    target = Target(id="a", episode_id="e", anchor=20, window=Span(start=0, stop=20), labels=labels)
    assert with_afforded(target, rule).labels.objects == afforded


def test_without_an_action_label_nobody_knows_what_is_acted_on():
    labels = Labels(action=None, objects=("red block",))
    target = Target(id="a", episode_id="e", anchor=20, window=Span(start=0, stop=20), labels=labels)
    assert with_afforded(target, "objects_in_action").labels.objects is None


def test_scores_hold_no_number_that_json_cannot(truth):
    assert json.loads(json.dumps(truth.metrics, allow_nan=False))


def test_answers_are_in_physical_units_and_their_predictions_carry_them(truth, policy_exported):
    answer: Answer = policy_exported.exam().answers[0]
    assert truth.predictions[0]["actions"] == answer.values["actions"]


def test_a_report_shows_the_wrists_of_a_few_samples_true_and_foretold(truth, policy_exported):
    from omni_mlflow.reporting.hand_paths import hand_paths_figure

    samples = truth.documents["hand_paths.json"]["samples"]
    assert len(samples) == 6
    hand = samples[0]["hands"]["right"]
    assert np.allclose(hand["true"], hand["foretold"], atol=2e-4)  # the answers are the truth
    figure = hand_paths_figure(truth.documents["hand_paths.json"])
    assert figure.png.startswith(b"\x89PNG")
    assert figure == hand_paths_figure(truth.documents["hand_paths.json"])
