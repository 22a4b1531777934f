"""train: fine-tune on the train episodes, watch the val episodes; no other sample can be opened here."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omni_mlflow.backbones.base import SampleSet, TrainingFacts
from omni_mlflow.code_digest import code_digest, package_of
from omni_mlflow.contract import Contract
from omni_mlflow.journal import Journal
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_json_rows,
    write_document,
)
from omni_mlflow.spine.types import SCHEMA_VERSION, FittedOnTrain, Skip, Split
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import (
    FITTED,
    SAMPLES_TO_LEARN_FROM,
    DatasetManifest,
    checkpoint_digest,
    checkpoint_files,
    dataset_input,
    sample_set,
)

LEDGER = "training_ledger.jsonl"


class StageTrainingLog:
    """Journals of a training: progress and the ledger of consumed samples."""

    def __init__(self, run: Run) -> None:
        self.checkpoint = run.folder / "checkpoint"
        self.resume = run.folder / "resume"
        for folder in (self.checkpoint, self.resume):
            folder.mkdir(parents=True, exist_ok=True)
        self._progress = Journal(run.folder / "progress.jsonl")
        self._ledger = Journal(run.folder / LEDGER)
        self._record = run.record
        self._bar = run.bar
        self._advance: Callable[[int], None] | None = None
        self._preparation: Callable[[int], None] | None = None
        self.last_step = 0
        run.record.live_artifact(run.folder / "progress.jsonl")
        if not any(self.resume.iterdir()):
            self.rewind(step=-1)

    def progress(self, event: str, *, step: int, **values: float | int | str) -> None:
        row = {"event": event, "step": step, **values}
        self._progress.append(row)
        self._show(row)
        if event == "checkpoint":
            self._record.settle()  # a resume shows losses again from progress.jsonl, but times are only there
        self.last_step = step
        if event == "start":
            total = int(values.get("total_steps", 0))
            self._advance = self._bar.start("train", total=total, done=step)
        elif self._advance:
            self._advance(step)

    def _show(self, row: Mapping[str, Any]) -> None:
        """Record the numbers of a progress row; those that the record already holds stay as they are."""
        if row["event"] in ("step", "validation"):
            prefix = "val" if row["event"] == "validation" else "train"
            named = ((f"{prefix}/{key}", value) for key, value in row.items() if key != "step")
            numbers = {name: value for name, value in named if _is_number(value)}
            self._record.metrics(numbers, step=row["step"])

    def preparing(self, what: str, *, done: int, total: int) -> None:
        if self._preparation is None:
            self._preparation = self._bar.start(what, total=total)
        self._preparation(done)

    def consumed(self, sample_ids: Sequence[str], *, step: int) -> None:
        self._ledger.append({"step": step, "ids": list(sample_ids)})

    def measured(self, values: Mapping[str, float], *, step: int) -> None:
        self._record.metrics({f"time/{key}": value for key, value in values.items()}, step=step)

    def rewind(self, *, step: int) -> None:
        for journal in (self._progress, self._ledger):
            rows = journal.rows()
            late = (i for i, row in enumerate(rows) if row["step"] > step or row.get("event") == "complete")
            journal.truncate_after(next(late, len(rows)))
        for row in self._progress.rows():
            self._show(row)

    def close(self) -> None:
        self._progress.close()
        self._ledger.close()


def _train(run: Run) -> Report:
    dataset = read_document(run.open("export", "dataset_manifest.json"), DatasetManifest)
    sets = {split: sample_set(run, dataset, split) for split in (Split.TRAIN, Split.VAL)}
    fitted = run.model.fit(sets[Split.TRAIN], settings=run.settings)
    log = StageTrainingLog(run)
    try:
        facts = run.model.train(
            sets[Split.TRAIN], sets[Split.VAL], fitted=fitted, settings=run.settings, log=log
        )
        write_document(log.checkpoint / FITTED, fitted)
        log.progress("complete", step=log.last_step)
    finally:
        log.close()
    _write_evidence(run, log, dataset, fitted, facts)
    learned, unseen = _drawn(run, sets[Split.TRAIN])
    shown = [run.folder / name for name in ("training_metadata.json", "progress.jsonl")]
    configs = sorted(path for path in log.checkpoint.glob("*.json"))
    return Report(
        outputs=[*shown, run.folder / LEDGER, log.checkpoint],
        artifacts={"": shown, "checkpoint": configs},
        params={"base.model": facts.base_model, "base.revision": facts.base_revision},
        tags={"omni.checkpoint_digest": checkpoint_digest(log.checkpoint)[:16]},
        datasets=[dataset_input(dataset, split) for split, rows in sets.items() if rows.rows],
        skipped=unseen,
        taken=len(sets[Split.TRAIN].rows),
        made=learned,
    )


def _drawn(run: Run, train: SampleSet) -> tuple[int, list[Skip]]:
    """How many train samples the ledger says were learned from, and a row for each that never was."""
    consumed = {sample for row in read_json_rows(run.folder / LEDGER) for sample in row["ids"]}
    learned = [row.sample.id for row in train.rows if row.sample.id in consumed]
    reason = "the training ended before it was drawn"
    unseen = [row.sample.id for row in train.rows if row.sample.id not in consumed]
    return len(learned), [Skip(subject=each, stage=run.stage, reason=reason) for each in unseen]


def _write_evidence(
    run: Run, log: StageTrainingLog, dataset: DatasetManifest, fitted: FittedOnTrain, facts: TrainingFacts
) -> None:
    ledger = run.folder / LEDGER
    consumed = {sample for row in read_json_rows(ledger) for sample in row["ids"]}
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "backbone": run.model.id,
        "checkpoint": log.checkpoint.relative_to(run.folder).as_posix(),
        "training_objective": run.contract.training_objective,
        "settings": run.settings.model_dump(mode="json"),
        "train_episode_ids": sorted(dataset.samples_per_episode[Split.TRAIN]),
        "val_episode_ids": sorted(dataset.samples_per_episode[Split.VAL]),
        "split_digest": dataset.split_digest,
        "dataset_digest": dataset.digest,
        "fitted_digest": digest_of(fitted),
        "num_samples_consumed": len(consumed),
        "training_ledger_digest": file_digest(ledger),
        "code_digest": code_digest(__name__, package_of(run.model)),
        "synthetic": dataset.synthetic,
        "environment": {"python": platform.python_version(), "machine": platform.machine()},
        **facts.model_dump(mode="json"),
    }
    write_document(run.folder / "training_metadata.json", metadata)
    write_document(
        log.checkpoint / "checkpoint_manifest.json",
        {
            "schema_version": SCHEMA_VERSION,
            "files": checkpoint_files(log.checkpoint),
            "dataset_digest": dataset.digest,
            "fitted_episodes_digest": fitted.episodes_digest,
            "training_ledger_digest": file_digest(ledger),
        },
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {"training_objective": contract.training_objective}


TRAIN = Stage(
    name="train",
    run=_train,
    rows="samples",
    inputs={
        "index": (),
        "export": (*SAMPLES_TO_LEARN_FROM, "dataset_manifest.json"),
    },
    settings=_settings,
    per_backbone=True,
    resumable=True,
)
