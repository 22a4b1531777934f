"""Two trainings of the trivial backbone, held against each other through a real store and as workspaces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from omni_mlflow.compared_runs import EvaluatedRun, NotComparableError, open_run
from omni_mlflow.comparison import Comparing, compare
from omni_mlflow.metrics.errors import UnpairedError
from omni_mlflow.metrics.metric import LABEL_METRICS, Metric
from omni_mlflow.paired_runs import facts_of, paired_answers
from omni_mlflow.reporting.comparison_forest import forest_plot
from omni_mlflow.reporting.comparison_page import render_html, render_markdown
from omni_mlflow.reporting.comparison_tables import common_anchors, results_rows, tables
from omni_mlflow.spine.evidence import Evidence
from tests.conftest import PROJECT, TRIVIAL, Place

FILES = {
    "comparison.json",
    "comparison.csv",
    "comparison.md",
    "comparison.html",
    "disagreements.csv",
    "forest.png",
}


@pytest.fixture(scope="module")
def trained_again(finished, tmp_path_factory) -> Place:
    """The finished job, and after it one with fewer steps and a seed that leaves every third anchor out."""
    place = finished.copy(tmp_path_factory.mktemp("comparison"))
    done = place.run("main", "--set", "training.steps=10,training.seed=30")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def pipelines(trained_again) -> list[str]:
    return [run.info.run_id for run in trained_again.runs() if run.data.tags["omni.stage"] == "main"]


@pytest.fixture(scope="module")
def compared(trained_again, pipelines) -> tuple[Place, dict]:
    """What ``compare --json`` printed about the two pipeline runs."""
    place = trained_again
    options = ("--workspace", str(place.workspace), "--out", "shown", "--json")
    done = place.run_as_typed("compare", *pipelines, *options)
    assert done.returncode == 0, done.stderr
    return place, json.loads(done.stdout)


@pytest.fixture
def open_all(monkeypatch, trained_again):
    """Open evaluations by run id or by folder, in this process."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained_again.store)

    def run(*given: str) -> list[EvaluatedRun]:
        return [run for name in given for run in open_run(name, store=trained_again.store)]

    return run


@pytest.fixture
def two(open_all, finished, trained_again) -> list[EvaluatedRun]:
    return open_all(str(finished.workspace), str(trained_again.workspace / "trivial"))


def with_settings(run: EvaluatedRun, **changes) -> EvaluatedRun:
    settings = {"training": {**run.training["settings"]["training"], **changes}}
    return replace(run, training={**run.training, "settings": settings})


# Through the tracking store


def test_a_comparison_is_a_finished_run_that_names_the_compared_runs_and_shows_every_file(
    compared, pipelines
):
    place, _ = compared
    [run] = [run for run in place.runs() if run.data.tags["omni.stage"] == "compare"]
    tags = run.data.tags
    assert (run.info.status, tags["omni.outcome"], tags["omni.evidence"]) == ("FINISHED", "ok", "synthetic")
    assert [tags["omni.upstream.evaluate_A"], tags["omni.upstream.evaluate_B"]] == pipelines
    assert not [name for name in tags if name.startswith("omni.verdict")], "the episodes are generated"
    assert tags["mlflow.note.content"].startswith("SYNTHETIC DATA")
    assert {path.name for path in place.artifacts(run)} == FILES
    assert run.data.params["runs"] == ",".join(pipelines)
    assert run.data.metrics["compare/anchors"] == 18


def test_out_holds_the_same_files_and_stdout_is_comparison_json(compared):
    place, printed = compared
    out = place.root / "shown"
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "comparison.json").read_text()) == printed
    assert (out / "forest.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_line_says_that_synthetic_runs_are_no_result(compared):
    place, printed = compared
    assert printed["evidence"] == "synthetic"
    text = (place.root / "shown" / "comparison.md").read_text()
    assert text.splitlines()[0].startswith("SYNTHETIC DATA: this comparison says nothing about model quality")


def test_each_anchor_that_one_run_leaves_out_is_a_listed_disagreement(compared):
    place, printed = compared
    header, *lines = (place.root / "shown" / "disagreements.csv").read_text().splitlines()
    assert header.split(",")[:5] == ["episode_id", "anchor", "id", "question", "truth"]
    assert {int(line.split(",")[1]) % 30 for line in lines} == {0}
    assert printed["disagreements"] == len(lines) == 6  # anchors 30, 60 and 90 of two episodes


def test_two_episodes_can_show_nothing_and_the_page_says_so(compared):
    place, printed = compared
    assert printed["fewest_episodes"] == 6
    assert "needs at least 6" in (place.root / "shown" / "comparison.md").read_text()


def test_the_store_and_the_workspaces_tell_the_same(compared, open_all, two, pipelines):
    def told(runs):
        facts = facts_of(paired_answers(runs)).model_dump(mode="json")
        for row in facts["rows"]:
            for run in row["runs"]:
                del run["given"], run["key"]
        return facts

    assert told(open_all(*pipelines)) == told(two)


def test_the_page_loads_nothing_and_the_same_runs_give_the_same_bytes(two):
    facts = facts_of(paired_answers(two))
    page = render_html(facts, forest=forest_plot(facts))
    assert page == render_html(facts, forest=forest_plot(facts))
    assert 'src="data:image/png;base64,' in page
    assert "://" not in page
    assert "<script" not in page


def test_a_person_at_the_terminal_reads_class_tables_and_anchors(two):
    facts = facts_of(paired_answers(two))
    rows, results, unanswered, power = tables(facts)
    assert [row[:2] for row in rows.rows] == [
        ("A", "trivial, training.steps=12"),
        ("B", "trivial, training.steps=10"),
    ]
    assert [(row[1], row[-1]) for row in results.rows] == [("A", "reference"), ("B", "–")]
    assert unanswered.rows == ()
    assert len(power.header) == 6
    assert common_anchors(facts).startswith("18 anchors in 2 episodes are answered by every run")


@pytest.mark.parametrize(
    ("evidence", "verdict", "told"),
    [
        (Evidence.HELD_OUT, "tied", "Action accuracy: B is tied with A, "),
        (Evidence.SMOKE, "–", "Not every run is a held-out result: B: the guard did not pass this split. So"),
        (Evidence.SYNTHETIC, "–", "The episodes were generated, "),
    ],
)
def test_only_held_out_runs_are_called_better_worse_or_tied(two, evidence, verdict, told):
    first, second = (
        replace(run, facts=run.facts.model_copy(update={"evidence": each, "shortcomings": why}))
        for run, each, why in (
            (two[0], Evidence.HELD_OUT, ()),
            (two[1], evidence, ("the guard did not pass this split",)),
        )
    )
    facts = facts_of(paired_answers([first, second]))
    page = render_markdown(facts)
    _, results, *_ = tables(facts)
    assert [row[-1] for row in results.rows] == ["reference", verdict]
    assert told in page
    assert (f"{facts.metrics[0].contrasts[0].difference:+.3f}" in page) or "0.000" in page
    said = {word for word in ("is tied", "is better than", "is worse than", "Better") if word in page}
    assert said == ({"is tied"} if evidence is Evidence.HELD_OUT else set())
    assert {row["verdict"] for row in results_rows(facts)} == {
        None,
        "tied" if evidence is Evidence.HELD_OUT else None,
    }


# Metrics beside the questions


def with_metrics(run: EvaluatedRun, columns: dict[str, list], **metrics) -> EvaluatedRun:
    """As if its contract named four other metrics, and its rows and metrics.json held these values."""
    rows = [
        {**row, **{name: cells[place % len(cells)] for name, cells in columns.items()}}
        for place, row in enumerate(run.predictions)
    ]
    kinds = {
        **run.kinds,
        "joint_error": Metric(title="Joint error", unit="mm", better="lower"),
        "object_f1": Metric(title="Objects", truth="objects"),
        "json_validity_rate": LABEL_METRICS["json_validity_rate"],
        "action_macro_f1": LABEL_METRICS["action_macro_f1"],
    }
    named = ("joint_error", "object_f1", "json_validity_rate", "action_macro_f1")
    return replace(run, kinds=kinds, primary=named, predictions=rows, metrics={**run.metrics, **metrics})


def test_primary_metrics_that_are_sums_over_rows_are_paired_and_each_other_one_is_told(two):
    first, second = two
    replies = {"raw_prediction": ["no idea"], "true_json": [{"objects": ["jug"]}]}
    overlap = {"object_f1": [{"sum": 2, "of": 2}, {"sum": 0, "of": 2}]}
    near = {"joint_error": [{"sum": 10.0, "of": 2}, {"sum": 40.0, "of": 8}, None]}
    far = {"joint_error": [{"sum": 20.0, "of": 2}, {"sum": 80.0, "of": 8}, None]}
    facts = facts_of(
        paired_answers(
            [
                with_metrics(first, {**replies, **overlap, **near}, joint_error=5.0, object_f1=0.5),
                with_metrics(second, {**replies, **overlap, **far}, joint_error=10.0, object_f1=0.5),
            ]
        )
    )
    told = {each.metric: each for each in facts.metrics}
    assert told.keys() == {"accuracy", "joint_error", "object_f1", "json_validity_rate"}
    assert [score.value for score in told["joint_error"].scores] == [5.0, 10.0]
    assert told["joint_error"].contrasts[0].difference == -5.0, "lower is better, so the second one is worse"
    assert told["joint_error"].anchors == 12, "every third row has nothing valid"
    assert told["json_validity_rate"].contrasts[0].difference == 0
    assert list(facts.not_compared) == ["action_macro_f1"]
    assert "action_macro_f1 is not compared: it is no mean over anchors" in render_markdown(facts)


def test_an_episode_of_which_one_run_alone_names_an_object_is_compared_all_the_same(two):
    """Nothing is there, so what counts hangs on the answers: nothing in one run, one in the other."""
    first, second = two
    alone = first.predictions[0]["episode_id"]
    cells = [
        [
            {"sum": 0, "of": invented} if row["episode_id"] == alone else {"sum": 2, "of": 2}
            for row in run.predictions
        ]
        for run, invented in ((first, 0), (second, 1))
    ]
    values = [sum(each["sum"] for each in cell) / sum(each["of"] for each in cell) for cell in cells]
    told = {"true_json": [{"objects": ["jug"]}]}
    runs = [
        with_metrics(run, {**told, "object_f1": cell}, object_f1=value)
        for run, cell, value in zip(two, cells, values, strict=True)
    ]
    [objects] = [each for each in facts_of(paired_answers(runs)).metrics if each.metric == "object_f1"]
    assert [score.value for score in objects.scores] == pytest.approx(values)


def test_objects_of_another_truth_are_not_compared(two):
    cells = {"object_f1": [{"sum": 2, "of": 2}]}
    runs = [
        with_metrics(run, {**cells, "true_json": [{"objects": [thing]}]}, object_f1=1.0)
        for run, thing in zip(two, ("jug", "cup"), strict=True)
    ]
    answers = paired_answers(runs)
    assert answers.left_out["object_f1"] == "the runs were scored against different truths of objects"
    assert answers.left_out["joint_error"].startswith("no column of its name holds its value")


# What forms a row


def test_rows_are_told_apart_by_the_settings_in_which_they_differ(two):
    facts = facts_of(paired_answers(two))
    assert [(row.name, row.settings) for row in facts.rows] == [
        ("A", {"training.steps": "12"}),
        ("B", {"training.steps": "10"}),
    ]
    assert [run.seed for row in facts.rows for run in row.runs] == ["0", "30"]


def test_runs_that_differ_in_their_seed_alone_are_one_row_with_their_spread(two):
    first, second = two
    same = with_settings(second, steps=12)
    facts = facts_of(paired_answers([first, same]))
    [row] = facts.rows
    assert [run.name for run in row.runs] == ["A1", "A2"]
    [action] = facts.metrics
    assert set(action.scores[0].seeds.by_run) == {"A1", "A2"}
    assert action.contrasts == ()
    assert "no other row" in render_markdown(facts)


def test_a_seed_that_was_trained_twice_is_in_the_row_twice_and_no_row_of_its_own(two):
    first, second = two
    same = with_settings(second, steps=12)
    again = replace(same, given="again", training={**same.training, "finished": "later"})
    facts = facts_of(paired_answers([first, same, again]))
    [row] = facts.rows
    assert [(run.name, run.seed) for run in row.runs] == [("A1", "0"), ("A2", "30"), ("A3", "30")]
    assert row.title == "A: trivial, mean of 3 runs with 2 seeds"


def test_runs_with_one_seed_and_the_same_settings_are_rows_of_their_own(two):
    _, second = two
    again = replace(second, given="again", training={**second.training, "finished": "later"})
    assert len(facts_of(paired_answers([second, again])).rows) == 2


@pytest.mark.parametrize("part", ["dataset_digest", "code_digest", "base_revision"])
def test_another_dataset_code_or_base_is_another_row_whatever_the_seed(two, part):
    first, second = two
    other = with_settings(second, steps=12)
    other = replace(other, training={**other.training, part: "0" * 64})
    assert len(facts_of(paired_answers([first, other])).rows) == 2


def test_another_decoding_is_another_row_whatever_the_seed(two):
    first, second = two
    other = with_settings(second, steps=12)
    identity = {**other.facts.identity, "decoding": "0" * 64}
    other = replace(other, facts=other.facts.model_copy(update={"identity": identity}))
    rows = facts_of(paired_answers([first, other])).rows
    assert [row.settings for row in rows] != [{}, {}]
    assert rows[1].settings["answers.decoding"] == "0" * 12


def test_the_class_of_a_comparison_is_the_lowest_of_its_runs(two):
    for classes, lowest in (
        ((Evidence.HELD_OUT, Evidence.HELD_OUT), "HELD-OUT COMPARISON"),
        ((Evidence.HELD_OUT, Evidence.SMOKE), "SMOKE RUNS"),
        ((Evidence.SYNTHETIC, Evidence.SMOKE), "SYNTHETIC DATA"),
    ):
        runs = [
            replace(run, facts=run.facts.model_copy(update={"evidence": each}))
            for run, each in zip(two, classes, strict=True)
        ]
        assert render_markdown(facts_of(paired_answers(runs))).startswith(lowest)


def test_the_power_table_plans_with_the_reference_and_with_the_best_floor(two):
    """B is right in all of one episode and in nothing of the other, as are reference and floor nowhere."""
    first, second = two
    solved = second.predictions[0]["episode_id"]
    rows = [
        {**row, "predicted_label": row["true_label"] if row["episode_id"] == solved else None}
        for row in second.predictions
    ]
    better = replace(second, predictions=rows, best_floors={"accuracy": "majority"})
    plans = facts_of(paired_answers([first, better])).power
    assert [(plan.row, plan.against) for plan in plans] == [("B", "A"), ("B", "majority")]
    assert [plan.deviation for plan in plans] == pytest.approx([0.5**0.5] * 2)
    assert list(plans[0].detectable) == [2, 32, 64]


def test_no_file_of_a_comparison_holds_a_path_of_this_machine(two):
    facts = facts_of(paired_answers(two))
    assert [run.given for row in facts.rows for run in row.runs] == ["workspace/trivial"] * 2


# Anchors outside the intersection


def test_every_anchor_that_a_run_does_not_answer_is_counted_with_its_reason(two):
    first, second = two
    window = second.predictions[1]["id"]
    shorter = replace(
        second,
        predictions=second.predictions[2:],
        skipped={window: "its context leaves the episode"},
        facts=second.facts.model_copy(update={"limit": 16}),
    )
    lost = shorter.predictions[0]["id"]
    facts = shorter.facts.model_copy(update={"infrastructure_failed": (lost,)})
    shorter = replace(shorter, predictions=shorter.predictions[1:], facts=facts)
    facts = facts_of(paired_answers([first, shorter]))
    assert facts.anchors == len(first.predictions) - 3
    assert facts.rows[0].runs[0].unanswered == {}
    assert facts.rows[1].runs[0].unanswered == {
        "evaluated with --limit 16": 1,
        "its context leaves the episode": 1,
        "the infrastructure left it unanswered": 1,
    }


# What is refused


def test_another_split_is_refused_by_the_name_of_its_tag(two):
    first, second = two
    other = replace(second, facts=second.facts.model_copy(update={"split_digest": "f" * 64}))
    with pytest.raises(NotComparableError, match=r"omni.split_digest differs: \w{16} .*ffffffffffffffff"):
        paired_answers([first, other])


def test_another_truth_at_an_anchor_is_refused(two):
    first, second = two
    row = {**second.predictions[0], "true_label": "Dance"}
    other = replace(second, predictions=[row, *second.predictions[1:]])
    with pytest.raises(NotComparableError, match=r"different truths, at 1 places: .*'Dance' in B"):
        paired_answers([first, other])


def test_one_evaluation_named_twice_and_a_single_one_are_refused(open_all, two, finished):
    with pytest.raises(NotComparableError, match="are the same evaluation"):
        paired_answers([two[0], *open_all(str(finished.workspace / "trivial"))])
    looked_again = two[0].facts.model_copy(update={"seal_openings": two[0].facts.seal_openings + 1})
    with pytest.raises(NotComparableError, match="are the same evaluation"):
        paired_answers([two[0], replace(two[0], facts=looked_again)])
    with pytest.raises(NotComparableError, match="needs two evaluations"):
        paired_answers(two[:1])


def test_runs_without_a_common_question_or_anchor_are_refused(two):
    first, second = two
    with pytest.raises(
        NotComparableError, match="no question is answered by every run: action: not asked by B"
    ):
        paired_answers([first, replace(second, asked=("next_action",))])
    moved = [{**row, "anchor": row["anchor"] + 1} for row in second.predictions]
    with pytest.raises(UnpairedError, match="no anchor"):
        paired_answers([first, replace(second, predictions=moved)])


def test_a_run_that_is_not_finished_or_not_there_or_evaluates_nothing_is_refused(open_all, trained_again):
    import mlflow

    client = mlflow.MlflowClient(trained_again.store)
    [experiment] = [each for each in client.search_experiments() if each.name == "omni-mlflow"]
    running = client.create_run(experiment.experiment_id, tags={"omni.backbone": "trivial"})
    training = next(run for run in trained_again.runs() if run.data.tags.get("omni.stage") == "train")
    for name, refusal in (
        (running.info.run_id, "is RUNNING; only a finished run"),
        ("0" * 32, "neither a folder nor a run of the tracking store"),
        (training.info.run_id, "not validated as an evaluation"),
        (str(trained_again.root / "shown"), "holds no finished evaluation"),
    ):
        with pytest.raises(NotComparableError, match=refusal):
            open_all(name)
    client.delete_run(running.info.run_id)


def asked_about_contact(run, *, known, floor):
    """The run as one that is always asked what contact comes next; ``known`` says where now is annotated."""
    rows = []
    for number, row in enumerate(run.predictions):
        truth = {
            **row["true_json"],
            "contact": ("yes" if number % 3 else "no") if known(number) else "unknown",
            "next_contact": "yes" if number % 2 else "no",
        }
        said = {**(row["pred_json"] or {}), "next_contact": "yes" if number % 5 else "no"}
        rows.append({**row, "true_json": truth, "pred_json": said})
    floors = {"next_contact_accuracy": floor}
    return replace(run, predictions=rows, asked=("next_contact",), best_floors=floors)


def power_against_now(runs):
    return [plan for plan in facts_of(paired_answers(runs)).power if plan.against == "same_as_now"]


def test_the_power_over_same_as_now_is_that_of_the_anchors_whose_now_is_known(two, monkeypatch):
    first, again = two[0], replace(two[0], given="again", key="another")
    monkeypatch.setattr("omni_mlflow.paired_runs._check_runs", lambda runs: None)
    everywhere, somewhere = (
        [asked_about_contact(run, known=known, floor="same_as_now") for run in (first, again)]
        for known in (lambda _: True, lambda number: number % 4 > 0)
    )
    only_known = [
        replace(run, predictions=[row for row in run.predictions if row["true_json"]["contact"] != "unknown"])
        for run in somewhere
    ]
    found = power_against_now(somewhere)
    assert found == power_against_now(only_known)
    assert found != power_against_now(everywhere)


def test_runs_whose_common_anchors_lack_what_is_now_are_compared_without_that_power(two):
    first, second = two
    few = asked_about_contact(second, known=lambda _: False, floor="majority")
    few = replace(few, predictions=few.predictions[:3])
    shared = {(row["episode_id"], row["anchor"]) for row in few.predictions}
    whole = asked_about_contact(first, known=lambda _: False, floor="same_as_now")
    truths = {(row["episode_id"], row["anchor"]): row["true_json"] for row in few.predictions}
    rows = [
        {**row, "true_json": truths.get((row["episode_id"], row["anchor"]), row["true_json"])}
        for row in whole.predictions
    ]
    assert shared & {(row["episode_id"], row["anchor"]) for row in rows}
    assert power_against_now([replace(whole, predictions=rows), few]) == []


def test_a_workspace_whose_look_at_the_truths_is_in_no_ledger_is_refused(open_all, finished, tmp_path):
    place = finished.copy(tmp_path)
    assert open_all(str(place.workspace))
    (place.workspace / "seal_ledger.jsonl").unlink()
    with pytest.raises(NotComparableError, match=r"opening_is_recorded .*put the ledger back"):
        open_all(str(place.workspace))


def test_a_contract_that_is_not_the_one_the_run_was_made_with_is_refused(open_all, trained_again):
    from mlflow.utils.file_utils import local_file_uri_to_path

    evaluation = next(run for run in trained_again.runs() if run.data.tags.get("omni.stage") == "evaluate")
    shown = Path(local_file_uri_to_path(evaluation.info.artifact_uri)) / "contract.json"
    before = shown.read_text()
    assert [run.asked for run in open_all(evaluation.info.run_id)] == [("action",)]
    assert [run.asked for run in open_all(evaluation.data.tags["omni.run_key"])] == [("action",)]
    shown.write_text(before.replace('"steps": 12', '"steps": 13'))
    with pytest.raises(NotComparableError, match=r"made with contract \w{16}, but its contract\.json is"):
        open_all(evaluation.info.run_id)
    shown.unlink()
    with pytest.raises(NotComparableError, match=r"holds no contract\.json"):
        open_all(evaluation.info.run_id)
    shown.write_text(before)


def test_of_three_rows_the_first_one_named_is_the_reference_and_the_page_says_so(two):
    first, second = two
    third = with_settings(second, steps=11)
    facts = facts_of(paired_answers([second, first, third]))
    assert [(each.row, each.reference) for each in facts.metrics[0].contrasts] == [("B", "A"), ("C", "A")]
    assert facts.rows[0].settings == {"training.steps": "10"}
    assert "A is the reference, because it was named first." in render_markdown(facts)
    assert "is the reference" not in render_markdown(facts_of(paired_answers(two)))


def test_a_workspace_that_the_validator_refuses_is_refused_with_the_rule(open_all, place):
    metrics = place.workspace / "trivial/evaluate/metrics.json"
    metrics.write_text('{"action_accuracy": NaN}')
    with pytest.raises(NotComparableError, match=r"rule\(s\) broken: sealed_file_is_unchanged"):
        open_all(str(place.workspace))


def test_a_refused_comparison_is_a_failed_run_with_its_reason(monkeypatch, finished, empty):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    request = Comparing(
        runs=(str(finished.workspace),),
        project=PROJECT,
        workspace=empty.workspace,
        store=empty.store,
        out=None,
        outer=None,
    )
    with pytest.raises(NotComparableError, match="needs two evaluations"):
        compare(request, say=lambda _: None)
    [run] = empty.runs()
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("FAILED", "refused")
    assert run.data.tags["omni.stage"] == "compare"
    assert "needs two evaluations" in run.data.tags["mlflow.note.content"]


def test_a_run_whose_shown_number_is_not_that_of_its_files_cannot_be_compared(monkeypatch, place):
    import mlflow

    monkeypatch.syspath_prepend(str(TRIVIAL))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.store)
    [main] = [run.info.run_id for run in place.runs() if run.data.tags["omni.stage"] == "main"]
    mlflow.MlflowClient(place.store).log_metric(main, "action_accuracy", 0.9)
    with pytest.raises(NotComparableError, match=r"shown_metric_is_that_of_the_files .*found 0\.9"):
        list(open_run(main, store=place.store))
