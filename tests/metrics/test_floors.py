"""What can be answered without looking."""

import random

import pytest

from omni_mlflow.metrics.floors import Urn, best_constant_objects, floors_for, floors_of
from omni_mlflow.metrics.label_scores import label_scores
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import Labels, Span, Target


def train_target(number: int, **labels: object) -> Target:
    return Target(
        id=f"t{number}",
        episode_id="train__ep1",
        anchor=20,
        span=Span(start=0, stop=20),
        labels=Labels(**labels),
    )


@pytest.fixture
def priors() -> TrainPriors:
    return TrainPriors.fit(
        [
            train_target(1, action="Cut", next_action="Stir", in_contact=True, objects=("knife", "board")),
            train_target(2, action="Cut", next_action="Stir", in_contact=True, objects=("knife",)),
            train_target(3, action="Cut", next_action="Cut", in_contact=True, objects=("knife",)),
            train_target(4, action="Stir", next_action="Wash", in_contact=False, objects=("spoon",)),
        ]
    )


def test_the_majority_floor_says_the_most_frequent_train_label(priors, make_row):
    row = floors_of(priors)["majority"](make_row("a"))
    assert row["predicted_label"] == "Cut"
    assert row["pred_json"]["contact"] == "yes"
    assert row["pred_json"]["subtask"] is None  # train never names one


def test_the_constant_object_set_has_the_best_f1_on_train(priors):
    # knife: 2*3/(4+5) = 0.67; knife and board: 2*4/(8+5) = 0.62; all three: 2*5/(12+5) = 0.59.
    assert best_constant_objects(priors) == ("knife",)


def partly_annotated() -> TrainPriors:
    """Half of the train samples have objects, most of them two."""
    named = [("a", "b"), ("a", "c"), ("d",), ("b", "e")]
    targets = [train_target(number, action="Cut", objects=each) for number, each in enumerate(named)]
    return TrainPriors.fit([*targets, *(train_target(number, action="Cut") for number in range(4, 8))])


def test_a_constant_that_says_nobody_knows_the_objects_is_a_floor():
    # unknown: 2*4/(8+11) = 0.42; unknown and a: 2*6/(16+11) = 0.44; with b: 2*8/(24+11) = 0.46;
    # with c: 2*9/(32+11) = 0.42.
    assert best_constant_objects(partly_annotated()) == ("a", "b", "unknown")


def test_a_model_that_always_says_unknown_does_not_beat_the_floor_on_objects(make_row):
    priors = TrainPriors.fit(
        train_target(number, objects=None if number % 2 else ("abcde"[number % 5],)) for number in range(200)
    )
    rows = [
        make_row(
            f"r{number}",
            episode=f"e{number % 8}",
            truth={"objects": ["unknown"] if number // 8 % 2 else ["abcde"[number % 5]]},
            said={"objects": ["unknown"]},
        )
        for number in range(320)
    ]
    metrics, _ = label_scores(rows, priors=priors, controls={}, label_options=["Pour water"])
    assert metrics["object_micro_f1"] == 0.5
    assert metrics["baselines"]["object_micro_f1"]["floors"]["majority"] == 0.5
    assert metrics["verdicts"]["objects"]["verdict"] == "does_not_beat_floor"


def test_as_many_objects_are_drawn_as_train_samples_name(make_row):
    draw = floors_of(partly_annotated())["train_prior"]
    drawn = [draw(make_row(f"s{number}"))["pred_json"]["objects"] for number in range(2000)]
    sizes = [0 if each == ["unknown"] else len(each) for each in drawn]
    assert {size: sizes.count(size) / 2000 for size in {*sizes}} == pytest.approx(
        {0: 0.5, 1: 0.125, 2: 0.375}, abs=0.03
    )
    assert {name for each in drawn for name in each} == {*"abcde", "unknown"}


def test_rare_objects_are_drawn_though_most_train_samples_name_none(make_row):
    targets = [train_target(number, objects=("spoon",) if number == 0 else ()) for number in range(3)]
    draw = floors_of(TrainPriors.fit(targets))["train_prior"]
    drawn = [draw(make_row(f"s{number}"))["pred_json"]["objects"] for number in range(600)]
    assert drawn.count(["spoon"]) / 600 == pytest.approx(1 / 3, abs=0.05)


def test_same_as_now_copies_the_true_current_action(priors, make_row):
    row = make_row("a", truth={"action": "Cut", "next_action": "Stir"}, said={"action": "Wash"})
    assert floors_of(priors)["same_as_now"](row)["pred_json"]["next_action"] == "Cut"


def contacts(make_row, *, unknown: float) -> list[dict]:
    """Contact mostly stays as it is; the model says what it is now, whether anybody annotated that or not."""
    rng = random.Random(0)
    rows = []
    for episode in range(14):
        for number in range(60):
            now = rng.choice(["yes", "no"])
            then = now if rng.random() < 0.85 else ("no" if now == "yes" else "yes")
            told = "unknown" if rng.random() < unknown else now
            truth = {"contact": told, "next_contact": then}
            row = make_row(f"{episode}:{number}", episode=f"e{episode}", truth=truth)
            rows.append({**row, "pred_json": {**row["pred_json"], "next_contact": now}})
    return rows


def is_known(row) -> bool:
    return row["true_json"]["contact"] != "unknown"


def accuracy(rows) -> float:
    right = [row["pred_json"]["next_contact"] == row["true_json"]["next_contact"] for row in rows]
    return sum(right) / len(right)


def scores(rows, priors, **controls):
    return label_scores(rows, priors=priors, controls=controls, label_options=["Cut"])[0]


def test_same_as_now_is_held_against_the_answers_where_now_is_known(priors, make_row):
    rows = contacts(make_row, unknown=0.1)
    known = [row for row in rows if is_known(row)]
    metrics = scores(rows, priors)
    found = metrics["baselines"]["next_contact_accuracy"]
    alone = scores(known, priors)["baselines"]["next_contact_accuracy"]
    for key in ("floors", "differences"):
        assert found[key]["same_as_now"] == alone[key]["same_as_now"]
    assert found["floors"]["same_as_now"] == pytest.approx(accuracy(known))
    assert found["differences"]["same_as_now"]["value"] == 0
    assert metrics["verdicts"]["next_contact"]["verdict"] == "does_not_beat_floor"
    assert metrics["next_contact_accuracy"] == pytest.approx(accuracy(rows))
    assert metrics["more"]["unknown_now"] == {"next_contact": len(rows) - len(known)}


def test_a_control_is_held_against_same_as_now_by_its_own_answers_where_now_is_known(priors, make_row):
    """Where now is unknown the control is right, and where it is known half of the time."""
    rows = contacts(make_row, unknown=0.75)
    control = []
    for number, row in enumerate(rows):
        then = row["true_json"]["next_contact"]
        said = then if not is_known(row) or number % 2 else ("no" if then == "yes" else "yes")
        control.append({**row, "pred_json": {**row["pred_json"], "next_contact": said}})
    [under] = scores(rows, priors, blank=control)["controls"].values()
    over_floor = under["next_contact_accuracy"]["over_floor"]["value"]
    known = [number for number, row in enumerate(rows) if is_known(row)]
    wanted = accuracy([control[number] for number in known]) - accuracy([rows[number] for number in known])
    assert over_floor == pytest.approx(wanted)
    as_intact = scores(control, priors)["baselines"]["next_contact_accuracy"]["differences"]["same_as_now"]
    assert over_floor == as_intact["value"]


@pytest.mark.parametrize(
    ("known", "verdict", "floor"),
    [(0, "beats_floor", "majority"), (1, None, "same_as_now"), (2, "does_not_beat_floor", "same_as_now")],
)
def test_a_floor_of_too_few_samples_cannot_be_called_beaten(priors, make_row, known, verdict, floor):
    """The model is nearly always right. Now is annotated in one sample of the first ``known`` episodes."""
    rows = []
    for number in range(280):
        then = "yes" if number % 2 else "no"
        wrong = number % 19 == 0
        said = ("no" if then == "yes" else "yes") if wrong else then
        is_annotated = number < 14 and number % 14 < known
        truth = {"contact": "no" if is_annotated else "unknown", "next_contact": then}
        row = make_row(f"s{number}", episode=f"e{number % 14:02}", truth=truth)
        rows.append({**row, "pred_json": {**row["pred_json"], "next_contact": said}})
    contacts_of_train = [train_target(n, in_contact=True, next_in_contact=n % 2 == 0) for n in range(4)]
    metrics = scores(rows, TrainPriors.fit(contacts_of_train))
    told = metrics["verdicts"]["next_contact"]
    assert (told["verdict"], told["floor"]) == (verdict, floor)
    assert ("verdicts.next_contact" in metrics["more"]["reasons"]) is (known == 1)


def test_without_any_annotation_of_now_there_is_no_floor_of_now(priors, make_row):
    rows = [make_row(f"s{n}", truth={"action": "unknown", "next_action": "Cut"}) for n in range(4)]
    metrics, _ = label_scores(rows, priors=priors, controls={}, label_options=["Cut"])
    assert "same_as_now" not in metrics["baselines"]["next_action_accuracy"]["floors"]
    assert "majority" in metrics["baselines"]["next_action_accuracy"]["floors"]


@pytest.mark.parametrize(("now", "next_action"), [("Cut", "Stir"), ("Stir", "Wash"), ("Never seen", "Stir")])
def test_next_given_current_follows_train(priors, make_row, now, next_action):
    row = make_row("a", truth={"action": now})
    assert floors_of(priors)["next_given_current"](row)["pred_json"]["next_action"] == next_action


@pytest.mark.parametrize(("now", "next_contact"), [("yes", "no"), ("no", "yes"), ("unknown", "yes")])
def test_next_contact_given_the_current_one_follows_train(make_row, now, next_contact):
    pairs = [(True, False), (True, False), (True, True), (False, True), (None, True)]
    targets = [train_target(n, in_contact=one, next_in_contact=two) for n, (one, two) in enumerate(pairs)]
    floor = floors_of(TrainPriors.fit(targets))["next_given_current"]
    assert floor(make_row("a", truth={"contact": now}))["pred_json"]["next_contact"] == next_contact


def test_copying_the_prompt_gives_its_window(priors, make_row):
    row = floors_of(priors)["copy_prompt"](make_row("a"))
    assert row["pred_json"]["evidence_window"] == {"start_frame": 0, "end_frame": 19, "num_frames": 20}


def test_a_drawn_label_depends_on_the_sample_and_on_nothing_else(priors, make_row):
    rows = [make_row(f"s{i}") for i in range(40)]
    drawn = {row["id"]: floors_of(priors)["train_prior"](row)["pred_json"] for row in rows}
    random.Random(3).shuffle(rows)
    again = floors_of(priors)["train_prior"]
    assert {row["id"]: again(row)["pred_json"] for row in rows[:20]}.items() <= drawn.items()


def test_draws_follow_the_train_distribution():
    urn = Urn({"Cut": 3, "Stir": 1})
    drawn = [urn.draw(f"sample {i}") for i in range(2000)]
    assert drawn.count("Cut") / 2000 == pytest.approx(0.75, abs=0.03)
    assert Urn({}).draw("sample") is None


def test_a_drawn_label_is_graded_by_its_chance_to_be_right(priors, make_row):
    rows = [make_row("a", truth={"action": "Cut"}), make_row("b", truth={"action": "Never seen"}, seen=0)]
    metrics, _ = label_scores(rows, priors=priors, controls={}, label_options=["Cut"])
    floors = metrics["baselines"]["accuracy"]["floors"]
    assert floors == {"majority": 1 / 2, "train_prior": (3 / 4 + 0) / 2}
    assert metrics["baselines"]["seen_label_accuracy"]["floors"]["train_prior"] == 3 / 4
    assert metrics["baselines"]["unseen_label_accuracy"]["floors"]["train_prior"] == 0


def test_no_draw_of_60_small_splits_is_a_bar_that_a_worse_model_beats(make_row):
    """Contact is yes in 45 % of train and everywhere here; the model says so in 2 of 5 samples."""
    half = TrainPriors.fit(train_target(number, in_contact=number >= 11) for number in range(20))
    for split in range(60):
        rows = [
            make_row(
                f"{split}:{e}:{i}", episode=f"e{e}", said={"contact": "yes" if (i + e) % 5 < 2 else "no"}
            )
            for e in range(4)
            for i in range(5)
        ]
        metrics, _ = label_scores(rows, priors=half, controls={}, label_options=["Cut"])
        assert metrics["baselines"]["contact_accuracy"]["floors"] == {"majority": 0.0, "train_prior": 0.45}
        assert metrics["verdicts"]["contact"] == {
            "verdict": "does_not_beat_floor",
            "metric": "contact_accuracy",
            "floor": "train_prior",
        }


def test_a_floor_fitted_on_train_needs_train_answers(priors):
    assert floors_for("action", priors) == ("majority", "train_prior")
    assert floors_for("transition", priors) == ()
    assert floors_for("next_action", None) == ("same_as_now",)
    assert floors_for("evidence_window", None) == ("copy_prompt",)
    assert floors_for(None, priors) == ()
