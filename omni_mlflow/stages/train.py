"""train: fine-tune on the train episodes, watch the val episodes; no other sample can be opened here."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from omni_mlflow.backbone_code import code_behind
from omni_mlflow.backbones.base import SampleSet, TrainingFacts
from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import (
    digest_of,
    file_digest,
    read_document,
    read_json_rows,
    write_document,
)
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, FittedOnTrain, Skip, Split, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import (
    FITTED,
    LEDGER,
    SAMPLES_TO_LEARN_FROM,
    DatasetManifest,
    checkpoint_digest,
    checkpoint_files,
    dataset_input,
    sample_set,
)
from omni_mlflow.stages.training_log import StageTrainingLog

TRAIN_WITH = ("fit", "train")
"""What of a backbone shapes a checkpoint."""


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
        failures=broken([_whole_ledger(run, steps=log.last_step)]),
        skipped=unseen,
        taken=len(sets[Split.TRAIN].rows),
        made=learned,
    )


def _whole_ledger(run: Run, *, steps: int) -> Check:
    """What was learned from is known only when no step is missing and none is told twice."""
    found = [row["step"] for row in read_json_rows(run.folder / LEDGER)]
    missing = sorted({*range(1, steps + 1)} - {*found})
    return Check(
        rule="ledger_holds_every_step_once",
        subject=LEDGER,
        expected=f"steps 1 to {steps}, each once and in order",
        found=f"{len(found)} rows; missing: {missing[:5] or 'none'}",
        ok=found == [*range(1, steps + 1)],
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
        "contract_digest": run.contract.digest,
        "fitted_digest": digest_of(fitted),
        "num_samples_consumed": len(consumed),
        "training_ledger_digest": file_digest(ledger),
        "code_digest": code_behind(run.model, TRAIN_WITH, __name__),
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
            "contract_digest": run.contract.digest,
            "fitted_episodes_digest": fitted.episodes_digest,
            "training_ledger_digest": file_digest(ledger),
        },
    )


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
    asks=TRAIN_WITH,
    resumable=True,
    makes=(
        "training_metadata.json",
        "progress.jsonl",
        LEDGER,
        f"checkpoint/{FITTED}",
        "checkpoint/checkpoint_manifest.json",
    ),
)
