"""Everything that ``metrics.json`` says about structured answers.

Published names lie flat at the top with their published definitions. What makes them mean something lies
beside them: ``intervals``, ``baselines``, ``clusters``, ``verdicts``, ``controls`` and ``more``. A number
that cannot be had is null, and ``more.reasons`` says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from omni_mlflow.metrics.answers import PredictionRow
from omni_mlflow.metrics.episode_sums import EpisodeSums
from omni_mlflow.metrics.errors import NothingToScoreError, UnpairedError, or_none
from omni_mlflow.metrics.floors import floors_for
from omni_mlflow.metrics.label_exam import LabelExam, answers_tally
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import (
    BEATS_FLOOR,
    DOES_NOT_BEAT_FLOOR,
    METRIC_OF,
    QUESTION_OF,
)
from omni_mlflow.metrics.row_tally import RowTally
from omni_mlflow.metrics.score_rows import against, difference_row, interval_row, rounded
from omni_mlflow.metrics.uncertainty import EpisodeEstimate


def label_scores(
    rows: Sequence[PredictionRow],
    *,
    priors: TrainPriors | None,
    controls: Mapping[str, Sequence[PredictionRow]],
    label_options: Sequence[str],
    declared: Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Score predictions of one model on one split.

    Args:
        rows: published prediction rows, one per sample; the order does not matter.
        priors, label_options, declared: see :class:`LabelExam`.
        controls: rows for the same samples with one input exchanged or removed, by control name.

    Returns:
        The content of ``metrics.json``, and the few numbers to compare in a tracker.

    Raises:
        UnpairedError: a control answers other samples than ``rows``.
    """
    for name, answered in controls.items():
        _same_samples(name, rows, answered)
    exam = LabelExam(priors, label_options=label_options, declared=declared)
    for row in rows:
        exam.add(row)
    under_control = {name: answers_tally() for name in controls}
    for name, answered in controls.items():
        for row in answered:
            under_control[name].add_answers(row)
    metrics = exam_scores(exam, under_control)
    return metrics, headline(metrics)


def exam_scores(exam: LabelExam, controls: Mapping[str, RowTally]) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    reasons: dict[str, str] = {}
    estimates = dict(_estimates(exam, reasons))
    baselines = {name: _baseline(exam, name) for name in estimates}
    reasons |= _why_absent(exam, baselines)
    verdicts = dict(_verdicts(baselines, reasons))
    return {
        **exam.model.published(label_options=exam.label_options),
        "intervals": {name: interval_row(estimate) for name, estimate in estimates.items()},
        "baselines": {name: baseline for name, baseline in baselines.items() if baseline},
        "verdicts": verdicts,
        "controls": {name: _control(exam, tally, estimates, baselines) for name, tally in controls.items()},
        "clusters": _clusters(exam.model, estimates),
        "more": {**_more(exam, estimates), "reasons": reasons},
    }


def _why_absent(exam: LabelExam, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    why = (
        "no train labels were given, so there is no floor"
        if exam.priors is None
        else "no train sample answers this question, so there is no floor"
    )
    reasons = {f"baselines.{name}": why for name, each in baselines.items() if QUESTION_OF[name] and not each}
    if len(exam.model.samples_per_episode) < 2:
        reasons["intervals"] = "an interval over episodes needs at least two of them"
    return reasons


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Pick the verdict-bearing numbers, and by how much each exceeds its hardest floor."""
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


def _estimates(exam: LabelExam, reasons: dict[str, str]) -> Iterator[tuple[str, EpisodeEstimate]]:
    for name in QUESTION_OF:
        try:
            yield name, exam.measure(name, exam.model)
        except NothingToScoreError as error:
            reasons[name] = str(error)


def _baseline(exam: LabelExam, metric: str) -> dict[str, Any]:
    """Every floor of a metric, the model's difference to each, and which of them is the hardest to beat."""
    names = floors_for(QUESTION_OF[metric], exam.priors)
    measured = {name: or_none(exam.measure, metric, exam.floors[name]) for name in names}
    floors = {name: floor.value for name, floor in measured.items() if floor is not None}
    return against(
        floors, {name: difference_row(exam.better_by(metric, exam.model, name)) for name in floors}
    )


def _verdicts(
    baselines: Mapping[str, Mapping[str, Any]], reasons: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """By question: does the interval of the paired difference lie above zero for every floor?"""
    for question, metric in METRIC_OF.items():
        baseline = baselines.get(metric)
        if not baseline:
            continue
        floor, low = baseline["best"], baseline["difference"]["low"]
        if low is None and any(each["low"] is not None for each in baseline["differences"].values()):
            reasons[f"verdicts.{question}"] = (
                f"the difference to the floor {floor} has no interval: the samples that it answers are of "
                "one episode"
            )
        beats = None if low is None else BEATS_FLOOR if low > 0 else DOES_NOT_BEAT_FLOOR
        yield question, {"verdict": beats, "metric": metric, "floor": floor}


def _control(
    exam: LabelExam,
    answered: RowTally,
    estimates: Mapping[str, EpisodeEstimate],
    baselines: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Every metric under one control: how far the intact run lies above it, it above the hardest floor."""
    found: dict[str, Any] = {}
    for metric, estimate in estimates.items():
        under_control = or_none(exam.measure, metric, answered)
        if under_control is not None:
            found[metric] = {
                "value": under_control.value,
                "difference": difference_row(estimate - under_control),
                "over_floor": _over_best_floor(exam, metric, answered, baselines.get(metric)),
            }
    return found


def _over_best_floor(
    exam: LabelExam, metric: str, tally: RowTally, baseline: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    return difference_row(exam.better_by(metric, tally, baseline["best"])) if baseline else None


def _clusters(tally: RowTally, estimates: Iterable[str]) -> dict[str, Any]:
    """How many independent episodes there are, and what the samples of each are worth."""
    sizes = tally.samples_per_episode
    return {
        "episodes": len(sizes),
        "samples": tally.num_samples,
        "samples_per_episode": {episode: sizes[episode] for episode in sorted(sizes)},
        "worth": {
            metric: _worth(tally.sums[metric])
            for metric in estimates
            if metric in tally.sums and metric != "object_micro_f1"  # means of one number per sample
        },
    }


def _worth(sums: EpisodeSums) -> dict[str, float | None]:
    effective = or_none(sums.effective_sample_size)
    correlation = or_none(sums.intraclass_correlation)
    return {
        "samples": sums.num_samples,
        "effective_samples": None if effective is None else rounded(effective),
        "intraclass_correlation": None if correlation is None else rounded(correlation),
    }


def _more(exam: LabelExam, estimates: Mapping[str, EpisodeEstimate]) -> dict[str, Any]:
    tally = exam.model
    ours = ("strict_json_validity_rate", "supported_class_macro_f1", "evidence_window_iou")
    of_prompt = or_none(exam.measure, "evidence_window_iou", exam.floors["copy_prompt"])
    return {
        **{name: estimates[name].value if name in estimates else None for name in ours},
        "evidence_window_iou_of_prompt": of_prompt and of_prompt.value,
        "closed_vocabulary_ceiling": or_none(tally.closed_vocabulary_ceiling),
        **_counts_of_declared(tally, exam.declared),
        "samples_without_action_label": tally.unannotated_actions,
        "truths_missing": tally.truths_missing(),
        "unknown_now": {question: count for question, count in tally.unknown_now.items() if count},
        "outcomes": dict(sorted(tally.outcomes.items())),
        "degenerate_questions": tally.degenerate_questions(),
    }


def _counts_of_declared(tally: RowTally, classes: Sequence[str] | None) -> dict[str, int | None]:
    """How many classes are declared, how many of them are true somewhere, and how many answers are none."""
    declared = frozenset(classes or ())
    off_taxonomy = (
        count for label, count in tally.predicted_labels.items() if label and label not in declared
    )
    found = {
        "num_declared_classes": len(declared),
        "num_supported_classes": len(tally.supported_classes(classes or ())),
        "num_off_taxonomy_predictions": sum(off_taxonomy),
    }
    return {name: None if classes is None else number for name, number in found.items()}


def _same_samples(name: str, rows: Sequence[PredictionRow], answered: Sequence[PredictionRow]) -> None:
    wanted, found = Counter(row["id"] for row in rows), Counter(row["id"] for row in answered)
    if wanted != found:
        differing = sorted(((wanted - found) + (found - wanted)).keys())
        raise UnpairedError(
            f"control {name!r} does not answer the same samples as the intact run; first that differ: "
            f"{differing[:3]}; run the control on the whole split again"
        )
