"""Everything that ``metrics.json`` says about structured answers.

Published names lie flat at the top with their published definitions. What makes them mean something lies
beside them: ``intervals``, ``baselines``, ``clusters``, ``verdicts``, ``controls`` and ``more``. A number
that cannot be had is null, and ``more.reasons`` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omni_mlflow.metrics.answers import LABEL_QUESTIONS, PredictionRow, RowScore
from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError, or_none
from omni_mlflow.metrics.floors import expected_accuracy, floor_rows, floors_for
from omni_mlflow.metrics.labels import (
    action_macro_f1,
    closed_vocabulary_ceiling,
    degenerate_questions,
    published_classes,
    published_metrics,
    score_rows,
    supported_classes,
)
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import (
    BEATS_FLOOR,
    DOES_NOT_BEAT_FLOOR,
    METRIC_OF,
    QUESTION_OF,
    ROW_SCORES,
)
from omni_mlflow.metrics.uncertainty import (
    EpisodeEstimate,
    effective_sample_size,
    interval,
    intraclass_correlation,
    sign_flip_p_value,
)

_DIGITS = 9  # limits come out of matrix products, whose last bits differ between processors


@dataclass(frozen=True)
class _Exam:
    """The rows of the intact model, those of every floor, and what is fixed before scoring."""

    rows: Sequence[PredictionRow]
    floors: Mapping[str, Sequence[PredictionRow]]
    label_options: Sequence[str]
    declared: Sequence[str]
    supported: Sequence[str]

    def measure(self, metric: str, rows: Sequence[PredictionRow]) -> EpisodeEstimate:
        if metric == "action_macro_f1":
            return action_macro_f1(rows, published_classes(rows, label_options=self.label_options))
        if metric == "supported_class_macro_f1":
            return action_macro_f1(rows, self.supported)
        return score_rows(rows, ROW_SCORES[metric])


def label_scores(
    rows: Sequence[PredictionRow],
    *,
    priors: TrainPriors | None,
    controls: Mapping[str, Sequence[PredictionRow]],
    label_options: Sequence[str],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Score predictions of one model on one split.

    Args:
        rows: published prediction rows, one per sample; the order does not matter.
        priors: fitted on the train episodes; None when unknown, then only the floors without a fit are used.
        controls: rows for the same samples with one input exchanged or removed, by control name.
        label_options: action labels offered in the prompt; with every train label they are the declared
            classes.

    Returns:
        The content of ``metrics.json``, and the few numbers to compare in a tracker.

    Raises:
        UnpairedError: a control answers other samples than ``rows``.
    """
    for name, answered in controls.items():
        _same_samples(name, rows, answered)
    declared = list(dict.fromkeys([*label_options, *(priors.action if priors else ())]))
    exam = _Exam(
        rows=rows,
        floors=floor_rows(rows, priors or TrainPriors.fit([])),
        label_options=label_options,
        declared=declared,
        supported=supported_classes(rows, declared=declared),
    )
    reasons: dict[str, str] = {}
    estimates = dict(_estimates(exam, reasons))
    baselines = {name: _baseline(exam, name, estimate, priors) for name, estimate in estimates.items()}
    reasons |= _why_absent(exam, baselines)
    metrics = {
        **published_metrics(rows, label_options=label_options),
        "intervals": {name: _interval(estimate) for name, estimate in estimates.items()},
        "baselines": {name: baseline for name, baseline in baselines.items() if baseline},
        "verdicts": _verdicts(baselines),
        "controls": {
            name: _control(exam, answered, estimates, baselines) for name, answered in controls.items()
        },
        "clusters": _clusters(exam, estimates),
        "more": {**_more(exam, estimates), "reasons": reasons},
    }
    return metrics, headline(metrics)


def _why_absent(exam: _Exam, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    reasons = {
        f"baselines.{name}": "no train sample answers this question, so there is no floor"
        for name, baseline in baselines.items()
        if QUESTION_OF[name] and not baseline
    }
    if len({row["episode_id"] for row in exam.rows}) < 2:
        reasons["intervals"] = "an interval over episodes needs at least two of them"
    return reasons


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Pick the verdict-bearing numbers, and by how much each exceeds its best floor."""
    values = {name: _value(metrics, name) for name in QUESTION_OF}
    over_floor = {
        f"{name}_over_floor": baseline["difference"]["value"]
        for name, baseline in metrics["baselines"].items()
        if name in METRIC_OF.values()
    }
    counts = {
        "held_out_episode_count": metrics["held_out_episode_count"],
        "num_samples": metrics["num_samples"],
    }
    found = {**values, **over_floor, **counts}
    return {name: float(value) for name, value in found.items() if value is not None}


def _value(metrics: Mapping[str, Any], name: str) -> Any:
    return metrics[name] if name in metrics else metrics["more"].get(name)


def _estimates(exam: _Exam, reasons: dict[str, str]) -> Iterator[tuple[str, EpisodeEstimate]]:
    for name in QUESTION_OF:
        try:
            yield name, exam.measure(name, exam.rows)
        except NothingToScoreError as error:
            reasons[name] = str(error)


def _interval(estimate: EpisodeEstimate) -> dict[str, Any]:
    found = or_none(interval, estimate)
    if found is None:
        return {"low": None, "high": None, "method": None}
    return {"low": _rounded(found.low), "high": _rounded(found.high), "method": found.method}


def _difference(estimate: EpisodeEstimate, other: EpisodeEstimate) -> dict[str, Any]:
    """The paired difference over the same samples, its interval and the exact sign-flip p-value."""
    difference = estimate - other
    p_value = _rounded(sign_flip_p_value(difference))
    return {"value": _rounded(difference.value), **_interval(difference), "p_value": p_value}


def _baseline(
    exam: _Exam, metric: str, estimate: EpisodeEstimate, priors: TrainPriors | None
) -> dict[str, Any]:
    """Every floor of a metric, the model's difference to each, and which of them is the best.

    The floor that draws at random is ranked by its expected accuracy, so that no lucky draw becomes the bar.
    """
    question = QUESTION_OF[metric]
    names = floors_for(question, priors)
    measured = {name: or_none(exam.measure, metric, exam.floors[name]) for name in names}
    floors = {name: floor for name, floor in measured.items() if floor is not None}
    if not floors:
        return {}
    expected: dict[str, float] = {}
    if (
        metric == METRIC_OF[question or ""]
        and question in LABEL_QUESTIONS
        and "train_prior" in floors
        and priors
    ):
        expected["train_prior"] = expected_accuracy(exam.rows, question, priors)
    best = max(floors, key=lambda name: expected.get(name, floors[name].value))
    return {
        "floors": {name: floor.value for name, floor in floors.items()},
        "expected": expected,
        "best": best,
        "difference": _difference(estimate, floors[best]),
        "differences": {name: _difference(estimate, floor) for name, floor in floors.items()},
    }


def _verdicts(baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By question: does the interval of the paired difference to the best floor lie above zero?"""
    verdicts = {}
    for question, metric in METRIC_OF.items():
        baseline = baselines.get(metric)
        if not baseline:
            continue
        low = baseline["difference"]["low"]
        beats = None if low is None else BEATS_FLOOR if low > 0 else DOES_NOT_BEAT_FLOOR
        verdicts[question] = {"verdict": beats, "metric": metric, "floor": baseline["best"]}
    return verdicts


def _control(
    exam: _Exam,
    answered: Sequence[PredictionRow],
    estimates: Mapping[str, EpisodeEstimate],
    baselines: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Every metric under one control: how far the intact run lies above it, and it above the best floor."""
    found: dict[str, Any] = {}
    for metric, estimate in estimates.items():
        under_control = or_none(exam.measure, metric, answered)
        if under_control is not None:
            found[metric] = {
                "value": under_control.value,
                "difference": _difference(estimate, under_control),
                "over_floor": _over_best_floor(exam, metric, under_control, baselines.get(metric)),
            }
    return found


def _over_best_floor(
    exam: _Exam, metric: str, estimate: EpisodeEstimate, baseline: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    if not baseline:
        return None
    return _difference(estimate, exam.measure(metric, exam.floors[baseline["best"]]))


def _clusters(exam: _Exam, estimates: Mapping[str, EpisodeEstimate]) -> dict[str, Any]:
    """How many independent episodes there are, and what the samples of each are worth."""
    sizes = Counter(row["episode_id"] for row in exam.rows)
    return {
        "episodes": len(sizes),
        "samples": len(exam.rows),
        "samples_per_episode": {episode: sizes[episode] for episode in sorted(sizes)},
        "worth": {
            metric: _worth(exam.rows, ROW_SCORES[metric])
            for metric in estimates
            if metric in ROW_SCORES and metric != "object_micro_f1"  # means of one number per sample
        },
    }


def _worth(rows: Sequence[PredictionRow], score: RowScore) -> dict[str, float | None]:
    scored = [(part[0], row["episode_id"]) for row in rows if (part := score(row)) is not None]
    values, episodes = [value for value, _ in scored], [episode for _, episode in scored]
    effective = or_none(effective_sample_size, values, episodes)
    correlation = or_none(intraclass_correlation, values, episodes)
    return {
        "samples": len(values),
        "effective_samples": None if effective is None else _rounded(effective),
        "intraclass_correlation": None if correlation is None else _rounded(correlation),
    }


def _more(exam: _Exam, estimates: Mapping[str, EpisodeEstimate]) -> dict[str, Any]:
    rows = exam.rows
    ours = ("strict_json_validity_rate", "supported_class_macro_f1", "evidence_window_iou")
    declared = frozenset(exam.declared)
    of_prompt = or_none(exam.measure, "evidence_window_iou", exam.floors["copy_prompt"])
    return {
        **{name: estimates[name].value if name in estimates else None for name in ours},
        "evidence_window_iou_of_prompt": of_prompt and of_prompt.value,
        "closed_vocabulary_ceiling": or_none(closed_vocabulary_ceiling, rows),
        "num_declared_classes": len(exam.declared),
        "num_supported_classes": len(exam.supported),
        "num_off_taxonomy_predictions": sum(
            bool(row["predicted_label"]) and row["predicted_label"] not in declared for row in rows
        ),
        "outcomes": dict(sorted(Counter(str(row.get("outcome", "not_recorded")) for row in rows).items())),
        "degenerate_questions": degenerate_questions(rows),
    }


def _same_samples(name: str, rows: Sequence[PredictionRow], answered: Sequence[PredictionRow]) -> None:
    wanted, found = Counter(row["id"] for row in rows), Counter(row["id"] for row in answered)
    if wanted != found:
        differing = sorted(((wanted - found) + (found - wanted)).keys())
        raise UnpairedError(
            f"control {name!r} does not answer the same samples as the intact run; first that differ: "
            f"{differing[:3]}; run the control on the whole split again"
        )


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
