"""gate: is this checkpoint what its contract says, and did it learn from train episodes only?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.contract import Contract
from omni_mlflow.gates import gate_names, gates_of, installed_code
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, LabelledSample, Split, broken
from omni_mlflow.stages.base import Report, Run, Stage
from omni_mlflow.stages.checkpoint_checks import (
    ask_gates,
    fitted_check,
    ledger_checks,
    manifest_checks,
)
from omni_mlflow.stages.manifests import (
    GENERATED,
    LEDGER,
    SAMPLES_TO_LEARN_FROM,
    DatasetManifest,
    SplitManifest,
    sample_set,
)

if TYPE_CHECKING:
    from omni_mlflow.suite_result import SuiteResult

NUM_CANARIES = 4


def _gate(run: Run) -> Report:
    dataset = read_document(run.open("export", "dataset_manifest.json"), DatasetManifest)
    train, val = (sample_set(run, dataset, split) for split in (Split.TRAIN, Split.VAL))
    exported = [*train.rows, *val.rows]
    ledger = run.open("train", LEDGER)
    under_test = CheckpointUnderTest(
        folder=run.folder_of("train") / "checkpoint",
        settings=run.settings,
        canaries=_canaries(val if val.rows else train),
        fitted=run.model.fit(train, settings=run.settings),
        out=run.folder / GENERATED,
    )
    consumed, of_ledger = ledger_checks(ledger, {row.sample.id: row.sample.split for row in exported})
    fitted_on, of_fit = fitted_check(under_test.folder, under_test.fitted)
    gates = gates_of(run.contract, run.model)
    checks = [
        *manifest_checks(under_test.folder, dataset_digest=dataset.digest, ledger=ledger),
        *of_ledger,
        of_fit,
        *ask_gates(gates, under_test),
    ]
    suite, pages = _check_ledger(run, fitted_on=fitted_on, consumed=_per_episode(consumed, exported))
    checks += suite.failures()
    out = run.folder / "gate.json"
    rules = [check.model_dump(mode="json") for check in checks]
    told = {"schema_version": SCHEMA_VERSION, "ok": not broken(checks), "gates": list(gates)}
    write_document(out, {**told, "rules": rules})
    return Report(
        outputs=[out, *pages, *([under_test.out] if under_test.out.is_dir() else ())],
        artifacts={"": [out], "validation": pages},
        metrics={"checks/gate_rules": len(checks), "checks/gate_broken": len(broken(checks))},
        failures=broken(checks),
        taken=len(checks),
        made=len(checks) - len(broken(checks)),
    )


def _check_ledger(
    run: Run, *, fitted_on: Sequence[str], consumed: Mapping[str, int]
) -> tuple[SuiteResult, list[Path]]:
    from omni_mlflow.expectations import check_suite, write_suite_result
    from omni_mlflow.frames import ledger_frame

    episodes = read_document(run.open("split", "split_manifest.json"), SplitManifest).episodes
    frame = ledger_frame(episodes, fitted_on=fitted_on, samples_consumed=consumed)
    suite = check_suite(run.suites / "training_ledger.yaml", frame)
    return suite, write_suite_result(suite, run.folder / "validation")


def _canaries(samples: SampleSet) -> SampleSet:
    return SampleSet(
        rows=samples.rows[:NUM_CANARIES],
        media_root=samples.media_root,
        arrays={name: array[:NUM_CANARIES] for name, array in samples.arrays.items()},
    )


def _per_episode(consumed: Mapping[str, int], rows: list[LabelledSample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.sample.episode_id] = counts.get(row.sample.episode_id, 0) + consumed.get(row.sample.id, 0)
    return counts


def _settings(contract: Contract) -> Mapping[str, Any]:
    return {"gates": list(gate_names(contract)), "installed_gates": installed_code(contract)}


GATE = Stage(
    name="gate",
    run=_gate,
    rows="rules",
    inputs={
        "split": ("split_manifest.json",),
        "index": (),
        "export": (*SAMPLES_TO_LEARN_FROM, "dataset_manifest.json"),
        "train": (LEDGER, "checkpoint/*"),
    },
    settings=_settings,
    per_backbone=True,
    asks=("gates", "fit"),
    suites=("training_ledger",),
    makes=("gate.json",),
)
