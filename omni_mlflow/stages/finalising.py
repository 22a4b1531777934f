"""Answers to metrics: where the sealed targets are joined, scored, written down and checked.

``evaluate`` and ``merge`` end here alike, so that however the answers came together, the files are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Exam, Scores
from omni_mlflow.contract import Contract
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.verdicts import without_unfounded_verdicts
from omni_mlflow.spine.rows import (
    digest_of,
    read_document,
    read_lines,
    write_document,
    write_json_rows,
    write_table,
    write_text,
)
from omni_mlflow.spine.types import Answer, Check, Outcome, Sample, Skip, Split
from omni_mlflow.stages.answer_sheets import PARTIAL
from omni_mlflow.stages.answering import is_given
from omni_mlflow.stages.base import Report, Run
from omni_mlflow.stages.declared_labels import label_ledger
from omni_mlflow.stages.evaluation_facts import EvaluationFacts, evaluation_facts, run_facts
from omni_mlflow.stages.evaluation_identity import Identity
from omni_mlflow.stages.manifests import CONTRACT, FITTED, GENERATED, DatasetManifest, dataset_input
from omni_mlflow.stages.seal_ledger import Opening, look_of, open_targets

JOURNALS = ("progress.jsonl", PARTIAL)


@dataclass(frozen=True)
class Answered:
    """Every sample that was asked, with what came back.

    Attributes:
        answers: to the samples as they are, same order.
        controls: to the same samples under each control.
    """

    dataset: DatasetManifest
    identity: Identity
    samples: Sequence[Sample]
    answers: Sequence[Answer]
    controls: Mapping[str, Sequence[Answer]]


def lost_samples(
    run: Run, samples: Sequence[Sample], said: Mapping[str, Sequence[Answer]]
) -> tuple[list[Skip], list[Check]]:
    """The samples that the infrastructure left unanswered in any pass, and the refusal if they are too many.

    They are left out of every pass, so that what is compared is about the same samples.
    """
    reason_of = {
        answer.id: f"no answer ({name}): {answer.reason}"
        for name, answers in said.items()
        for answer in answers
        if not is_given(answer)
    }
    ids = [sample.id for sample in samples if sample.id in reason_of]
    lost = [Skip(subject=each, stage="evaluate", reason=reason_of[each]) for each in ids]
    share = run.contract.evaluation.max_infrastructure_failed_share
    if not lost or (len(lost) <= share * len(samples) and len(lost) < len(samples)):
        return lost, []
    expected = f"an answer to all but {share:.2%} of {len(samples)} samples; run it again to ask these"
    return lost, [
        Check(
            rule="the_infrastructure_gave_an_answer",
            subject=each.subject,
            expected=expected,
            found=each.reason,
            ok=False,
        )
        for each in lost
    ]


def finalise(run: Run, answered: Answered) -> Report:
    """Open the sealed targets of the answered samples, score, and write every evidence file.

    Too many samples without an answer are refused before anything is opened.
    """
    said = {"intact": answered.answers, **answered.controls}
    lost, failures = lost_samples(run, answered.samples, said)
    if failures:
        journals = [run.folder / name for name in JOURNALS]
        return Report(outputs=journals, artifacts={"": journals}, failures=failures, skipped=lost)
    exam, ledger = _exam(run, answered, left_out={each.subject for each in lost})
    scores = run.model.score(exam, settings=run.settings)
    outcomes = Counter(answer.outcome for answer in exam.answers)
    outcomes[Outcome.INFRASTRUCTURE_FAILED] = len(lost)
    counted = {outcome.value: outcomes[outcome] for outcome in Outcome}
    scores = replace(
        scores,
        metrics={**scores.metrics, "outcomes": counted, "label_ledger": ledger.summary()},
        documents={**scores.documents, "label_ledger.json": ledger.model_dump(mode="json")},
    )
    return _write(run, answered, exam, scores, lost=lost)


def _exam(run: Run, answered: Answered, *, left_out: set[str]) -> tuple[Exam, LabelLedger]:
    limit = run.options.limit
    dataset, identity = answered.dataset, answered.identity
    opening = Opening(
        split_digest=dataset.split_digest,
        backbone=run.model.id,
        checkpoint_digest=identity["checkpoint"],
        evaluation=digest_of(identity),
        look=look_of(run),
        purpose="evaluate" if limit is None else f"evaluate the first {len(answered.samples)}",
    )
    targets, arrays = open_targets(run, dataset, opening)
    fitted = read_document(run.folder_of("train") / "checkpoint" / FITTED, run.model.fitted_type)
    ledger = label_ledger(run, targets, fitted)
    place_of = {target.id: place for place, target in enumerate(targets)}
    kept = [number for number, sample in enumerate(answered.samples) if sample.id not in left_out]
    places = [place_of[answered.samples[number].id] for number in kept]
    exam = Exam(
        samples=[answered.samples[number] for number in kept],
        targets=[targets[place] for place in places],
        answers=[answered.answers[number] for number in kept],
        controls={name: [answers[number] for number in kept] for name, answers in answered.controls.items()},
        fitted=fitted,
        arrays={name: array[places] for name, array in arrays.items()},
        generated=run.folder / GENERATED,
        classes=ledger.classes,
    )
    return exam, ledger


def _write(run: Run, answered: Answered, exam: Exam, scores: Scores, *, lost: Sequence[Skip]) -> Report:
    """Write every evidence file; none holds a clock, so a resumed evaluation writes the same bytes."""
    from omni_mlflow.reporting.run_report import render_run_report

    known = evaluation_facts(run, exam, answered.dataset, answered.identity, lost=lost)
    scores = replace(scores, metrics=without_unfounded_verdicts(scores.metrics, known.evidence))
    write_json_rows(run.folder / run.model.predictions_file, scores.predictions)
    write_document(run.folder / "metrics.json", scores.metrics)
    for name, rows in scores.tables.items():
        write_table(run.folder / name, rows)
    for name, document in scores.documents.items():
        write_document(run.folder / name, document)
    used = run.contract.model_dump(mode="json", exclude={"profiles"})
    write_document(run.folder / CONTRACT, used)
    names = [run.model.predictions_file, "metrics.json", *scores.tables, *scores.documents, CONTRACT]
    facts = run_facts(run, known, scores.metrics, files=names, lost=lost)
    write_document(run.folder / "run_facts.json", facts)
    write_text(run.folder / "RUN_REPORT.md", render_run_report(facts))
    write_document(
        run.folder / "evaluation.json", {**known.model_dump(mode="json"), "headline": scores.headline}
    )
    suite, pages = _check_predictions(run, exam.samples)
    shown = [run.folder / name for name in (*names, "RUN_REPORT.md", "evaluation.json")]
    journals = [run.folder / name for name in JOURNALS]
    generated = [exam.generated] if exam.generated.is_dir() else []
    return Report(
        outputs=[*shown, *journals, run.folder / "run_facts.json", *pages, *generated],
        artifacts={"": [*shown, *journals], "validation": pages},
        metrics={name: round(value, 6) for name, value in scores.headline.items()},
        tags=evaluation_tags(run.contract, known, scores),
        datasets=[dataset_input(answered.dataset, Split.TEST)],
        failures=suite.failures(),
        skipped=lost,
        taken=len(answered.samples),
        made=len(scores.predictions),
    )


def _check_predictions(run: Run, samples: Sequence[Sample]) -> tuple[Any, list[Path]]:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import prediction_frame

    lines = read_lines(run.folder / run.model.predictions_file)
    frame = prediction_frame((sample.id for sample in samples), lines)
    suite = check_suite(run.suites / "predictions.yaml", frame, parameters={"num_expected": len(samples)})
    return suite, write_suite_result(suite, run.folder / "validation")


def evaluation_tags(contract: Contract, facts: EvaluationFacts, scores: Scores) -> dict[str, str]:
    """The verdict that people sort runs by is that of the first question which the contract asks."""
    first = next(iter((*contract.questions.describe, *contract.questions.foretell)), None)
    judged = scores.metrics.get("verdicts", {})
    verdicts = {key: value["verdict"] for key, value in judged.items() if value["verdict"] is not None}
    return {
        "omni.evidence": str(facts.evidence),
        "omni.checkpoint_digest": facts.checkpoint_digest[:16],
        "omni.dataset_digest": facts.dataset_digest[:16],
        "omni.split_digest": facts.split_digest[:16],
        **({"omni.verdict": verdicts[first]} if first in verdicts else {}),
        **{f"omni.verdict.{question}": verdict for question, verdict in verdicts.items()},
    }
