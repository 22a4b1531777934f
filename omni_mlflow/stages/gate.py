"""gate: is this checkpoint what its contract says, and did it learn from train episodes only?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.contract import Contract, resolve
from omni_mlflow.spine.rows import file_digest, read_document, read_json_rows, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, FittedOnTrain, LabelledSample, Split, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import (
    FITTED,
    GENERATED,
    SAMPLES_TO_LEARN_FROM,
    DatasetManifest,
    SplitManifest,
    sample_set,
)

NUM_CANARIES = 4


def _gate(run: Run) -> Report:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import ledger_frame

    dataset = read_document(run.open("export", "dataset_manifest.json"), DatasetManifest)
    train, val = (sample_set(run, dataset, split) for split in (Split.TRAIN, Split.VAL))
    exported = [*train.rows, *val.rows]
    checkpoint = run.folder_of("train") / "checkpoint"
    fitted = run.model.fit(train, settings=run.settings)
    consumed = _consumed(run.open("train", "training_ledger.jsonl"))
    checks = [
        *_manifest_checks(checkpoint),
        *_ledger_checks(consumed, {row.sample.id: row.sample.split for row in exported}),
        _fitted_check(checkpoint, fitted),
    ]
    generated = run.folder / GENERATED
    gate = resolve("checkpoint gate", run.contract.artifact_contract.checkpoint_gate, run.model.gates)
    checks += gate(
        CheckpointUnderTest(
            folder=checkpoint,
            settings=run.settings,
            canaries=_canaries(val if val.rows else train),
            fitted=fitted,
            out=generated,
        )
    )
    frame = ledger_frame(
        read_document(run.open("split", "split_manifest.json"), SplitManifest).episodes,
        fitted_on=json.loads((checkpoint / FITTED).read_text())["episode_ids"],
        samples_consumed=_per_episode(consumed, exported),
    )
    suite = check_suite(run.suites / "training_ledger.yaml", frame)
    pages = write_suite_result(suite, run.folder / "validation")
    checks += suite.failures()
    out = run.folder / "gate.json"
    rules = [check.model_dump(mode="json") for check in checks]
    write_document(out, {"schema_version": SCHEMA_VERSION, "ok": not broken(checks), "rules": rules})
    return Report(
        outputs=[out, *pages, *([generated] if generated.is_dir() else ())],
        artifacts={"": [out], "validation": pages},
        metrics={"checks/gate_rules": len(checks), "checks/gate_broken": len(broken(checks))},
        failures=broken(checks),
        taken=len(checks),
        made=len(checks) - len(broken(checks)),
    )


def _canaries(samples: SampleSet) -> SampleSet:
    return SampleSet(
        rows=samples.rows[:NUM_CANARIES],
        media_root=samples.media_root,
        arrays={name: array[:NUM_CANARIES] for name, array in samples.arrays.items()},
    )


def _fitted_check(checkpoint: Path, fitted: FittedOnTrain) -> Check:
    """Whatever the family, what was fitted must name the train episodes and no other."""
    found = json.loads((checkpoint / FITTED).read_text()).get("episodes_digest", "missing")
    return Check(
        rule="fitted_on_train_episodes",
        subject=FITTED,
        expected=fitted.episodes_digest,
        found=str(found),
        ok=found == fitted.episodes_digest,
    )


def _manifest_checks(checkpoint: Path) -> list[Check]:
    """Read every file again: the manifest is a claim, the bytes are the fact."""
    claimed: dict[str, str] = json.loads((checkpoint / "checkpoint_manifest.json").read_text())["files"]
    checks = []
    for name, digest in sorted(claimed.items()):
        path = checkpoint / name
        found = file_digest(path) if path.is_file() else "missing"
        checks.append(
            Check(
                rule="checkpoint_files_match_manifest",
                subject=name,
                expected=digest,
                found=found,
                ok=found == digest,
            )
        )
    return checks


def _ledger_checks(consumed: Mapping[str, int], split_of: Mapping[str, Split]) -> list[Check]:
    """Every sample that training really consumed must be a train sample of this export."""
    foreign = sorted(sample for sample in consumed if split_of.get(sample) is not Split.TRAIN)
    return [
        Check(
            rule="only_train_samples_were_learned_from",
            subject="training_ledger.jsonl",
            expected="ids of samples/train.jsonl only",
            found=f"{len(foreign)} other ids: {foreign[:5]}" if foreign else f"{len(consumed)} train ids",
            ok=not foreign,
        ),
        Check(
            rule="training_consumed_samples",
            subject="training_ledger.jsonl",
            expected="at least one sample",
            found=str(len(consumed)),
            ok=bool(consumed),
        ),
    ]


def _consumed(ledger: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in read_json_rows(ledger):
        for sample_id in row["ids"]:
            counts[sample_id] = counts.get(sample_id, 0) + 1
    return counts


def _per_episode(consumed: Mapping[str, int], rows: list[LabelledSample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.sample.episode_id] = counts.get(row.sample.episode_id, 0) + consumed.get(row.sample.id, 0)
    return counts


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {"checkpoint_gate": contract.artifact_contract.checkpoint_gate}


GATE = Stage(
    name="gate",
    run=_gate,
    rows="rules",
    inputs={
        "split": ("split_manifest.json",),
        "index": (),
        "export": (*SAMPLES_TO_LEARN_FROM, "dataset_manifest.json"),
        "train": ("training_ledger.jsonl", "checkpoint/*"),
    },
    settings=_settings,
    per_backbone=True,
    suites=("training_ledger",),
)
