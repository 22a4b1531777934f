"""evaluate: ask the gated checkpoint every held-out sample, then open the sealed targets and score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Exam, Predictor, Scores
from omni_mlflow.code_digest import code_digest, package_of
from omni_mlflow.contract import Contract
from omni_mlflow.journal import Journal
from omni_mlflow.spine.rows import (
    digest_of,
    read_document,
    read_lines,
    read_rows,
    write_document,
    write_json_rows,
    write_table,
    write_text,
)
from omni_mlflow.spine.types import Answer, Sample, Split
from omni_mlflow.stages.answering import AnswerJournal, answer_all
from omni_mlflow.stages.base import Options, Report, Run, Stage
from omni_mlflow.stages.evaluation_facts import EvaluationFacts, evaluation_facts, run_facts
from omni_mlflow.stages.held_out_ledger import Opening, open_targets
from omni_mlflow.stages.manifests import (
    FITTED,
    GENERATED,
    LEDGER,
    SEALED_TARGETS,
    DatasetManifest,
    checkpoint_digest,
    dataset_input,
    media_root,
)

INTACT = "intact"


def _evaluate(run: Run) -> Report:
    samples = list(read_rows(run.open("export", "samples/test.jsonl"), Sample))[: run.options.limit]
    dataset = read_document(run.open("export", "dataset_manifest.json"), DatasetManifest)
    checkpoint = run.folder_of("train") / "checkpoint"
    identity = _identity(run, dataset, checkpoint)
    answers, controls = _ask(run, samples, checkpoint, identity)
    opening = Opening(
        split_digest=dataset.split_digest,
        backbone=run.model.id,
        checkpoint_digest=identity["checkpoint"],
        evaluation=digest_of({**identity, "limit": run.options.limit}),
        purpose="evaluate" if run.options.limit is None else f"evaluate the first {len(samples)}",
    )
    targets, arrays = open_targets(run, dataset, opening)
    place_of = {target.id: place for place, target in enumerate(targets)}
    places = [place_of[sample.id] for sample in samples]
    exam = Exam(
        samples=samples,
        targets=[targets[place] for place in places],
        answers=answers,
        controls=controls,
        fitted=read_document(checkpoint / FITTED, run.model.fitted_type),
        arrays={name: array[places] for name, array in arrays.items()},
        generated=run.folder / GENERATED,
    )
    scores = run.model.score(exam, settings=run.settings)
    return _write(run, exam, scores, dataset, identity)


def _identity(run: Run, dataset: DatasetManifest, checkpoint: Path) -> dict[str, Any]:
    """What an answer depends on. Answers of different identities never mix."""
    return {
        "checkpoint": checkpoint_digest(checkpoint),
        "dataset": dataset.digest,
        "settings": digest_of(run.settings),
        "code": code_digest(package_of(run.model)),
    }


def _ask(
    run: Run, samples: list[Sample], checkpoint: Path, identity: dict[str, Any]
) -> tuple[list[Answer], dict[str, list[Answer]]]:
    @cache
    def predictor() -> Predictor:
        return run.model.load(
            checkpoint,
            media_root=media_root(run, Split.TEST),
            settings=run.settings,
            generated=run.folder / GENERATED,
        )

    with Journal(run.folder / "predictions.partial.jsonl") as partial:
        run.report_torn(partial)
        journal = AnswerJournal(partial, identity, batch_size=lambda: predictor().batch_size)
        run.record.live_artifact(partial.path)
        passes = {INTACT: samples} | {name: run.model.control(name, samples) for name in run.model.controls}
        with Journal(run.folder / "progress.jsonl") as rows:
            progress = Progress(run, rows, total=len(samples))
            said = {
                name: answer_all(journal, name, asked, predictor=predictor, on_batch=progress.of(name))
                for name, asked in passes.items()
            }
            progress.complete()
    return said.pop(INTACT), said


class Progress:
    """``progress.jsonl`` of an evaluation, the terminal's bar and the tracker's curve."""

    def __init__(self, run: Run, journal: Journal, *, total: int) -> None:
        self._run = run
        self._total = total
        self._journal = journal
        run.report_torn(journal)
        self._journal.truncate_after(0)  # counts of the journal of answers are told again from the start
        self._journal.append({"event": "start", "samples": total, "controls": list(run.model.controls)})
        run.record.live_artifact(journal.path)

    def of(self, name: str) -> Callable[[int], None]:
        advance = self._run.bar.start(f"evaluate: {name}", total=self._total)

        def on_batch(done: int) -> None:
            self._journal.append({"event": "sample", "pass": name, "answered": done, "of": self._total})
            self._run.record.metrics({f"progress/{name}": done / self._total}, step=done)
            advance(done)

        return on_batch

    def complete(self) -> None:
        self._journal.append({"event": "complete", "samples": self._total})


def _write(
    run: Run, exam: Exam, scores: Scores, dataset: DatasetManifest, identity: Mapping[str, Any]
) -> Report:
    """Write every evidence file; none holds a clock, so a resumed evaluation writes the same bytes."""
    from omni_mlflow.reporting.run_report import render_run_report

    write_json_rows(run.folder / run.model.predictions_file, scores.predictions)
    write_document(run.folder / "metrics.json", scores.metrics)
    for name, rows in scores.tables.items():
        write_table(run.folder / name, rows)
    for name, document in scores.documents.items():
        write_document(run.folder / name, document)
    names = [run.model.predictions_file, "metrics.json", *scores.tables, *scores.documents]
    opening_facts = evaluation_facts(run, exam, dataset, identity)
    facts = run_facts(run, opening_facts, scores, files=names)
    write_document(run.folder / "run_facts.json", facts)
    write_text(run.folder / "RUN_REPORT.md", render_run_report(facts))
    write_document(
        run.folder / "evaluation.json", {**opening_facts.model_dump(mode="json"), "headline": scores.headline}
    )
    suite, pages = _check_predictions(run, exam.samples)
    shown = [run.folder / name for name in (*names, "RUN_REPORT.md", "evaluation.json")]
    journals = [run.folder / name for name in ("progress.jsonl", "predictions.partial.jsonl")]
    generated = [exam.generated] if exam.generated.is_dir() else []
    return Report(
        outputs=[*shown, *journals, run.folder / "run_facts.json", *pages, *generated],
        artifacts={"": [*shown, *journals], "validation": pages},
        metrics={name: round(value, 6) for name, value in scores.headline.items()},
        tags=_tags(run.contract, opening_facts, scores),
        datasets=[dataset_input(dataset, Split.TEST)],
        failures=suite.failures(),
        taken=len(exam.samples),
        made=len(scores.predictions),
    )


def _check_predictions(run: Run, samples: Sequence[Sample]) -> tuple[Any, list[Path]]:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import prediction_frame

    lines = read_lines(run.folder / run.model.predictions_file)
    frame = prediction_frame((sample.id for sample in samples), lines)
    suite = check_suite(run.suites / "predictions.yaml", frame, parameters={"num_expected": len(samples)})
    return suite, write_suite_result(suite, run.folder / "validation")


def _tags(contract: Contract, facts: EvaluationFacts, scores: Scores) -> dict[str, str]:
    """The verdict that people sort runs by is that of the first question which the contract asks."""
    first = next(iter((*contract.questions.describe, *contract.questions.foretell)), None)
    verdicts = {key: str(value["verdict"]) for key, value in scores.metrics.get("verdicts", {}).items()}
    return {
        "omni.evidence": str(facts.evidence),
        "omni.checkpoint_digest": facts.checkpoint_digest[:16],
        "omni.dataset_digest": facts.dataset_digest[:16],
        "omni.split_digest": facts.split_digest[:16],
        **({"omni.verdict": verdicts[first]} if first in verdicts else {}),
        **{f"omni.verdict.{question}": verdict for question, verdict in verdicts.items()},
    }


def _settings(_: Contract) -> Mapping[str, Any]:
    return {}


def _choices(options: Options) -> Mapping[str, Any]:
    return {"limit": "none" if options.limit is None else options.limit}


SKIPPED = ("skipped_*.jsonl",)

EVALUATE = Stage(
    name="evaluate",
    run=_evaluate,
    rows="samples",
    inputs={
        "select": SKIPPED,
        "split": SKIPPED,
        "guard": ("episode_manifest.json",),
        "index": SKIPPED,
        "export": ("samples/*.jsonl", "dataset_manifest.json", *SEALED_TARGETS, *SKIPPED),
        "train": ("training_metadata.json", LEDGER, *SKIPPED),
        "gate": (),
    },
    settings=_settings,
    choices=_choices,
    per_backbone=True,
    resumable=True,
    suites=("predictions",),
)
