"""What metrics.json says: published names with ours beside them, verdicts against every floor."""

import json
from collections import Counter

import pytest

from omni_mlflow.metrics.errors import UnpairedError
from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Labels, Span, Target

EPISODES = [f"room{i}__ep1" for i in range(8)]
ACTIONS = ("Cut", "Stir", "Wash", "Pour")


@pytest.fixture
def priors() -> TrainPriors:
    def target(number: int) -> Target:
        labels = Labels(
            action=ACTIONS[number % 4],
            next_action=ACTIONS[(number + 1) % 4],
            in_contact=number % 4 != 0,
            transition=False,
            objects=("knife",),
        )
        return Target(id=f"t{number}", episode_id="e", anchor=9, span=Span(start=0, stop=9), labels=labels)

    return TrainPriors.fit([target(number) for number in range(40)])


@pytest.fixture
def answered(make_row):
    """Eight episodes of eight samples; ``right`` of the eight actions and contacts are right in each."""

    def rows(right: int) -> list[dict]:
        made = []
        for e, episode in enumerate(EPISODES):
            for i in range(8):
                contact = "yes" if (i + e) % 2 else "no"
                truth = {"action": ACTIONS[i % 4], "contact": contact, "next_action": ACTIONS[i % 4]}
                wrong = {"action": "Wash the car", "contact": "yes" if contact == "no" else "no"}
                made.append(
                    make_row(f"{episode}:{i}", episode=episode, truth=truth, said=wrong if i >= right else {})
                )
        return made

    return rows


def scores(rows, priors, controls=None):
    return label_scores(rows, priors=priors, controls=controls or {}, label_options=ACTIONS, declared=ACTIONS)


def test_a_model_that_is_right_in_every_episode_beats_its_floor(answered, priors):
    metrics, _ = scores(answered(7), priors)
    assert metrics["accuracy"] == 7 / 8
    assert metrics["baselines"]["accuracy"]["floors"]["majority"] == 1 / 4
    assert metrics["baselines"]["accuracy"]["floors"]["train_prior"] == 1 / 4
    assert metrics["verdicts"]["action"]["verdict"] == "beats_floor"
    assert metrics["baselines"]["accuracy"]["difference"]["p_value"] == 2 / 2**8


def test_a_model_that_always_says_yes_does_not_beat_the_majority(answered, priors):
    rows = [
        {**row, "pred_json": {**row["pred_json"], "contact": "yes", "transition": "no"}}
        for row in answered(8)
    ]
    metrics, _ = scores(rows, priors)
    assert metrics["verdicts"]["contact"] == {
        "verdict": "does_not_beat_floor",
        "metric": "contact_accuracy",
        "floor": "majority",
    }
    assert metrics["baselines"]["contact_accuracy"]["difference"]["value"] == 0


def test_a_question_whose_truth_hardly_changes_is_flagged(answered, priors):
    metrics, _ = scores(answered(8), priors)
    assert metrics["transition_accuracy"] == 1.0
    assert metrics["more"]["degenerate_questions"]["transition"] == {"answer": "no", "share": 1.0}
    assert metrics["verdicts"]["transition"]["verdict"] == "does_not_beat_floor"


def test_next_action_is_held_against_nothing_changes(answered, priors):
    metrics, _ = scores(answered(8), priors)
    baseline = metrics["baselines"]["next_action_accuracy"]
    assert baseline["best"] == "same_as_now"
    assert baseline["floors"]["same_as_now"] == 1.0
    assert metrics["verdicts"]["next_action"]["verdict"] == "does_not_beat_floor"


def test_each_control_says_how_far_the_intact_run_lies_above_it(answered, priors):
    metrics, _ = scores(answered(8), priors, {"other_video": answered(2)})
    contact = metrics["controls"]["other_video"]["contact_accuracy"]
    assert contact["value"] == 1 / 4
    assert contact["difference"]["value"] == 3 / 4
    assert contact["difference"]["low"] > 0


def test_a_control_over_other_samples_is_refused(answered, priors):
    with pytest.raises(UnpairedError, match="other_video"):
        scores(answered(8), priors, {"other_video": answered(8)[1:]})


def test_unparsable_replies_are_wrong_everywhere(make_row, priors):
    rows = [make_row(f"s{i}", episode=EPISODES[i], raw="Sorry, I cannot") for i in range(8)]
    metrics, _ = scores(rows, priors)
    graded = [name for name in metrics["intervals"] if name != "unseen_label_accuracy"]
    values = {**metrics, **metrics["more"]}
    assert {name: values[name] for name in graded} == dict.fromkeys(graded, 0.0)


def test_what_cannot_be_had_is_null_with_a_reason(make_row, priors):
    rows = [make_row("a", truth={"contact": "unknown", "action": "Cut"})]
    metrics, headline = scores(rows, priors)
    assert metrics["contact_accuracy"] is None
    assert metrics["more"]["reasons"]["contact_accuracy"] == "no sample to average over"
    assert "two" in metrics["more"]["reasons"]["intervals"]
    assert metrics["intervals"]["accuracy"]["low"] is None
    assert metrics["verdicts"]["action"]["verdict"] is None
    assert "subtask" not in metrics["verdicts"]
    assert "no floor" in metrics["more"]["reasons"]["baselines.subtask_accuracy"]
    assert "contact_accuracy" not in headline


def test_without_train_labels_only_unfitted_floors_remain(answered):
    metrics, _ = scores(answered(8), None)
    assert set(metrics["verdicts"]) == {"next_action", "evidence_window"}


def test_an_empty_evaluation_scores_nothing(priors):
    metrics, headline = scores([], priors)
    assert metrics["accuracy"] is None
    assert headline == {"held_out_episode_count": 0.0, "num_samples": 0.0}


def test_the_order_of_rows_changes_not_one_byte(answered, priors):
    rows = answered(5)
    by_id = sorted(rows, key=lambda row: row["id"], reverse=True)
    one, other = (scores(order, priors, {"text_only": order})[0] for order in (rows, by_id))
    assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_an_invented_label_is_counted_and_changes_no_denominator(answered, priors):
    rows = answered(7)
    plain, _ = scores([{**row, "predicted_label": row["true_label"]} for row in rows], priors)
    invented, _ = scores(rows, priors)
    assert plain["more"]["num_off_taxonomy_predictions"] == 0
    assert invented["more"]["num_off_taxonomy_predictions"] == 8
    assert plain["more"]["num_supported_classes"] == invented["more"]["num_supported_classes"] == 4


def test_the_headline_is_made_of_finite_numbers(answered, priors):
    _, headline = scores(answered(6), priors)
    assert headline["accuracy"] == 6 / 8
    assert headline["accuracy_over_floor"] == 6 / 8 - 1 / 4
    assert all(isinstance(value, float) for value in headline.values())


def test_the_published_run_does_not_beat_constant_answers(qwen_v2):
    """Contact 0.71875 is what always answering yes gives; transition lies below always answering no."""
    rows, published = qwen_v2
    contact = Counter(row["true_json"]["contact"] for row in rows)
    priors = TrainPriors.fit([]).model_copy(
        update={"contact": dict(contact), "transition": {"no": 9, "yes": 1}, "next_action": {"Move phone": 1}}
    )
    metrics, _ = label_scores(
        rows, priors=priors, controls={}, label_options=published["labels"], declared=published["labels"]
    )
    assert metrics["baselines"]["contact_accuracy"]["floors"]["majority"] == 0.71875
    assert {
        name: metrics["verdicts"][name]["verdict"] for name in ("contact", "transition", "next_action")
    } == {
        "contact": "does_not_beat_floor",
        "transition": "does_not_beat_floor",
        "next_action": "does_not_beat_floor",
    }
    assert metrics["more"]["closed_vocabulary_ceiling"] == 131 / 448
    assert metrics["more"]["num_supported_classes"] == 189
