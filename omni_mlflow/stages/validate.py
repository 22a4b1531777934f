"""validate: does a run hold everything its contract asks for, and do its files agree with each other?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.contract import Contract
from omni_mlflow.spine.rows import read_json_rows, read_rows, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Sample, broken
from omni_mlflow.stages.base import Options, Report, Run, Stage
from omni_mlflow.stages.manifests import checkpoint_digest, episodes_learned_from

LEVELS = {
    "manifest": ("split", "guard"),
    "dataset": ("export",),
    "training": ("train", "gate"),
    "eval": ("evaluate",),
}
"""How much of a run can be required, in order, and the stages that each level adds."""


def _validate(run: Run) -> Report:
    rules = {"manifest": _manifest, "dataset": _dataset, "training": _training, "eval": _evaluation}
    checks = [check for level in _levels(run.options) for check in rules[level](run)]
    failed = broken(checks)
    out = run.folder / "validation.json"
    write_document(
        out,
        {
            "schema_version": SCHEMA_VERSION,
            "require_stage": run.options.require_stage,
            "ok": not failed,
            "rules": [check.model_dump(mode="json") for check in checks],
        },
    )
    return Report(
        outputs=[out],
        artifacts={"": [out]},
        metrics={"checks/validate_rules": len(checks), "checks/validate_broken": len(failed)},
        failures=failed,
        taken=len(checks),
        made=len(checks) - len(failed),
    )


def _manifest(run: Run) -> Iterable[Check]:
    manifest = _json(run, "guard", "episode_manifest.json")
    leaks = [edge for edge in _json(run, "guard", "leak_graph.json")["edges"] if edge["blocks"]]
    yield _check("no_leak_between_splits", "leak_graph.json", "0 leaks", f"{len(leaks)} leaks", ok=not leaks)
    per_split: dict[str, set[str]] = {}
    for episode in manifest["episodes"]:
        per_split.setdefault(episode["split"], set()).add(episode["session_id"])
    names = sorted(per_split)
    for left, right in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        both = sorted(per_split[left] & per_split[right])
        yield _check("sessions_are_disjoint", f"{left}/{right}", "no session in both", f"{both}", ok=not both)


def _dataset(run: Run) -> Iterable[Check]:
    dataset = _json(run, "export", "dataset_manifest.json")
    split = _json(run, "split", "split_manifest.json")
    yield _same("dataset_is_of_this_split", "dataset_manifest.json", split["digest"], dataset["split_digest"])
    for name in sorted(dataset["files"]):
        path = run.folder_of("export") / name
        yield _check("sample_file_exists", name, "present", _presence(path), ok=path.is_file())


def _training(run: Run) -> Iterable[Check]:
    folder = run.folder_of("train")
    for name in run.contract.artifact_contract.required_training_files:
        found = [path for path in (folder / name, folder / "checkpoint" / name) if path.is_file()]
        yield _check(
            "required_training_file", name, "present", "present" if found else "missing", ok=bool(found)
        )
    rows = list(read_json_rows(run.open("train", "progress.jsonl")))
    last = rows[-1]["event"] if rows else "nothing"
    yield _same("training_is_complete", "progress.jsonl", "complete", last)
    gate = _json(run, "gate", "gate.json")
    yield _check("gate_passed", "gate.json", "ok", "ok" if gate["ok"] else "refused", ok=gate["ok"])
    metadata = _json(run, "train", "training_metadata.json")
    dataset = _json(run, "export", "dataset_manifest.json")
    yield _same(
        "trained_on_this_dataset", "training_metadata.json", dataset["digest"], metadata["dataset_digest"]
    )
    manifest = _json(run, "guard", "episode_manifest.json")
    held_out = {each["episode_id"] for each in manifest["episodes"] if each["split"] == "test"}
    learned = sorted(held_out & episodes_learned_from(run))
    yield _check("no_test_episode_in_training", "training_ledger.jsonl", "none", str(learned), ok=not learned)


def _evaluation(run: Run) -> Iterable[Check]:
    folder = run.folder_of("evaluate")
    for name in run.contract.artifact_contract.required_eval_files:
        path = folder / name
        filled = path.is_file() and path.stat().st_size > 0
        yield _check("required_eval_file", name, "present, not empty", _presence(path), ok=filled)
    document = _json(run, "evaluate", "metrics.json")
    metrics = {**document.get("more", {}), **document}
    reasons = metrics.get("reasons", {})
    for name in run.contract.primary_metrics:
        value = metrics.get(name)
        explained = name in metrics and value is None and name in reasons
        number = isinstance(value, int | float) and not isinstance(value, bool)
        found = "missing" if name not in metrics else repr(value)
        yield _check("primary_metric", name, "a number, or null with a reason", found, ok=number or explained)
    record = _json(run, "evaluate", "evaluation.json")
    yield _same(
        "evaluated_this_checkpoint",
        "evaluation.json",
        checkpoint_digest(run.folder_of("train") / "checkpoint"),
        record["checkpoint_digest"],
    )
    yield from _predictions(run, record)
    yield from run.model.check_outputs(folder, settings=run.settings)
    yield _check(
        "held_out_episodes",
        "metrics.json",
        str(record["num_evaluated_episodes"]),
        str(metrics.get("held_out_episode_count")),
        ok=metrics.get("held_out_episode_count") == record["num_evaluated_episodes"] > 0,
    )


def _predictions(run: Run, record: Mapping[str, Any]) -> Iterable[Check]:
    name = run.model.predictions_file
    rows = list(read_json_rows(run.open("evaluate", name)))
    ids = [row["id"] for row in rows]
    expected = [sample.id for sample in read_rows(run.open("export", "samples/test.jsonl"), Sample)]
    expected = expected[: record["num_evaluated_samples"]] if record["limit"] else expected
    yield _check(
        "one_prediction_per_sample",
        name,
        f"{len(expected)} ids of samples/test.jsonl, in order",
        f"{len(ids)} ids, {len(set(ids))} different",
        ok=ids == expected,
    )
    foreign = sorted({row["split"] for row in rows} - {"test"})
    yield _check("predictions_are_held_out", name, "split test only", str(foreign or "test"), ok=not foreign)


def _levels(options: Options) -> list[str]:
    names = list(LEVELS)
    return names[: names.index(options.require_stage) + 1]


def _needed(options: Options) -> list[str]:
    return [stage for level in _levels(options) for stage in LEVELS[level]]


def _json(run: Run, stage: str, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run.open(stage, name).read_text(encoding="utf-8"))
    return document


def _presence(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "missing"


def _same(rule: str, subject: str, expected: Any, found: Any) -> Check:
    return _check(rule, subject, str(expected), str(found), ok=expected == found)


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=ok)


def _settings(contract: Contract) -> Mapping[str, Any]:
    files = contract.artifact_contract
    return {
        "required_training_files": list(files.required_training_files),
        "required_eval_files": list(files.required_eval_files),
        "primary_metrics": list(contract.primary_metrics),
    }


def _choices(options: Options) -> Mapping[str, Any]:
    return {"require_stage": options.require_stage}


VALIDATE = Stage(
    name="validate",
    run=_validate,
    rows="rules",
    inputs={
        "split": ("split_manifest.json",),
        "guard": ("episode_manifest.json", "leak_graph.json"),
        "export": ("dataset_manifest.json", "samples/*.jsonl"),
        "train": ("progress.jsonl", "training_metadata.json", "training_ledger.jsonl"),
        "gate": ("gate.json",),
        "evaluate": ("*",),
    },
    settings=_settings,
    choices=_choices,
    per_backbone=True,
    only_needs=_needed,
)
