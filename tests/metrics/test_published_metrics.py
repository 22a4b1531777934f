"""The published names keep their published definitions, to twelve digits."""

import json
import random
import re
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from omni_mlflow.metrics.answers import parse_reply, read_reply
from omni_mlflow.metrics.errors import NothingToScoreError
from omni_mlflow.metrics.labels import (
    action_macro_f1,
    action_pairs,
    confusion_rows,
    per_class_rows,
    per_episode_rows,
    published_metrics,
)
from omni_mlflow.metrics.row_tally import RowTally

NUMBERS = (
    "accuracy",
    "macro_f1",
    "action_macro_f1",
    "json_validity_rate",
    "subtask_accuracy",
    "transition_accuracy",
    "next_action_accuracy",
    "contact_accuracy",
    "object_micro_f1",
    "seen_label_accuracy",
    "unseen_label_accuracy",
)
FACTS = (
    "labels",
    "num_samples",
    "num_eval_episodes",
    "held_out_episode_count",
    "num_unseen_label_samples",
    "unseen_eval_labels",
    "eval_label_counts",
)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_published_number_is_reproduced(qwen_v2, name):
    rows, published = qwen_v2
    found = published_metrics(rows, label_options=published["labels"])
    assert found[name] == pytest.approx(published[name], abs=1e-12)


@pytest.mark.parametrize("name", FACTS)
def test_a_published_count_or_list_is_reproduced(qwen_v2, name):
    rows, published = qwen_v2
    options = published["labels"][:1187]  # the sorted part is the option list; the rest was predicted
    assert published_metrics(rows, label_options=options)[name] == published[name]


def test_the_closed_vocabulary_ceiling_of_the_published_split(qwen_v2):
    rows, _ = qwen_v2
    assert RowTally.over(rows, {}).closed_vocabulary_ceiling() == 131 / 448


def test_transition_of_the_published_split_is_degenerate(qwen_v2):
    rows, _ = qwen_v2
    assert RowTally.over(rows, {}).degenerate_questions() == {
        "transition": {"answer": "no", "share": 436 / 448}
    }


def test_unknown_truth_leaves_a_question_out_and_a_missing_answer_counts_as_wrong(make_row):
    rows = [
        make_row("a"),
        make_row("b", truth={"contact": "unknown"}),
        make_row("c", raw="I cannot tell"),
    ]
    found = published_metrics(rows, label_options=["Pour water"])
    assert found["contact_accuracy"] == 1 / 2
    assert found["accuracy"] == 2 / 3
    assert found["json_validity_rate"] == 2 / 3


def test_a_question_that_nobody_annotated_is_null_and_not_zero(make_row):
    rows = [make_row("a", truth={"subtask": "unknown"})]
    assert published_metrics(rows, label_options=[])["subtask_accuracy"] is None


def test_object_f1_sums_hits_and_misses_over_rows(make_row):
    rows = [
        make_row(
            "a", truth={"objects": ["cup", "kettle"]}, said={"objects": ["cup", "spoon"]}
        ),  # 1 TP 1 FP 1 FN
        make_row("b", truth={"objects": ["tap"]}, said={"objects": ["tap", "tap"]}),  # 1 TP
    ]
    assert published_metrics(rows, label_options=[])["object_micro_f1"] == pytest.approx(4 / 6, abs=1e-15)


def test_macro_f1_averages_over_options_truths_and_predictions(make_row):
    rows = [
        make_row("a", truth={"action": "Cut"}),
        make_row("b", truth={"action": "Cut"}, said={"action": "Invented"}),
    ]
    # Cut: precision 1, recall 1/2, F1 2/3; Stir and Invented: 0.
    found = published_metrics(rows, label_options=["Stir", "Cut"])
    assert found["labels"] == ["Stir", "Cut", "Invented"]
    assert found["macro_f1"] == pytest.approx((2 / 3) / 3)


ACTIONS = st.sampled_from(["Cut", "Pour", "Stir", "Wash"])


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(ACTIONS, ACTIONS, st.sampled_from("ABC")), min_size=1, max_size=30))
def test_macro_f1_agrees_with_scikit_learn(pairs):
    rows = [
        {"true_label": true, "predicted_label": said, "episode_id": episode} for true, said, episode in pairs
    ]
    classes = ["Cut", "Pour", "Stir"]
    expected = f1_score(
        [row["true_label"] for row in rows],
        [row["predicted_label"] for row in rows],
        labels=classes,
        average="macro",
        zero_division=0.0,
    )
    assert action_macro_f1(rows, classes).value == pytest.approx(expected, abs=1e-12)


YES_NO = st.sampled_from(["yes", "no"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(ACTIONS, ACTIONS, YES_NO, YES_NO), min_size=1, max_size=20))
def test_accuracies_agree_with_scikit_learn(make_row, pairs):
    rows = [
        make_row(
            f"{place}",
            truth={
                "action": action,
                "next_action": action,
                "subtask": action,
                "contact": yes,
                "transition": yes,
            },
            said={"action": said, "next_action": said, "subtask": said, "contact": no, "transition": no},
        )
        for place, (action, said, yes, no) in enumerate(pairs)
    ]
    found = published_metrics(rows, label_options=[])
    actions, said, truths, answers = zip(*pairs, strict=True)
    of_actions, of_answers = accuracy_score(actions, said), accuracy_score(truths, answers)
    for name in ("accuracy", "next_action_accuracy", "subtask_accuracy"):
        assert found[name] == pytest.approx(of_actions, abs=1e-12)
    for name in ("contact_accuracy", "transition_accuracy"):
        assert found[name] == pytest.approx(of_answers, abs=1e-12)


OBJECTS = st.sets(st.sampled_from(["cup", "kettle", "spoon", "tap"]), min_size=1)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(OBJECTS, OBJECTS), min_size=1, max_size=20))
def test_object_f1_agrees_with_scikit_learn(make_row, pairs):
    rows = [
        make_row(f"{place}", truth={"objects": sorted(truth)}, said={"objects": sorted(said)})
        for place, (truth, said) in enumerate(pairs)
    ]
    binary = MultiLabelBinarizer().fit([["cup", "kettle", "spoon", "tap"]])
    truths, said = (binary.transform([pair[side] for pair in pairs]) for side in (0, 1))
    expected = f1_score(truths, said, average="micro")
    found = published_metrics(rows, label_options=[])["object_micro_f1"]
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    actions=st.lists(st.tuples(ACTIONS, ACTIONS), min_size=2, max_size=20),
    shuffler=st.randoms(use_true_random=False),
)
def test_the_order_of_rows_changes_no_number(actions, shuffler):
    rows = [
        {
            "id": str(i),
            "episode_id": f"e{i % 3}",
            "true_json": {"objects": [true]},
            "pred_json": {"objects": [said, true]},
            "raw_prediction": "{}",
            "true_label": true,
            "predicted_label": said,
            "true_label_seen_in_train": i % 2,
        }
        for i, (true, said) in enumerate(actions)
    ]
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    before, after = (published_metrics(order, label_options=["Cut"]) for order in (rows, shuffled))
    assert {name: before[name] for name in NUMBERS} == {name: after[name] for name in NUMBERS}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(invented=st.text(min_size=1, max_size=8), position=st.integers(0, 3))
def test_an_invented_label_cannot_change_the_declared_class_set(make_row, invented, position):
    rows = [make_row(str(i), truth={"action": each}) for i, each in enumerate(["Cut", "Pour", "Cut", "Stir"])]
    rows[position]["predicted_label"] = f"*{invented}"
    tally = RowTally.over(rows, {})
    assert tally.supported_classes(["Wash", "Stir", "Cut"]) == ["Stir", "Cut"]


def test_macro_f1_over_no_classes_is_nothing_to_score(make_row):
    with pytest.raises(NothingToScoreError):
        action_macro_f1([make_row("a")], [])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"action": "Cut"}', {"action": "Cut"}),
        ('```json\n{"action": "Cut"}\n```', {"action": "Cut"}),
        ('Sure: {"action":\n "Cut"} done', {"action": "Cut"}),
        ("no braces here", None),
        ("[1, 2]", None),
        ('{"action": "Cut"} and {"b": 1}', None),
    ],
)
def test_the_published_parser_rescues_fences_and_prose(reply, expected):
    assert parse_reply(reply) == expected


@given(st.text(alphabet='{}[]`: \n"a1,', max_size=30))
def test_a_reply_is_read_as_the_published_expressions_read_it(reply):
    text = re.sub(r"^```[a-zA-Z]*\s*|\s*```$", "", reply.strip())
    braces = re.search(r"\{.*\}", text, re.DOTALL)
    expected = None
    for candidate in (text, braces.group() if braces else ""):
        with suppress(ValueError):
            found = json.loads(candidate)
            if isinstance(found, dict):
                expected = found
                break
    assert parse_reply(reply) == expected


@pytest.mark.parametrize("repeated", ["{", "}", "[", "```", " a", "{ "])
def test_a_reply_of_megabytes_of_one_thing_is_read_at_once(repeated):
    """A model that repeats itself for ever must not do so to whoever scores it."""
    assert parse_reply("x" + repeated * 1_000_000 + "y") is None


STRICT = {
    "action": "Cut",
    "subtask": "Cook",
    "objects": ["knife"],
    "contact": "yes",
    "transition": "no",
    "next_action": "Cut",
    "evidence_window": {"start_frame": 0, "end_frame": 19},
}


@pytest.mark.parametrize(
    "reply",
    [
        "```json\n" + json.dumps(STRICT) + "\n```",
        "Answer: " + json.dumps(STRICT),
        json.dumps({key: value for key, value in STRICT.items() if key != "contact"}),
        json.dumps({**STRICT, "confidence": 1.0}),
        json.dumps({**STRICT, "objects": "knife"}),
        json.dumps({**STRICT, "evidence_window": {"start_frame": 5, "end_frame": 4}}),
        json.dumps(STRICT)[:-1] + ', "action": "Stir"}',
    ],
)
def test_strict_validity_rescues_nothing(reply):
    assert not read_reply(reply).is_strict


def test_a_strict_answer_may_have_its_keys_in_any_order():
    shuffled = list(STRICT.items())
    random.Random(1).shuffle(shuffled)
    assert read_reply(json.dumps(dict(shuffled))).is_strict


def test_tables_count_what_is_there(make_row):
    rows = [
        make_row("a", truth={"action": "Cut"}),
        make_row("b", truth={"action": "Cut"}, said={"action": "Stir"}, episode="garden__ep1"),
        make_row("c", raw="nothing", episode="garden__ep1"),
    ]
    cut, pour, stir = per_class_rows(
        action_pairs(rows), classes=["Stir", "Cut", "Pour water"], seen_in_train=["Cut", "Pour water"]
    )
    assert (cut["label"], cut["support"], cut["precision"], cut["recall"]) == ("Cut", 2, 1.0, 0.5)
    assert (pour["label"], pour["support"], pour["predicted"]) == ("Pour water", 1, 0)
    assert (stir["label"], stir["predicted"], stir["seen_in_train"]) == ("Stir", 1, 0)
    assert confusion_rows(action_pairs(rows)) == [
        {"true_label": "Cut", "predicted_label": "Cut", "count": 1},
        {"true_label": "Cut", "predicted_label": "Stir", "count": 1},
        {"true_label": "Pour water", "predicted_label": "", "count": 1},
    ]
    assert [row["accuracy"] for row in per_episode_rows(rows)] == [0.0, 1.0]
