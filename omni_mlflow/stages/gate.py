"""gate: is this checkpoint what its contract says, and did it learn from train episodes only?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import CheckpointUnderTest
from omni_mlflow.contract import Contract, resolve
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import file_digest, read_document, read_json_rows, read_rows, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, LabelledSample, Split, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.manifests import SplitManifest, media_root

NUM_CANARIES = 4


def _gate(run: Run) -> Report:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import ledger_frame

    train = list(read_rows(run.open("export", "samples/train.jsonl"), LabelledSample))
    val = list(read_rows(run.open("export", "samples/val.jsonl"), LabelledSample))
    checkpoint = run.folder_of("train") / "checkpoint"
    priors = TrainPriors.fit(row.target for row in train)
    consumed = _consumed(run.open("train", "training_ledger.jsonl"))
    checks = [
        *_manifest_checks(checkpoint),
        *_ledger_checks(consumed, {row.sample.id: row.sample.split for row in [*train, *val]}),
    ]
    gate = resolve("checkpoint gate", run.contract.artifact_contract.checkpoint_gate, run.model.gates)
    checks += gate(
        CheckpointUnderTest(
            folder=checkpoint,
            settings=run.settings,
            media_root=media_root(run, Split.VAL if val else Split.TRAIN),
            canaries=[row.sample for row in (val or train)[:NUM_CANARIES]],
            priors=priors,
        )
    )
    frame = ledger_frame(
        read_document(run.open("split", "split_manifest.json"), SplitManifest).episodes,
        fitted_on=json.loads((checkpoint / "fitted.json").read_text())["episode_ids"],
        samples_consumed=_per_episode(consumed, [*train, *val]),
    )
    suite = check_suite(run.suites / "training_ledger.yaml", frame)
    pages = write_suite_result(suite, run.folder / "validation")
    checks += suite.failures()
    out = run.folder / "gate.json"
    rules = [check.model_dump(mode="json") for check in checks]
    write_document(out, {"schema_version": SCHEMA_VERSION, "ok": not broken(checks), "rules": rules})
    return Report(
        outputs=[out, *pages],
        artifacts={"": [out], "validation": pages},
        metrics={"checks/gate_rules": len(checks), "checks/gate_broken": len(broken(checks))},
        failures=broken(checks),
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
        "export": ("samples/train.jsonl", "samples/val.jsonl"),
        "train": ("training_ledger.jsonl", "checkpoint/*"),
    },
    settings=_settings,
    per_backbone=True,
    suites=("training_ledger",),
)
