"""Which metrics of a contract can be paired beside its questions, and why each other one is not compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from omni_mlflow.compared_runs import EvaluatedRun
from omni_mlflow.metrics.measures import Measure, measure_of_column, measure_of_form, why_no_column
from omni_mlflow.metrics.metrics_file import number_of
from omni_mlflow.metrics.pairing import Pairing, contradictions
from omni_mlflow.metrics.questions import METRIC_OF, ROW_SCORES

_APART = (
    "it is no mean over anchors (a macro-F1 averages over a class set of each run's own), so no differences "
    "at anchors add up to it; what is paired of {question} is {paired}"
)


def declared_measures(
    runs: Mapping[str, EvaluatedRun], pairing: Pairing
) -> tuple[list[Measure], dict[str, str]]:
    """Return the metrics without a question that every run has row by row, and why others are left out.

    They are the primary ones, and those whose column the rows hold.
    """
    primary = dict.fromkeys(
        name for run in runs.values() for name in run.primary if _grades_no_question(run, name)
    )
    held = dict.fromkeys(
        name
        for run in runs.values()
        for name in run.kinds
        if _grades_no_question(run, name) and run.predictions and name in run.predictions[0]
    )
    measures, left_out = [], {}
    for name in primary | held:
        why = _why_not_paired(name, runs, pairing)
        if why is not None:
            left_out[name] = why
        elif name in ROW_SCORES:
            measures.append(measure_of_form(name))
        else:
            measures.append(measure_of_column(name, next(iter(runs.values())).kinds[name]))
    return measures, left_out


def apart_from_questions(runs: Mapping[str, EvaluatedRun], compared: Collection[str]) -> dict[str, str]:
    """Say of each primary metric that grades a compared question why it is not what is paired of it."""
    return {
        name: _APART.format(question=question, paired=METRIC_OF[question])
        for run in runs.values()
        for name in run.primary
        if name in run.kinds
        and (question := run.kinds[name].question) in compared
        and question is not None
        and name not in (METRIC_OF[question], judged_by(run, question))
    }


def judged_by(run: EvaluatedRun, question: str) -> str | None:
    """Its own name of the metric on which the verdict of a question rests."""
    judged: str | None = (run.metrics.get("verdicts") or {}).get(question, {}).get("metric")
    return judged


def _grades_no_question(run: EvaluatedRun, metric: str) -> bool:
    return metric in run.kinds and run.kinds[metric].question is None


def _why_not_paired(metric: str, runs: Mapping[str, EvaluatedRun], pairing: Pairing) -> str | None:
    lacking = [name for name, run in runs.items() if metric not in run.kinds]
    if lacking:
        return f"not declared by {', '.join(lacking)}"
    if metric in ROW_SCORES:
        return None
    for name, run in runs.items():
        kind, reported = run.kinds[metric], number_of(run.metrics, metric)
        if why := why_no_column(metric, kind, run.predictions, reported=reported):
            return f"{why} (run {name})"
    kinds = [run.kinds[metric] for run in runs.values()]
    if any(kind != kinds[0] for kind in kinds):
        return "the runs declare it with another unit, direction or range"
    truth = kinds[0].truth
    if len({run.targets for run in runs.values()}) > 1:
        return "the runs were scored against different sealed targets"
    if truth is not None and any(contradictions(pairing, [truth])):
        return f"the runs were scored against different truths of {truth}"
    return None
