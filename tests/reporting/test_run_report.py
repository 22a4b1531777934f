"""RUN_REPORT.md tells a stranger what was evaluated, how well, and what was left out."""

import json

import pytest
from pydantic import ValidationError

from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.score_rows import against
from omni_mlflow.reporting.facts import Flow
from omni_mlflow.reporting.figures import figures_of
from omni_mlflow.reporting.run_report import render_run_report
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.types import Skip
from tests.reporting.conftest import ACTIONS


def cells(report: str, first_cell: str) -> list[str]:
    """The cells of the first table row that begins with ``first_cell``."""
    line = next(line for line in report.splitlines() if line.startswith(f"| {first_cell} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_synthetic_data_is_the_first_thing_a_reader_learns(make_facts):
    report = render_run_report(make_facts(evidence=Evidence.SYNTHETIC))
    assert report.splitlines()[0] == (
        "SYNTHETIC DATA: these numbers say nothing about model quality on real episodes."
    )


def test_a_smoke_run_says_how_little_it_answered(make_facts):
    report = render_run_report(make_facts(evidence=Evidence.SMOKE, split_samples=400, split_episodes=16))
    first = report.splitlines()[0]
    assert first.startswith("SMOKE RUN (36 of 400 held-out samples in 6 of 16 held-out episodes)")
    assert first.endswith("say nothing about model quality.")


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        (Evidence.SMOKE, "This is no held-out result: the model learned from one episode."),
        (Evidence.SYNTHETIC, "On real episodes this would be no held-out result either: the model learned"),
    ],
)
def test_a_report_says_why_it_is_no_held_out_result(make_facts, evidence, told):
    short = ("the model learned from one episode",)
    assert told in render_run_report(make_facts(evidence=evidence, shortcomings=short))
    assert "no held-out result" not in render_run_report(make_facts())


@pytest.mark.parametrize("evidence", [Evidence.SYNTHETIC, Evidence.SMOKE])
def test_only_held_out_evidence_makes_sentences_about_quality(make_facts, evidence):
    sentence = "Contact accuracy is 0.917"
    assert sentence in render_run_report(make_facts())
    report = render_run_report(make_facts(evidence=evidence))
    assert sentence not in report
    assert "makes no statement about model quality" in report
    assert ": held-out evaluation" in render_run_report(make_facts())
    assert ": held-out evaluation" not in report


def test_a_metric_stands_beside_its_interval_its_best_floor_and_a_verdict(make_facts):
    row = cells(render_run_report(make_facts()), "Action accuracy")
    # 33 of 36 right; each of three equally frequent train labels is right on a third.
    assert row[1] == "0.917"
    assert row[3:6] == ["most frequent train answer", "0.333", "+0.583"]
    assert row[7] == "beats its floor"


def test_a_metric_that_does_not_beat_its_floor_is_told_in_as_many_words(make_facts):
    report = render_run_report(make_facts())
    row = cells(report, "Next-action accuracy")
    assert row[3] == "same as what is true now"
    assert row[7] == "does not beat its floor"


@pytest.mark.parametrize("evidence", [Evidence.SYNTHETIC, Evidence.SMOKE])
def test_other_evidence_shows_the_same_numbers_and_no_verdict(make_facts, evidence):
    report = render_run_report(make_facts(evidence=evidence))
    held_out = cells(render_run_report(make_facts()), "Action accuracy")
    assert cells(report, "Action accuracy") == [*held_out[:7], "–", *held_out[8:]]
    assert "beat" not in report


def test_a_question_with_one_constant_answer_is_called_degenerate(make_facts):
    assert "Transition is degenerate here: 100.0% of its true answers are “no”" in render_run_report(
        make_facts()
    )


def test_the_report_says_in_one_line_which_classes_were_declared(make_facts, metrics):
    ledger = {"num_classes": 1222, "unseen_share_of_test": 0.7076, "spellings_told_apart": 6}
    report = render_run_report(make_facts(metrics={**metrics, "label_ledger": ledger}))
    assert "1222 action classes are declared; 70.8% of test carries one that train lacks; 6 of them" in report


def test_what_has_no_value_says_why(make_facts):
    assert "“subtask_accuracy” has no value: no sample to average over." in render_run_report(make_facts())


def test_a_declared_metric_without_an_interval_is_in_the_table_and_says_so(make_facts, metrics):
    intervals = {name: row for name, row in metrics["intervals"].items() if name != "contact_accuracy"}
    report = render_run_report(make_facts(metrics={**metrics, "intervals": intervals}))
    assert cells(report, "Contact accuracy")[1:3] == ["0.917", "no interval"]


def test_a_primary_metric_without_a_value_or_a_reason_is_told(make_facts, metrics):
    without = {name: value for name, value in metrics.items() if name != "contact_accuracy"}
    intervals = {name: row for name, row in metrics["intervals"].items() if name != "contact_accuracy"}
    baselines = {name: row for name, row in metrics["baselines"].items() if name != "contact_accuracy"}
    changed = {**without, "intervals": intervals, "baselines": baselines}
    report = render_run_report(make_facts(metrics=changed))
    assert cells(report, "Contact accuracy")[1:3] == ["–", "–"]
    assert "“contact_accuracy” has no value, and the evaluation does not say why." in report


def test_counts_are_those_of_the_shared_stages_whatever_metrics_say(make_facts, metrics):
    lying = {**metrics, "num_samples": 7, "held_out_episode_count": 1}
    report = render_run_report(make_facts(metrics=lying))
    assert report.startswith("HELD-OUT EVALUATION: 36 of 36 held-out samples in 6 of 6 held-out episodes")
    assert cells(report, "Held-out samples (anchors)")[1] == "36 of 36 answered"


def test_a_useless_answer_is_a_reply_only_where_a_question_was_asked(make_facts, metrics):
    counted = {**metrics, "outcomes": {"answered": 33, "model_invalid": 3, "infrastructure_failed": 0}}
    asked = render_run_report(make_facts(metrics=counted))
    assert "No answer can be read from 3 replies; each is wrong at every question." in asked
    asked_nothing = render_run_report(make_facts(metrics=counted, questions=()))
    assert "3 samples got an answer that cannot be used; they count among those answered." in asked_nothing


def test_samples_whose_action_nobody_annotated_are_told(make_facts, metrics):
    told = "Nobody annotated the action of 3 samples: no number about the action includes them"
    assert told not in render_run_report(make_facts())
    counted = {**metrics, "more": {**metrics["more"], "samples_without_action_label": 3}}
    assert told in render_run_report(make_facts(metrics=counted))


def test_a_floor_that_answers_fewer_samples_says_over_which_it_is_compared(make_facts, rows, priors):
    """Nobody annotated the action of every sixth sample; what comes next is known everywhere."""
    unknown = [
        {**row, "true_label": "unknown", "true_json": {**row["true_json"], "action": "unknown"}}
        if row["id"].endswith(":5")
        else row
        for row in rows
    ]
    metrics, _ = label_scores(unknown, priors=priors, controls={}, label_options=ACTIONS, declared=ACTIONS)
    facts = make_facts(metrics=metrics)
    report = render_run_report(facts)
    title = "same as what is true now, where that is known"
    [row] = [line for line in report.splitlines() if line.startswith(f"| Next-action accuracy | {title} |")]
    floor = metrics["baselines"]["next_action_accuracy"]
    value, better_by = floor["floors"]["same_as_now"], floor["differences"]["same_as_now"]["value"]
    assert [cell.strip() for cell in row.split("|")[3:5]] == [f"{value:.3f}", f"{better_by:+.3f}"]
    told = "In 6 samples asked about next action nobody annotated what is now"
    own = f"{value + better_by:.3f}"
    assert (
        f"{told}: “same as what is true now” is compared over the others, where the model scores {own}."
        in (report)
    )
    assert "where that is known" not in render_run_report(make_facts())


def test_a_control_shows_the_fall_against_the_intact_run(make_facts):
    lines = [
        line for line in render_run_report(make_facts()).splitlines() if line.startswith("| other video |")
    ]
    contact = next(line for line in lines if "Contact accuracy" in line)
    assert "| 0.917 | 0.667 |" in contact
    assert contact.endswith("| worse, no longer clearly better than its floor |")


def test_seen_and_unseen_labels_are_told_apart(make_facts):
    report = render_run_report(make_facts())
    assert cells(report, "seen in train")[1:3] == ["30", "0.900"]
    assert cells(report, "not in train")[1:3] == ["6", "1.000"]


def test_every_look_at_the_held_out_targets_is_counted(make_facts):
    report = render_run_report(make_facts())
    assert cells(report, "Held-out targets opened")[1] == "3 times in this workspace, this one included"


def test_what_was_skipped_is_counted_by_reason(make_facts):
    report = render_run_report(make_facts())
    assert "| select | episodes | 26 | 24 | 2 |" in report
    assert "| select | no caption | 2 | s1/ep1, s2/ep1 |" in report


def test_a_stage_that_lost_something_cannot_be_reported():
    with pytest.raises(ValidationError, match="26 episodes in, but 24 out and 1 skipped"):
        Flow(stage="select", unit="episodes", taken=26, made=24, skipped=1)


def test_the_report_lists_the_files_beside_it(make_facts):
    assert f"| metrics.json | metrics | 1,234 | {'e' * 64} |" in render_run_report(make_facts())


def test_metrics_read_back_from_disk_give_the_same_bytes(make_facts, metrics):
    read_back = json.loads(json.dumps(metrics, sort_keys=True))
    assert render_run_report(make_facts()) == render_run_report(make_facts(metrics=read_back))


def test_foreign_text_cannot_break_a_table(make_facts):
    skip = Skip(subject="a|b", stage="select", reason="bad\n| fake | row <script>")
    report = render_run_report(make_facts(skipped=(skip,)))
    assert "| select | bad \\| fake \\| row &lt;script> | 1 | a\\|b |" in report


def test_one_episode_leaves_the_verdict_open(make_facts, rows, priors):
    from omni_mlflow.metrics.label_scores import label_scores

    metrics, _ = label_scores(rows[:6], priors=priors, controls={}, label_options=["Cut"])
    report = render_run_report(make_facts(metrics=metrics))
    assert cells(report, "Action accuracy")[2] == "–"
    assert cells(report, "Action accuracy")[7] == "undecided: one episode has no interval"


MAE = "depth_mae_m"
OF_DEPTH = {
    MAE: Metric(title="Depth error", better="lower", unit="m"),
    "depth_bias_m": Metric(title="Depth bias", better="lower", unit="m"),
}


def difference(value, low, high):
    return {"value": value, "low": low, "high": high, "method": "cluster_t", "p_value": 0.02}


CLEARLY_BETTER = difference(0.001, 0.0005, 0.0015)


@pytest.fixture
def depth(make_facts):
    """Facts of a backbone that asks nothing: an error with a floor and a control that makes it rise."""

    def make(worse, over_floor, *, intact=CLEARLY_BETTER, **changes):
        floors = against({"mean_of_train": 0.055}, {"mean_of_train": intact})
        control = {"value": 0.1, "difference": worse, "over_floor": over_floor}
        metrics = {
            MAE: 0.054,
            "depth_bias_m": 0.01,
            "intervals": {MAE: {"low": 0.05, "high": 0.06}},
            "baselines": {MAE: floors},
            "controls": {"no_picture": {MAE: control, "depth_bias_m": {"value": 0.2, "difference": worse}}},
        }
        told = {"questions": (), "metrics": metrics, "kinds": OF_DEPTH, "primary_metrics": (MAE,)}
        return make_facts(**{**told, **changes})

    return make


def test_a_floor_counts_where_nothing_is_asked_and_no_verdict_is_written(depth):
    report = render_run_report(depth(difference(0.046, 0.04, 0.05), difference(-0.045, -0.05, -0.04)))
    assert "Depth error (m; lower is better) is 0.054 [0.050, 0.060] and beats its floor: “mean of" in report
    assert "No floor was given" not in report
    assert "| Depth error (m; lower is better) | mean of train | 0.055 | +0.001 |" in report


NO_LIMITS = {**difference(0.0, None, None), "method": "no_variation_bound"}


@pytest.mark.parametrize(
    ("worse", "over_floor", "reading"),
    [
        (
            difference(0.046, 0.04, 0.05),
            difference(-0.045, -0.05, -0.04),
            "worse, no longer clearly better than its floor",
        ),
        (
            difference(0.0005, 0.0004, 0.0006),
            difference(0.0005, 0.0001, 0.0009),
            "worse, still better than its floor",
        ),
        (difference(0.046, 0.04, 0.05), NO_LIMITS, "worse, no longer clearly better than its floor"),
        (difference(-0.01, -0.02, -0.005), difference(0.01, 0.005, 0.02), "better"),
        (difference(0.0, -0.01, 0.01), difference(0.001, -0.01, 0.01), "no clear change"),
        (NO_LIMITS, NO_LIMITS, "undecided: no two episodes differ, and the metric has no end"),
    ],
)
def test_a_control_that_makes_an_error_rise_is_read_as_worse(depth, worse, over_floor, reading):
    lines = render_run_report(depth(worse, over_floor)).splitlines()
    [row] = [line for line in lines if line.startswith("| no picture | Depth error")]
    assert row.endswith(f"| {reading} |")


@pytest.mark.parametrize(
    ("over_floor", "changes"),
    [
        (difference(-0.045, -0.05, -0.04), {"evidence": Evidence.SMOKE}),
        (difference(0.0005, 0.0001, 0.0009), {"evidence": Evidence.SYNTHETIC}),
        (difference(-0.045, -0.05, -0.04), {"intact": difference(-0.001, -0.0015, -0.0005)}),
        (difference(0.0005, 0.0001, 0.0009), {"intact": difference(0.001, -0.0005, 0.0025)}),
    ],
)
def test_a_control_is_held_against_a_floor_only_where_the_intact_run_beat_it(depth, over_floor, changes):
    lines = render_run_report(depth(difference(0.046, 0.04, 0.05), over_floor, **changes)).splitlines()
    [row] = [line for line in lines if line.startswith("| no picture | Depth error")]
    assert row.endswith("| worse |")


def test_a_control_of_a_metric_without_a_floor_is_shown_where_nothing_is_asked(depth):
    lines = render_run_report(depth(difference(0.19, 0.1, 0.3), None)).splitlines()
    [row] = [line for line in lines if line.startswith("| no picture | Depth bias")]
    assert row.endswith("| 0.010 | 0.200 | – | +0.190 | [0.100, 0.300] | worse |")
    drawn = figures_of(depth(difference(0.19, 0.1, 0.3), None), per_episode=[], confusion=[], progress=[])
    assert [figure.name for figure in drawn] == ["floors_m", "controls_m"]
