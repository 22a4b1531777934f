"""Models on the same anchors: pairing, hand-worked contrasts, Holm, and what is not compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_mlflow.metrics.comparison import Verdict, compare_rows, holm, mean_of, verdict_of
from omni_mlflow.metrics.errors import UnpairedError
from omni_mlflow.metrics.measures import measure_of_column, measure_of_question, why_no_column
from omni_mlflow.metrics.metric import Metric
from omni_mlflow.metrics.pairing import contradictions, disagreements, pair, shared_questions
from omni_mlflow.metrics.uncertainty import mean_estimate

EVERYTHING = ("action", "subtask", "objects", "contact", "transition", "next_action")


def measures(*questions):
    return [measure_of_question(question) for question in questions]


@pytest.fixture
def answer(make_row):
    """One row: episode, anchor, and whether action and next action are right."""

    def make(episode, anchor, *, action=True, next_action=True, window="w", **more):
        said = {"action": "Pour water" if action else "Dance"}
        said["next_action"] = "Pour water" if next_action else "Dance"
        row = make_row(f"{episode}:{anchor}:{window}", episode=episode, said=said, **more)
        return {**row, "anchor": anchor}

    return make


@pytest.fixture
def run(answer):
    """A run over nine episodes of two anchors; ``wrong`` names the (episode, anchor) of wrong actions."""

    def make(wrong=()):
        places = [(f"e{number}", anchor) for number in range(9) for anchor in (20, 30)]
        return [answer(*place, action=place not in wrong) for place in places]

    return make


def test_runs_are_paired_by_episode_and_anchor_whatever_the_order_of_rows(answer):
    one = [answer("a", 20), answer("a", 30), answer("b", 20)]
    other = [answer("b", 20), answer("a", 30), answer("b", 40)]
    pairing = pair({"A": one, "B": other})
    assert pairing.anchors == (("a", 30, ""), ("b", 20, ""))
    assert [row["id"] for row in pairing.rows["B"]] == ["a:30:w", "b:20:w"]
    assert [row["id"] for row in pairing.outside["A"]] == ["b:40:w"]
    assert [row["id"] for row in pairing.outside["B"]] == ["a:20:w"]
    assert pairing.num_episodes == 2


def test_windows_of_two_lengths_that_end_at_one_anchor_are_paired_each_with_its_own(answer):
    short, long = answer("a", 20, window="short"), answer("a", 20, window="long", action=False)
    pairing = pair({"A": [short, long], "B": [long, short]})
    assert [row["id"] for row in pairing.rows["A"]] == [row["id"] for row in pairing.rows["B"]]
    assert len(pairing.anchors) == 2


def test_a_run_that_answers_a_window_twice_is_refused(answer):
    with pytest.raises(UnpairedError, match="A answers a:20:w twice"):
        pair({"A": [answer("a", 20), answer("a", 20)], "B": [answer("a", 20)]})


def test_runs_without_a_common_anchor_are_refused(answer):
    with pytest.raises(UnpairedError, match="no anchor is answered by every run"):
        pair({"A": [answer("a", 20)], "B": [answer("a", 30)]})


def test_another_truth_at_an_anchor_is_told_with_its_place(answer):
    one, other = answer("a", 20), answer("a", 20, truth={"contact": "no"})
    pairing = pair({"A": [one], "B": [other]})
    assert list(contradictions(pairing, ("action", "contact"))) == [
        "a, frame 20: contact is 'yes' in A, 'no' in B"
    ]


def test_only_questions_that_every_contract_asks_are_compared_and_the_others_have_a_reason(answer):
    row = answer("a", 20, truth={"subtask": "unknown"})
    pairing = pair({"A": [row], "B": [row]})
    asked = {"A": ("subtask", "next_action", "action", "next_transition"), "B": ("action", "next_action")}
    shared, left_out = shared_questions(asked, pairing)
    assert shared == ["action", "next_action"]
    assert left_out == {"subtask": "not asked by B", "next_transition": "not asked by B"}
    _, left_out = shared_questions(dict.fromkeys("AB", asked["A"]), pairing)
    assert left_out == {
        "subtask": "nobody annotated it at these anchors",
        "next_transition": "no metric grades it answer by answer",
    }


def test_a_difference_is_that_of_the_paired_rows_and_its_p_value_that_of_the_sign_flips(run):
    """B is wrong once in each of nine episodes: every episode differs by -1/2, so only 2 of 512 sign patterns
    are as extreme, and Holm doubles the smaller of two p-values."""
    wrong = [(f"e{number}", 20) for number in range(9)]
    pairing = pair({"A": run(), "B": run(wrong)})
    action, next_action = compare_rows(pairing, {"A": ["A"], "B": ["B"]}, measures("action", "next_action"))
    assert (action.metric, action.anchors, action.episodes) == ("accuracy", 18, 9)
    assert [score.value for score in action.scores] == [1.0, 0.5]
    [contrast] = action.contrasts
    assert (contrast.row, contrast.reference, contrast.difference) == ("B", "A", -0.5)
    assert contrast.p_value == pytest.approx(2 / 512)
    assert contrast.adjusted_p == pytest.approx(4 / 512)
    assert contrast.high < 0
    assert contrast.verdict is Verdict.WORSE
    [same] = next_action.contrasts
    assert (same.difference, same.p_value, same.adjusted_p, same.verdict) == (0.0, 1.0, 1.0, Verdict.TIED)


def test_exchanging_the_runs_turns_worse_into_better(run):
    wrong = [(f"e{number}", 20) for number in range(9)]
    pairing = pair({"A": run(wrong), "B": run()})
    [action] = compare_rows(pairing, {"A": ["A"], "B": ["B"]}, measures("action"))
    assert action.contrasts[0].difference == 0.5
    assert action.contrasts[0].verdict is Verdict.BETTER


def test_seeds_are_one_row_with_their_mean_and_their_spread(run):
    """Accuracies 17/18 and 15/18: mean 16/18, deviation (2/18) / sqrt(2)."""
    seeds = {"B1": run([("e0", 20)]), "B2": run([("e0", 20), ("e1", 20), ("e2", 20)])}
    pairing = pair({"A": run(), **seeds})
    [action] = compare_rows(pairing, {"A": ["A"], "B": ["B1", "B2"]}, measures("action"))
    single, several = action.scores
    assert single.seeds is None
    assert several.value == pytest.approx(16 / 18)
    assert several.seeds.deviation == pytest.approx(2 / 18 / 2**0.5)
    assert (several.seeds.low, several.seeds.high) == pytest.approx((15 / 18, 17 / 18))
    assert action.contrasts[0].difference == pytest.approx(-2 / 18)


def test_the_mean_of_models_is_the_model_of_mean_scores():
    episodes = ["a", "a", "b", "b", "c", "c"]
    one, other = [1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]
    mean = mean_of([mean_estimate(one, episodes), mean_estimate(other, episodes)])
    directly = mean_estimate([(x + y) / 2 for x, y in zip(one, other, strict=True)], episodes)
    assert mean.value == pytest.approx(directly.value)
    assert mean.influence.tolist() == pytest.approx(directly.influence.tolist())


def test_holm_by_hand():
    """0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.04 x 1 is lifted to 0.06."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for p, found in zip(p_values, adjusted, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p) + 1e-12
    ranked = [adjusted[place] for place in sorted(range(len(p_values)), key=lambda each: p_values[each])]
    assert ranked == sorted(ranked)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


@pytest.mark.parametrize(
    ("low", "high", "adjusted_p", "verdict"),
    [
        (0.01, 0.2, 0.05, Verdict.BETTER),
        (-0.2, -0.01, 0.05, Verdict.WORSE),
        (0.01, 0.2, 0.051, Verdict.TIED),
        (-0.01, 0.2, 0.001, Verdict.TIED),
        (None, None, 0.001, Verdict.TIED),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_adjusted_test(low, high, adjusted_p, verdict):
    assert verdict_of(low, high, adjusted_p) is verdict


def test_every_answer_in_which_runs_differ_is_listed_with_the_truth(answer):
    one = [answer("a", 20), answer("a", 30, action=False)]
    other = [answer("a", 20, action=False), answer("a", 30, action=False)]
    assert disagreements(pair({"A": one, "B": other}), ["action", "next_action"]) == [
        {
            "episode_id": "a",
            "anchor": 20,
            "id": "a:20:w",
            "question": "action",
            "truth": "Pour water",
            "answer_A": "Pour water",
            "answer_B": "Dance",
            "right_A": 1,
            "right_B": 0,
        }
    ]


def test_the_order_in_which_objects_are_named_is_no_disagreement(answer):
    one = answer("a", 20, truth={"objects": ["cup", "kettle"]})
    other = {**one, "pred_json": {**one["pred_json"], "objects": ["kettle", "cup"]}}
    assert disagreements(pair({"A": [one], "B": [other]}), EVERYTHING) == []


def test_two_rounds_of_the_reference_predictions_against_themselves_are_tied(qwen_v2):
    rows, _ = qwen_v2
    rows = [{**row, "anchor": place} for place, row in enumerate(rows)]
    compared = compare_rows(pair({"A": rows, "B": rows}), {"A": ["A"], "B": ["B"]}, measures(*EVERYTHING))
    assert {contrast.verdict for metric in compared for contrast in metric.contrasts} == {Verdict.TIED}
    assert {contrast.difference for metric in compared for contrast in metric.contrasts} == {0.0}


METRES = Metric(title="Mean error", better="lower", unit="m")
ERROR = METRES.model_copy(update={"at_least": 0.0})
SPREAD_M = {"a": 0.001, "b": 0.003, "c": 0.3}


def of_episodes(kind):
    rows = [
        {"id": name, "episode_id": name, "anchor": 9, "error_m": metres} for name, metres in SPREAD_M.items()
    ]
    return compare_rows(
        pair({"A": rows, "B": rows}), {"A": ["A"], "B": ["B"]}, [measure_of_column("error_m", kind)]
    )


def test_an_interval_keeps_to_the_range_that_the_metric_is_declared_with():
    [anywhere], [positive] = of_episodes(METRES), of_episodes(ERROR)
    assert anywhere.scores[0].low < 0
    assert (positive.scores[0].low, positive.scores[0].high) == (0.0, anywhere.scores[0].high)
    [capped] = of_episodes(ERROR.model_copy(update={"at_most": 0.35}))
    assert capped.scores[0].high == 0.35


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (ERROR, -0.2, "holds -0.2, and its range is 0 to inf"),
        (Metric(title="Share"), 1.2, "holds 1.2, and its range is 0 to 1"),
    ],
)
def test_a_column_with_values_outside_of_the_range_is_not_compared(kind, value, told):
    rows = [{"id": "a", "episode_id": "a", "error_m": value}]
    assert told in why_no_column("error_m", kind, rows, reported=value)
    assert why_no_column("error_m", METRES, rows, reported=value) is None
