"""A backbone that answers no label question: what reports and comparisons say of its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from omni_mlflow.compared_runs import EvaluatedRun, NotComparableError, open_run
from omni_mlflow.metrics.comparison import Verdict
from omni_mlflow.paired_runs import facts_of, paired_answers
from omni_mlflow.reporting.comparison_forest import forest_plot
from omni_mlflow.reporting.comparison_page import render_markdown
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.run_report import render_run_report
from omni_mlflow.reporting.wording import findings
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import read_document
from omni_mlflow.stage_report import RulesBrokenError
from tests.conftest import Place
from tests.numeric_job import NUMERIC, write_numeric_contract
from tests.workbench import Workbench

OF_LABELS = ("JSON", "token", "repl", "action class", "Actions seen", "question", "F1", "A label drawn")


def run_to_its_report(bench: Workbench, changes: dict[str, Any]) -> None:
    for stage in ("export", "train", "gate", "evaluate", "validate", "report"):
        bench.run(stage, changes=changes)


@pytest.fixture(scope="module")
def workbenches(finished, tmp_path_factory) -> Iterator[list[Workbench]]:
    """Two finished jobs: the second one answers every sample 0.05 m farther."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(NUMERIC))
        found = []
        for offset_m in (0.0, 0.05):
            root = tmp_path_factory.mktemp("numeric")
            contract = write_numeric_contract(root / "numeric.yaml")
            bench = Workbench(finished.copy(root / "job"), [], contract)
            run_to_its_report(bench, {"settings.training.offset_m": offset_m})
            found.append(bench)
        yield found


@pytest.fixture
def first(workbenches) -> Workbench:
    return workbenches[0]


@pytest.fixture
def metrics(first) -> dict[str, Any]:
    return json.loads((first.evaluation / "metrics.json").read_text())


@pytest.fixture
def num_samples(first) -> int:
    return len((first.evaluation / "predictions.jsonl").read_text().splitlines())


@pytest.fixture
def markdown(first) -> str:
    return (first.evaluation / "RUN_REPORT.md").read_text()


@pytest.fixture
def page(first) -> str:
    return (first.backbone / "report/report.html").read_text()


# Reports


def test_both_reports_count_what_the_shared_stages_counted(markdown, page, metrics, num_samples):
    assert metrics["outcomes"]["answered"] == num_samples > 0
    assert f"| Held-out samples (anchors) | {num_samples} of {num_samples} answered |" in markdown
    assert "| Held-out episodes | 2 of 2 answered |" in markdown
    assert f"on {num_samples} samples of 2 held-out episodes" in page
    assert f"<td>{num_samples} of {num_samples} answered</td>" in page


def test_a_held_out_evaluation_names_its_samples_and_its_number_on_top(first, metrics, num_samples):
    facts = read_document(first.evaluation / "run_facts.json", RunFacts)
    report = render_run_report(facts.model_copy(update={"evidence": Evidence.HELD_OUT}))
    assert report.startswith(
        f"HELD-OUT EVALUATION: {num_samples} of {num_samples} held-out samples in 2 of 2 held-out episodes"
    )
    value = metrics["depth_mae_m"]
    assert (
        f"Mean error of the depth (m; lower is better) is {value:.3f} and undecided: no two episodes differ, "
        f"and the metric has no end: “mean of train” scores {value:.3f}, a difference of 0.000."
    ) in report
    assert "No floor was given" not in report


def test_a_primary_metric_without_a_floor_is_told_to_have_none_beside_one_that_has(first):
    facts = read_document(first.evaluation / "run_facts.json", RunFacts)
    primary = ("depth_mae_m", "depth_overshoot_m", "held_out_episode_count")
    changes = {"evidence": Evidence.HELD_OUT, "primary_metrics": primary}
    found = findings(facts.model_copy(update=changes))
    assert len(found) == 2
    assert "“mean of train” scores" in found[0]
    assert found[1].endswith("no interval. No floor was given to hold it against.")


def test_both_reports_show_the_floor_and_the_control_that_the_backbone_gave(workbenches):
    """The second training answers 0.05 m too far: farther than the floor, and less far than when leaning."""
    bench = workbenches[1]
    told = json.loads((bench.evaluation / "metrics.json").read_text())
    floor = told["baselines"]["depth_mae_m"]["floors"]["mean_of_train"]
    leaning = told["controls"]["leaning_forward"]["depth_mae_m"]
    value = told["depth_mae_m"]
    title = "Mean error of the depth (m; lower is better)"
    report = (bench.evaluation / "RUN_REPORT.md").read_text()
    assert f"| {title} | mean of train | {floor:.3f} | {floor - value:+.3f} | – |" in report
    worse = f"{leaning['difference']['value']:+.3f}"
    row = f"| leaning forward | {title} | {value:.3f} | {leaning['value']:.3f} | {floor:.3f} | {worse} | – |"
    assert row in report
    page = (bench.backbone / "report/report.html").read_text()
    assert "<td>mean of train</td>" in page
    assert "<td>leaning forward</td>" in page
    assert "With one input exchanged or removed" in page


def test_declared_metrics_stand_in_both_tables_the_primary_one_first(markdown, page, metrics):
    values = [f"{metrics[name]:.3f}" for name in ("depth_mae_m", "depth_overshoot_m")]
    titles = [f"Mean {what} of the depth (m; lower is better)" for what in ("error", "overshoot")]
    intervals = ["–", "no interval"]
    rows = [
        f"| {title} | {value} | {interval} |"
        for title, value, interval in zip(titles, values, intervals, strict=True)
    ]
    assert 0 < markdown.index(rows[0]) < markdown.index(rows[1])
    cells = [
        f'<td>{title}</td><td class="number">{value}</td><td class="number">{interval}</td>'
        for title, value, interval in zip(
            titles, (each.replace("-", "−") for each in values), intervals, strict=True
        )
    ]
    assert 0 < page.index(cells[0]) < page.index(cells[1])
    assert "No metric comes with a floor" not in markdown
    assert "No metric comes with a floor" not in page


def test_nothing_is_said_of_labels_replies_or_tokens(markdown, page):
    text = "".join(line for line in page.splitlines() if "data:image" not in line)
    assert [word for word in OF_LABELS if word in markdown] == []
    assert [word for word in OF_LABELS if word in text] == []


def test_the_loss_is_in_the_units_of_the_backbone(page):
    assert "The loss that the training wrote down, in the backbone's own units." in page.replace(
        "&#x27;", "'"
    )


def test_a_window_to_look_at_shows_the_numbers_of_its_row(first, page):
    row = json.loads((first.evaluation / "predictions.jsonl").read_text().splitlines()[0])
    assert f"<td>given_m</td><td>{row['given_m']}</td>" in page
    assert f"<td>depth_mae_m</td><td>{row['depth_mae_m']}</td>" in page


# What evaluate refuses, and what it takes


@pytest.fixture
def evaluate(first, tmp_path):
    """Evaluate the first training again, with something else said of its primary metric."""

    def run(says: str) -> Workbench:
        bench = Workbench(first.place.copy(tmp_path / "again"), [], first.contract)
        bench.run("evaluate", changes={"settings.training.offset_m": 0.0, "settings.scoring.says": says})
        return bench

    return run


def test_a_null_metric_with_a_reason_is_in_the_table_and_its_reason_below(evaluate):
    report = (evaluate("null with a reason").evaluation / "RUN_REPORT.md").read_text()
    assert "| Mean error of the depth (m; lower is better) | – | – |" in report
    assert "“depth_mae_m” has no value: no pixel of any sample has a depth." in report


@pytest.mark.parametrize(
    ("says", "found"), [("null", "found None"), ("nothing", "found missing"), ("a text", "found '0.")]
)
def test_a_primary_metric_that_is_no_number_and_unexplained_is_refused(evaluate, says, found):
    with pytest.raises(RulesBrokenError, match=f"primary_metric.*depth_mae_m(.|\n)*{found}") as told:
        evaluate(says)
    assert "a number, or null with a reason in more.reasons" in str(told.value)


def test_an_interval_of_a_metric_that_has_no_value_is_refused(evaluate):
    with pytest.raises(RulesBrokenError, match=r"interval_of_a_metric.*depth_rmse_m"):
        evaluate("an interval of nothing")


# Comparisons


@pytest.fixture
def two(workbenches, monkeypatch) -> list[EvaluatedRun]:
    return [run for bench in workbenches for run in open_run(str(bench.backbone), store=bench.place.store)]


def test_metrics_are_compared_by_the_values_of_the_rows(two):
    facts = facts_of(paired_answers(two))
    assert [metric.metric for metric in facts.metrics] == ["depth_mae_m", "depth_overshoot_m"]
    values = [[run.metrics[metric.metric] for run in two] for metric in facts.metrics]
    assert [[score.value for score in metric.scores] for metric in facts.metrics] == [
        pytest.approx(each) for each in values
    ]
    overshoot = facts.metrics[1]
    assert overshoot.contrasts[0].difference == pytest.approx(-0.05), "farther is worse where low is good"
    text = render_markdown(facts)
    assert "| Mean error of the depth (m; lower is better) | A |" in text
    assert "No label question is, so disagreements.csv is empty." in text
    assert forest_plot(facts).startswith(b"\x89PNG")


def test_of_a_metric_with_a_unit_no_episode_that_differs_from_none_bounds_an_interval(two):
    """Every sample differs by 0.05 m: two identical episodes say nothing of how far others may lie."""
    overshoot = facts_of(paired_answers(two)).metrics[1]
    assert (overshoot.contrasts[0].low, overshoot.contrasts[0].high) == (None, None)


def test_held_out_rows_are_called_tied_by_the_same_rules_as_labels(two):
    runs = [replace(run, facts=run.facts.model_copy(update={"evidence": Evidence.HELD_OUT})) for run in two]
    facts = facts_of(paired_answers(runs))
    assert {contrast.verdict for metric in facts.metrics for contrast in metric.contrasts} == {Verdict.TIED}
    assert "Mean error of the depth (m; lower is better): B is tied with A" in render_markdown(facts)


def without_columns(run: EvaluatedRun) -> EvaluatedRun:
    rows = [{key: value for key, value in row.items() if "depth_" not in key} for row in run.predictions]
    return replace(run, predictions=rows)


def test_runs_whose_rows_hold_no_values_are_refused_with_what_they_would_need(two):
    with pytest.raises(NotComparableError) as told:
        paired_answers([without_columns(run) for run in two])
    assert str(told.value) == (
        "these runs answer no label question, and no metric that they declare can be paired: depth_mae_m: "
        "no column of its name holds its value for each row of the predictions (run A)"
    )


def test_a_column_that_is_not_what_the_metric_averages_is_not_compared(two):
    first, second = two
    rows = [{**row, "depth_mae_m": row["depth_mae_m"] + 1} for row in second.predictions]
    answers = paired_answers([first, replace(second, predictions=rows)])
    assert [measure.metric for measure in answers.measures] == ["depth_overshoot_m"]
    assert "has the mean 1." in answers.left_out["depth_mae_m"]
    assert "depth_mae_m is not compared: the column of its name" in render_markdown(facts_of(answers))


def test_a_column_of_something_else_than_numbers_is_not_compared(two):
    first, second = two
    rows = [{**row, "depth_mae_m": "far"} for row in second.predictions]
    left_out = paired_answers([first, replace(second, predictions=rows)]).left_out
    assert "something else than numbers and null (run B)" in left_out["depth_mae_m"]


def test_errors_against_other_targets_are_not_compared(two):
    first, second = two
    with pytest.raises(NotComparableError, match="scored against different sealed targets"):
        paired_answers([first, replace(second, targets="0" * 64)])


@pytest.mark.slow
def test_the_command_line_runs_and_compares_it(empty, tmp_path):
    contract = write_numeric_contract(tmp_path / "numeric.yaml")

    class WithNumeric(Place):
        @property
        def environment(self):
            inherited = super().environment
            return {**inherited, "PYTHONPATH": f"{NUMERIC}:{inherited['PYTHONPATH']}"}

    for name, offset in (("one", 0.0), ("other", 0.05)):
        place = WithNumeric(empty.root, empty.data_root)
        options = ("--backbone", "numeric", "--contract", str(contract))
        where = ("--workspace", str(tmp_path / name))
        done = place.run("main", *options, *where, "--set", f"training.offset_m={offset}")
        assert done.returncode == 0, done.stderr
    folders = [str(tmp_path / name) for name in ("one", "other")]
    told = place.run_as_typed("compare", *folders, "--workspace", str(place.workspace), "--json")
    assert told.returncode == 0, told.stderr
    assert [metric["metric"] for metric in json.loads(told.stdout)["metrics"]] == [
        "depth_mae_m",
        "depth_overshoot_m",
    ]
