"""Scores a predictions file by the published definitions, whoever made it: a run here, vLLM, an API.

What it says about the model is never ``held_out``: nobody here saw which checkpoint answered, from which
inputs, or whether the truths are those of the sealed test set. Only ``evaluate`` sees that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from omni_mlflow.label_files import (
    UnusableFileError,
    read_declared_classes,
    read_json,
    read_label_options,
    read_train_labels,
    refuse_what_is_no_plain_file,
)
from omni_mlflow.metrics.answers import UNKNOWN, true_answer
from omni_mlflow.metrics.floors import SAME_AS_NOW
from omni_mlflow.metrics.label_exam import LabelExam
from omni_mlflow.metrics.label_scores import exam_scores, headline
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.metrics.questions import METRIC_OF, QUESTION_OF
from omni_mlflow.metrics.verdicts import without_unfounded_verdicts
from omni_mlflow.predictions_file import PredictionsFile, ranges
from omni_mlflow.spine.rows import document_text, file_digest, write_document, write_text
from omni_mlflow.spine.types import SCHEMA_VERSION, Outcome

UNVERIFIED = "unverified"
CLAIM = (
    "Computed from a predictions file alone. Nobody verified which model gave the answers, from which "
    "inputs, or that the truths are those of the sealed test set: this is no held-out result."
)
METRICS, RECORD = "metrics.json", "score.json"
_OVER_DECLARED = (
    "supported_class_macro_f1",
    "num_declared_classes",
    "num_supported_classes",
    "num_off_taxonomy_predictions",
)
_HARDLY_ANY = 0.05
_UNDECLARED = "no classes were declared; --declared-classes gives them, as a list or as label_ledger.json"


@dataclass(frozen=True)
class Request:
    """What to score.

    Attributes:
        predictions: JSONL of published prediction rows.
        label_options: JSON list of the action labels that were offered to the model.
        train_labels: JSON list of the action of each train sample, or ``fitted.json`` of a checkpoint.
        declared_classes: JSON list of the action classes that our own macro-F1 runs over, or
            ``label_ledger.json`` of an evaluation; without it there is no such number.
        engine: what answered, in the words of whoever asked; None when nobody says.
        out: folder for ``metrics.json`` and ``score.json``.
    """

    predictions: Path
    label_options: Path
    train_labels: Path | None
    declared_classes: Path | None
    engine: str | None
    out: Path


@dataclass(frozen=True)
class Scored:
    """Either metrics, or what is wrong with the file.

    Attributes:
        problems: line numbers by what is wrong with them; any of them, and nothing was scored or written.
        headline: the few numbers to compare.
        notes: what a reader of the numbers has to know of the file.
    """

    problems: dict[str, list[int]] = field(default_factory=dict)
    headline: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def told(self, path: Path) -> list[str]:
        """One sentence per problem, in the order of the file, and what follows from them."""
        ordered = sorted(self.problems.items(), key=lambda item: item[1])
        problems = [f"{path}: {ranges(numbers)}: {what}" for what, numbers in ordered]
        return [*problems, *self.notes] if problems else []


def score(request: Request) -> Scored:
    """Read the predictions once, in constant memory, and write ``metrics.json`` and ``score.json``.

    Raises:
        UnusableFileError: a file is compressed or no file at all, the labels cannot be read, or ``out`` holds
            the files of somebody else.
    """
    _refuse_foreign_folder(request.out)
    refuse_what_is_no_plain_file(request.predictions)
    options = read_label_options(request.label_options)
    priors = None if request.train_labels is None else read_train_labels(request.train_labels)
    classes = None if request.declared_classes is None else read_declared_classes(request.declared_classes)
    exam = LabelExam(priors, label_options=options, declared=classes)
    found = PredictionsFile(request.predictions)
    offered = frozenset(options)
    num_contradicted = num_not_offered = 0
    for row in found.rows():
        exam.add(row)
        if true_answer(row, "action") is None:
            continue
        num_not_offered += row["true_label"] not in offered
        if priors is not None:
            num_contradicted += bool(row["true_label_seen_in_train"]) is not (
                row["true_label"] in priors.action
            )
    if found.problems:
        return Scored(problems=found.problems, notes=_left_behind(request.out))
    metrics = exam_scores(exam, {})
    if classes is None:
        metrics["more"]["reasons"] |= dict.fromkeys(_OVER_DECLARED, _UNDECLARED)
    notes = [
        *_notes_on_truths(exam, metrics, found.num_rows),
        *_notes_on_train(priors),
        *_notes_on_unasked(exam, found),
        *_notes_on_undeclared(exam, found.num_rows),
        *_notes(found, num_contradicted=num_contradicted, num_not_offered=num_not_offered),
    ]
    whose = {"engine": request.engine, "evidence": UNVERIFIED}
    told = without_unfounded_verdicts(_with_nulls(metrics), UNVERIFIED)
    _write(request, found, metrics={**told, **whose}, notes=notes)
    return Scored(headline=headline(metrics), notes=notes)


def _write(request: Request, found: PredictionsFile, *, metrics: dict[str, Any], notes: list[str]) -> None:
    """Write the record first: whenever this is cut, what lies in the folder is known to be ours."""
    text = document_text(metrics)
    (request.out / METRICS).unlink(missing_ok=True)
    outputs = {METRICS: sha256(text.encode()).hexdigest()}
    write_document(request.out / RECORD, {**_record(request, found, notes), "outputs": outputs})
    write_text(request.out / METRICS, text)


def _refuse_foreign_folder(out: Path) -> None:
    """Our record comes first and is replaced whole: where it is none, nothing in the folder is ours."""
    present = [out / name for name in (RECORD, METRICS) if (out / name).exists()]
    record = read_json(out / RECORD) if out / RECORD in present else None
    is_ours = (
        isinstance(record, dict)
        and record.keys() >= {"claim", "inputs", "outputs"}
        and isinstance(record["outputs"], dict)
    )
    if present and not is_ours:
        raise UnusableFileError(
            f"{present[0]} was not written by 'score' and will not be replaced; name another --out"
        )
    metrics = out / METRICS
    if record and metrics in present and file_digest(metrics) != record["outputs"].get(METRICS):
        raise UnusableFileError(
            f"{metrics} is not the one that {RECORD} beside it tells of and will not be replaced; name "
            "another --out, or move it away"
        )


def _left_behind(out: Path) -> list[str]:
    """Say of the result of an earlier scoring that it is none of this file."""
    if not (out / METRICS).exists():
        return []
    return [f"{out / METRICS} is still that of an earlier scoring, not of this file"]


def _with_nulls(metrics: dict[str, Any]) -> dict[str, Any]:
    """Name each floor and verdict that cannot be had; ``more.reasons`` says why."""
    graded = [metric for metric, question in QUESTION_OF.items() if question]
    nothing = {metric: None for metric in graded if metric not in metrics["baselines"]}
    unjudged = {
        question: {"verdict": None, "metric": metric, "floor": None}
        for question, metric in METRIC_OF.items()
        if question not in metrics["verdicts"]
    }
    return {
        **metrics,
        "baselines": metrics["baselines"] | nothing,
        "verdicts": metrics["verdicts"] | unjudged,
    }


def _notes_on_truths(exam: LabelExam, metrics: Mapping[str, Any], num_rows: int) -> Iterator[str]:
    """What is asked nothing, because nobody annotated it or because its row does not hold it."""
    more = metrics["more"]
    if unannotated := more["samples_without_action_label"]:
        yield (
            f"{unannotated} of {num_rows} rows have the true label {UNKNOWN!r}: nobody annotated their "
            "action, so accuracy, macro_f1, labels and the seen and unseen numbers leave them out; the "
            "published definitions would count them"
        )
    for question, unknown in more["unknown_now"].items():
        floors = metrics["baselines"].get(METRIC_OF[question], {}).get("floors", {})
        compared = "is compared over the others" if SAME_AS_NOW in floors else "has no answer to compare with"
        yield (
            f"in {unknown} of the {exam.model.truths[question].total()} rows that say the true {question} "
            f"nobody annotated what is now: the floor {SAME_AS_NOW} {compared}"
        )
    for question, lacking in more["truths_missing"].items():
        counted = "count as naming none" if question == "objects" else "are in no number about it"
        yield f"{lacking} of {num_rows} rows have no {question} in their true_json, and {counted}"


def _notes_on_train(priors: TrainPriors | None) -> Iterator[str]:
    """How much of train no floor is fitted on."""
    if priors is not None and priors.num_without_action:
        yield (
            f"{priors.num_without_action} of {priors.num_samples} train samples have no action label: no "
            "floor counts them"
        )


def _notes_on_unasked(exam: LabelExam, found: PredictionsFile) -> Iterator[str]:
    """Name the questions that hardly any answer holds: most likely nobody asked them."""
    has_truth = {name for name, counts in exam.model.truths.items() if counts}
    has_truth |= {name for name in ("objects", "evidence_window") if exam.model.untold[name] < found.num_rows}
    for question in METRIC_OF:
        answered = found.num_answers_with[question]
        if question in has_truth and answered < _HARDLY_ANY * found.num_rows:
            yield (
                f"{answered} of {found.num_rows} rows answer {question}, and {METRIC_OF[question]} counts "
                "the others as wrong; if nobody asked it, that number says nothing about the model"
            )


def _notes_on_undeclared(exam: LabelExam, num_rows: int) -> Iterator[str]:
    """Name the truths that no average over declared classes counts."""
    if exam.declared is None:
        return
    declared = frozenset(exam.declared)
    undeclared = sum(count for label, count in exam.model.true_labels.items() if label not in declared)
    if undeclared:
        yield (
            f"{undeclared} of {num_rows} rows have a true label that is none of the declared classes: "
            "supported_class_macro_f1 does not average over it"
        )


def _notes(found: PredictionsFile, *, num_contradicted: int, num_not_offered: int) -> list[str]:
    notes = []
    if num_not_offered:
        notes.append(
            f"{num_not_offered} of {found.num_rows} rows have a true label that is none of the label "
            "options: a model that only says those cannot be right there"
        )
    if found.num_foreign_outcomes:
        notes.append(
            f"{found.num_foreign_outcomes} of {found.num_rows} rows have an outcome that is none of "
            f"{', '.join(Outcome)}, such as {found.foreign_outcome}; it is ignored like an unknown column"
        )
    if found.num_answers_not_in_reply:
        notes.append(
            f"{found.num_answers_not_in_reply} rows have another pred_json than their raw_prediction; "
            "the published definitions grade pred_json"
        )
    if found.num_labels_not_in_answer:
        notes.append(
            f"{found.num_labels_not_in_answer} rows have another predicted_label than the action of their "
            "pred_json; the published accuracy grades predicted_label"
        )
    if found.num_empty:
        notes.append(
            f"{found.num_empty} rows hold no reply at all, and are graded as wrong; if nobody was asked, the "
            "numbers say nothing about the model"
        )
    if num_contradicted:
        notes.append(
            f"{num_contradicted} rows say of their true label that train shows it, or does not, and the "
            "train labels given say otherwise; seen and unseen are counted as the rows say"
        )
    return notes


def _record(request: Request, found: PredictionsFile, notes: list[str]) -> dict[str, Any]:
    """What was scored, by digest, and what nobody vouches for."""
    labels = {
        "label_options": request.label_options,
        "train_labels": request.train_labels,
        "declared_classes": request.declared_classes,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "engine": request.engine,
        "evidence": UNVERIFIED,
        "claim": CLAIM,
        "num_rows": found.num_rows,
        "inputs": {
            "predictions": {"file": request.predictions.name, "sha256": found.sha256},
            **{
                name: path and {"file": path.name, "sha256": file_digest(path)}
                for name, path in labels.items()
            },
        },
        "notes": notes,
    }
