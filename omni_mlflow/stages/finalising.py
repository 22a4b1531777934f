"""Answers to metrics: where the sealed targets are joined, scored, written down and checked.

``evaluate`` and ``merge`` end here alike, so that however the answers came together, the files are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Exam, Scores
from omni_mlflow.contract import Contract
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.metrics_file import metric_checks
from omni_mlflow.metrics.verdicts import without_unfounded_verdicts
from omni_mlflow.spine.made_rows import MadeRows
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_lines,
    write_document,
    write_table,
    write_text,
    writing_json_rows,
    writing_table,
)
from omni_mlflow.spine.types import Answer, Check, Outcome, Skip, Split, Target, broken
from omni_mlflow.stages.answer_sheets import PARTIAL
from omni_mlflow.stages.asked import Questions
from omni_mlflow.stages.asking import INTACT
from omni_mlflow.stages.base import Report, Run
from omni_mlflow.stages.declared_labels import label_ledger
from omni_mlflow.stages.evaluation_facts import (
    EvaluationFacts,
    evaluation_facts,
    run_facts,
    unasked_episodes,
)
from omni_mlflow.stages.kept_answers import is_given
from omni_mlflow.stages.manifests import CONTRACT, FITTED, GENERATED, dataset_input
from omni_mlflow.stages.same_answers import answered_otherwise
from omni_mlflow.stages.seal_ledger import FACTS, Opening, look_of, open_targets

JOURNALS = ("progress.jsonl", PARTIAL)


@dataclass(frozen=True)
class Said:
    """What came back for every sample that was asked.

    Attributes:
        answers: by pass, in the order of the samples.
        alone: what those said that were drawn to be asked again, each by itself.
        batch_size: how many were asked together at first.
        lost: why a sample has no answer in some pass, by its id.
    """

    answers: Mapping[str, Sequence[Answer]]
    alone: Sequence[Answer]
    batch_size: int
    lost: Mapping[str, str]


def lost_samples(run: Run, asked: Sequence[str], said: Said) -> tuple[list[Skip], list[Check]]:
    """The samples that the infrastructure left unanswered in any pass, and the refusal if they are too many.

    They are left out of every pass, so that what is compared is about the same samples.
    """
    ids = [each for each in asked if each in said.lost]
    lost = [Skip(subject=each, stage="evaluate", reason=said.lost[each]) for each in ids]
    share = run.contract.evaluation.max_infrastructure_failed_share
    if not lost or (len(lost) <= share * len(asked) and len(lost) < len(asked)):
        return lost, []
    expected = f"an answer to all but {share:.2%} of {len(asked)} samples; run it again to ask these"
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


def finalise(run: Run, asked: Questions, said: Said) -> Report:
    """Open the sealed targets of the answered samples, score, and write every evidence file.

    Too many samples without an answer are refused before anything is opened, and metrics that no report
    could tell before anything is written.
    """
    lost, failures = lost_samples(run, asked.ids, said)
    if failures:
        return _refused(run, failures, lost=lost)
    exam, ledger = _exam(run, asked, said)
    scores = run.model.score(exam, settings=run.settings)
    if failures := broken(metric_checks(scores.metrics, primary=run.contract.primary_metrics)):
        return _refused(run, failures, lost=lost)
    outcomes = Counter(answer.outcome for answer in exam.answers)
    outcomes[Outcome.INFRASTRUCTURE_FAILED] = len(lost)
    counted = {outcome.value: outcomes[outcome] for outcome in Outcome}
    scores = replace(
        scores,
        metrics={
            **scores.metrics,
            "outcomes": counted,
            "label_ledger": ledger.summary(),
            "asked_alone": _asked_alone(asked, said),
        },
        documents={**scores.documents, "label_ledger.json": ledger.model_dump(mode="json")},
    )
    return _write(run, asked, exam, scores, lost=lost)


def _refused(run: Run, failures: Sequence[Check], *, lost: Sequence[Skip]) -> Report:
    journals = [run.folder / name for name in JOURNALS]
    return Report(outputs=journals, artifacts={"": journals}, failures=failures, skipped=lost)


def _asked_alone(asked: Questions, said: Said) -> dict[str, Any]:
    """Which of the samples that were asked again alone said something else than in their batch."""
    place_of = {each: place for place, each in enumerate(asked.ids)}
    pairs = ((said.answers[INTACT][place_of[alone.id]], alone) for alone in said.alone)
    heard = [(first, alone) for first, alone in pairs if is_given(first) and is_given(alone)]
    return {
        "batch_size": said.batch_size,
        "asked": len(heard),
        "different": answered_otherwise(heard),
    }


def _exam(run: Run, asked: Questions, said: Said) -> tuple[Exam, LabelLedger]:
    limit = run.options.limit
    dataset, identity = asked.dataset, asked.identity
    opening = Opening(
        split_digest=dataset.split_digest,
        test_episodes=tuple(sorted(dataset.samples_per_episode[Split.TEST])),
        backbone=run.model.id,
        checkpoint_digest=identity["checkpoint"],
        evaluation=digest_of(identity),
        answers=file_digest(run.folder / PARTIAL),
        look=look_of(run),
        purpose="evaluate" if limit is None else f"evaluate the first {len(asked.ids)}",
    )
    targets, arrays = open_targets(run, dataset, opening)
    fitted = read_document(run.folder_of("train") / "checkpoint" / FITTED, run.model.fitted_type)
    place_of: dict[str, int] = {}

    def placed() -> Iterator[Target]:
        for place, target in enumerate(targets):
            place_of[target.id] = place
            yield target

    ledger = label_ledger(run, placed(), fitted)
    kept = [number for number, each in enumerate(asked.ids) if each not in said.lost]
    places = [place_of[asked.ids[number]] for number in kept]
    answers = {name: MadeRows(of_pass.__getitem__, kept) for name, of_pass in said.answers.items()}
    exam = Exam(
        samples=MadeRows(asked.samples.__getitem__, kept),
        targets=MadeRows(targets.__getitem__, places),
        answers=answers.pop(INTACT),
        controls=answers,
        fitted=fitted,
        arrays={name: array[places] for name, array in arrays.items()},
        generated=run.folder / GENERATED,
        classes=ledger.classes,
        unasked=unasked_episodes(run, dataset),
    )
    return exam, ledger


def _write(run: Run, asked: Questions, exam: Exam, scores: Scores, *, lost: Sequence[Skip]) -> Report:
    """Write every evidence file; none holds a clock, so a resumed evaluation writes the same bytes."""
    from omni_mlflow.reporting.run_report import render_run_report

    known = evaluation_facts(run, asked, lost=lost)
    scores = replace(scores, metrics=without_unfounded_verdicts(scores.metrics, known.evidence))
    _write_predictions(run, scores)
    write_document(run.folder / "metrics.json", scores.metrics)
    for name, rows in scores.tables.items():
        write_table(run.folder / name, rows)
    for name, document in scores.documents.items():
        write_document(run.folder / name, document)
    used = run.contract.model_dump(mode="json", exclude={"profiles"})
    write_document(run.folder / CONTRACT, used)
    tables = [*scores.flattened, *scores.tables]
    names = [run.model.predictions_file, "metrics.json", *tables, *scores.documents, CONTRACT]
    facts = run_facts(run, known, scores.metrics, files=names, lost=lost)
    write_document(run.folder / "run_facts.json", facts)
    write_text(run.folder / "RUN_REPORT.md", render_run_report(facts))
    write_document(run.folder / FACTS, {**known.model_dump(mode="json"), "headline": scores.headline})
    in_vain = {each.subject for each in lost}
    suite, pages = _check_predictions(run, [each for each in asked.ids if each not in in_vain])
    shown = [run.folder / name for name in (*names, "RUN_REPORT.md", FACTS)]
    journals = [run.folder / name for name in JOURNALS]
    generated = [exam.generated] if exam.generated.is_dir() else []
    return Report(
        outputs=[*shown, *journals, run.folder / "run_facts.json", *pages, *generated],
        artifacts={"": [*shown, *journals], "validation": pages},
        metrics=shown_metrics(scores.headline),
        tags=evaluation_tags(run.contract, known, scores.metrics),
        datasets=[dataset_input(asked.dataset, Split.TEST)],
        failures=suite.failures(),
        skipped=lost,
        taken=len(asked.ids),
        made=len(scores.predictions),
    )


def _write_predictions(run: Run, scores: Scores) -> None:
    """Write every file that holds the predictions; each row is made once."""
    with ExitStack() as files:
        write = files.enter_context(writing_json_rows(run.folder / run.model.predictions_file))
        tables = [
            (files.enter_context(writing_table(run.folder / name)), flat_row)
            for name, flat_row in scores.flattened.items()
        ]
        for row in scores.predictions:
            write(row)
            for write_flat, flat_row in tables:
                write_flat(flat_row(row))


def _check_predictions(run: Run, expected: Collection[str]) -> tuple[Any, list[Path]]:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import prediction_frame

    lines = read_lines(run.folder / run.model.predictions_file)
    frame = prediction_frame(expected, lines)
    suite = check_suite(run.suites / "predictions.yaml", frame, parameters={"num_expected": len(expected)})
    return suite, write_suite_result(suite, run.folder / "validation")


def shown_metrics(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers as the tracker shows them."""
    return {name: round(value, 6) for name, value in numbers.items()}


def evaluation_tags(contract: Contract, facts: EvaluationFacts, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The verdict that people sort runs by is that of the first question which the contract asks."""
    first = next(iter(contract.questions.asked), None)
    judged = metrics.get("verdicts", {})
    verdicts = {key: value["verdict"] for key, value in judged.items() if value["verdict"] is not None}
    return {
        "omni.evidence": str(facts.evidence),
        "omni.checkpoint_digest": facts.checkpoint_digest[:16],
        "omni.dataset_digest": facts.dataset_digest[:16],
        "omni.split_digest": facts.split_digest[:16],
        **({"omni.verdict": verdicts[first]} if first in verdicts else {}),
        **{f"omni.verdict.{question}": verdict for question, verdict in verdicts.items()},
    }
