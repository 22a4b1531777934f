"""evaluate: ask the gated checkpoint every held-out sample, then open the sealed targets and score.

A shard asks its part of the samples and opens nothing; ``merge`` joins the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from omni_mlflow.backbones.base import Predictor
from omni_mlflow.contract import Contract
from omni_mlflow.journal import Journal
from omni_mlflow.spine.types import Split
from omni_mlflow.stages.answer_sheets import PARTIAL
from omni_mlflow.stages.answering import AnswerJournal, answer_all
from omni_mlflow.stages.asked import Questions, questions
from omni_mlflow.stages.asking import ALONE
from omni_mlflow.stages.base import Ground, Options, Report, Run, Stage
from omni_mlflow.stages.evaluation_identity import ANSWER_WITH
from omni_mlflow.stages.finalising import JOURNALS, Said, finalise, lost_samples
from omni_mlflow.stages.known_answers import broken_answers, known_answers, knows_more
from omni_mlflow.stages.manifests import (
    CONTRACT,
    GENERATED,
    LEDGER,
    SEALED_TARGETS,
    media_root,
)


def _evaluate(run: Run) -> Report:
    asked = questions(run)

    @cache
    def predictor() -> Predictor:
        return run.model.load(
            run.folder_of("train") / "checkpoint",
            media_root=media_root(run, Split.TEST),
            settings=run.settings,
            generated=run.folder / GENERATED,
        )

    if run.options.shard is None:
        return conclude(run, asked, predictor=predictor)
    return _answer_shard(run, asked, predictor=predictor)


def conclude(run: Run, asked: Questions, *, predictor: Callable[[], Predictor] | None) -> Report:
    """Answer what is not answered yet, and finalise.

    Args:
        predictor: None: journals of this workspace hold every answer, and nobody is asked.
    """
    said = _answers(run, asked, asked.ids, predictor=predictor)
    return finalise(run, asked, said)


def _answer_shard(run: Run, asked: Questions, *, predictor: Callable[[], Predictor]) -> Report:
    shard = run.options.shard
    assert shard is not None
    ids = asked.ids[shard.offset :: shard.stride]
    said = _answers(run, asked, ids, predictor=predictor)
    lost, failures = lost_samples(run, ids, said)
    made = [run.folder / name for name in JOURNALS]
    generated = [run.folder / GENERATED] if (run.folder / GENERATED).is_dir() else []
    return Report(
        outputs=[*made, *generated],
        artifacts={"": made},
        failures=failures,
        skipped=lost,
        taken=len(ids),
        made=len(ids) - len(lost),
    )


def _answers(
    run: Run, asked: Questions, ids: Sequence[str], *, predictor: Callable[[], Predictor] | None
) -> Said:
    known = known_answers(run, asked)

    def batch_size() -> int:
        return known.batch_size or (predictor().batch_size if predictor else 1)

    with Journal(run.folder / PARTIAL) as partial, Journal(run.folder / "progress.jsonl") as rows:
        run.report_torn(partial)
        journal = AnswerJournal(partial, asked.identity, batch_size=batch_size)
        run.record.live_artifact(partial.path)
        rounds = asked.rounds(ids, batch_size=journal.batch_size)
        if any(journal.missing(name, of_round) for name, of_round in rounds.items()):
            known.bring_generated(run.folder / GENERATED)
        progress = Progress(run, rows, total=len(ids))
        answers = {
            name: answer_all(
                journal,
                name,
                of_round,
                as_asked=asked.as_asked(name),
                predictor=predictor,
                known=known.answers,
                max_retries=run.contract.evaluation.max_retries,
                batch_size=1 if name == ALONE else journal.batch_size,
                on_batch=progress.of(name, total=len(of_round)),
            )
            for name, of_round in rounds.items()
        }
        progress.complete()
        alone = answers.pop(ALONE, ())
        return Said(answers, alone, journal.batch_size, journal.lost(ids, [*answers]))


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

    def of(self, name: str, *, total: int) -> Callable[[int], None]:
        advance = self._run.bar.start(f"evaluate: {name}", total=total)

        def on_batch(done: int) -> None:
            self._journal.note({"event": "sample", "pass": name, "answered": done, "of": total})
            self._run.record.metrics({f"progress/{name}": done / total}, step=done)
            advance(done)

        return on_batch

    def complete(self) -> None:
        self._journal.append({"event": "complete", "samples": self._total})


def _settings(contract: Contract) -> Mapping[str, Any]:
    bound = contract.evaluation.max_infrastructure_failed_share
    return {"evaluation": {"max_infrastructure_failed_share": bound}}


def _choices(options: Options) -> Mapping[str, Any]:
    return {
        "limit": "none" if options.limit is None else options.limit,
        "shard": "none" if options.shard is None else str(options.shard),
    }


def _folder(options: Options) -> str:
    return "evaluate" if options.shard is None else f"evaluate-{options.shard}"


def _is_to_retry(ground: Ground) -> bool:
    """Tell whether the finished work left samples unanswered that are to be asked again, or were since."""
    folder = ground.workspace.stage(_folder(ground.options), backbone=ground.model.id)
    seal = folder.seal()
    if ground.options.retry_failed:
        return seal is not None and seal.skipped > 0
    return ground.options.shard is None and knows_more(ground)


SKIPPED = ("skipped_*.jsonl",)

EVALUATE = Stage(
    name="evaluate",
    run=_evaluate,
    rows="samples",
    inputs={
        "select": SKIPPED,
        "split": SKIPPED,
        "guard": ("episode_manifest.json", "leak_graph.json"),
        "index": SKIPPED,
        "export": ("samples/*.jsonl", "dataset_manifest.json", *SEALED_TARGETS, *SKIPPED),
        "train": ("training_metadata.json", LEDGER, *SKIPPED),
        "gate": (),
    },
    settings=_settings,
    choices=_choices,
    per_backbone=True,
    asks=(*ANSWER_WITH, "controls", "fitted_type", "score", "metrics", "predictions_file"),
    resumable=True,
    suites=("predictions",),
    folder=_folder,
    admits=broken_answers,
    looks_again=_is_to_retry,
    makes=(
        "metrics.json",
        "run_facts.json",
        "RUN_REPORT.md",
        "evaluation.json",
        "label_ledger.json",
        CONTRACT,
        *JOURNALS,
    ),
)
