"""The main job end to end, on real files and a real store, with a backbone that needs no model library."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from omni_mlflow.events import JOURNAL_NAME, Ended, read_events
from omni_mlflow.spine.splits import assign_splits
from omni_mlflow.spine.types import Split
from omni_mlflow.stage_run import StageFailedError
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.manifests import TEST_TARGETS
from omni_mlflow.workspace import StageFolder
from tests.conftest import PROJECT, TRIVIAL
from tests.workbench import Workbench

MAIN_STAGES = [name for name, stage in STAGES.items() if name != "synthesize" and stage.fills is None]


def test_every_run_of_the_main_job_is_finished_and_nested_under_the_pipeline(finished):
    pipeline, *stages = finished.runs()
    assert pipeline.info.run_name == "main trivial"
    assert [run.data.tags["omni.stage"] for run in stages] == MAIN_STAGES
    assert {run.info.status for run in [pipeline, *stages]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in stages} == {pipeline.info.run_id}
    assert {run.data.tags["omni.outcome"] for run in [pipeline, *stages]} == {"ok"}


def test_every_run_names_the_commit_and_whether_the_code_differs_from_it(finished):
    if not (PROJECT / ".git").exists():
        pytest.skip("the project is no git work tree here")
    tags = [run.data.tags for run in finished.runs()]
    assert {len(each["mlflow.source.git.commit"]) for each in tags} == {40}
    assert {each["mlflow.source.git.dirty"] for each in tags} <= {"true", "false"}


def test_shared_stages_carry_no_backbone(finished):
    named = {run.data.tags["omni.stage"]: run.data.tags.get("omni.backbone") for run in finished.runs()}
    assert {stage for stage, backbone in named.items() if backbone is None} == {
        "select",
        "split",
        "guard",
        "index",
    }


def test_everything_made_from_synthetic_episodes_is_tagged_synthetic(finished):
    assert {run.data.tags.get("omni.evidence") for run in finished.runs()} == {"synthetic"}


def test_the_headline_is_copied_to_the_pipeline_run(finished):
    pipeline, *stages = finished.runs()
    evaluate = next(run for run in stages if run.data.tags["omni.stage"] == "evaluate")
    assert pipeline.data.metrics["action_accuracy"] == evaluate.data.metrics["action_accuracy"]


def test_the_report_says_on_its_first_line_that_the_data_is_synthetic(finished):
    report = (finished.workspace / "trivial/evaluate/RUN_REPORT.md").read_text()
    assert report.splitlines()[0].startswith("SYNTHETIC DATA")


def test_rows_are_conserved_at_every_stage(finished):
    seals = [
        finished.json(path.relative_to(finished.workspace))
        for path in sorted(finished.workspace.rglob("seal.json"))
    ]
    assert {seal["stage"] for seal in seals if seal["taken"]} == set(MAIN_STAGES)
    assert all(seal["taken"] == seal["made"] + seal["skipped"] for seal in seals)


def test_the_index_manifest_names_the_labels_that_nearly_always_have_one_answer(finished):
    named = finished.json("index/window_index_manifest.json")["degenerate_labels"]
    lines = (finished.workspace / "index" / "window_index.jsonl").read_text().splitlines()
    for name in ("in_contact", "transition"):
        labels = [json.loads(line)["supervision"][name] for line in lines]
        answers = [label for label in labels if label is not None]
        shares = {answer: answers.count(answer) / len(answers) for answer in (False, True)}
        expected = [{"answer": answer, "share": share} for answer, share in shares.items() if share > 0.95]
        assert ([named[name]] if name in named else []) == expected


def test_the_report_shows_what_every_stage_before_it_took_made_and_skipped(finished):
    report = (finished.workspace / "trivial/evaluate/RUN_REPORT.md").read_text()
    table = report[report.index("In, out and skipped") :]
    for stage in ("select", "split", "guard", "index", "export", "train"):
        name = stage if stage in ("select", "split", "guard", "index") else f"trivial/{stage}"
        seal = finished.json(f"{name}/seal.json")
        unit = STAGES[stage].rows
        assert f"| {stage} | {unit} | {seal['taken']} | {seal['made']} | {seal['skipped']} |" in table


def test_the_export_holds_held_out_targets_in_its_sealed_file_only(finished):
    export = finished.workspace / "trivial/export"
    targets = [json.loads(line) for line in (export / TEST_TARGETS).read_text().splitlines()]
    held_out = [json.loads(line) for line in (export / "samples/test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in held_out] == [row["id"] for row in targets]
    assert all("target" not in row and "labels" not in row for row in held_out)
    learned = (export / "samples/train.jsonl").read_text() + (export / "samples/val.jsonl").read_text()
    assert not any(row["episode_id"] in learned for row in targets)


def test_only_evaluate_and_merge_declare_that_they_open_held_out_targets():
    openers = {
        name
        for name, stage in STAGES.items()
        if any("sealed" in pattern or pattern == "*" for pattern in stage.inputs.get("export", ()))
    }
    assert openers == {"evaluate", "merge"}


def test_numeric_targets_lie_beside_their_rows_and_held_out_ones_are_sealed(finished):
    export = finished.workspace / "trivial/export"
    found = {path.relative_to(export).as_posix() for path in export.rglob("*.npy")}
    assert found == {
        "samples/train.arrays/anchor.npy",
        "samples/val.arrays/anchor.npy",
        "sealed/test_targets.arrays/anchor.npy",
    }
    assert found < finished.json("trivial/export/dataset_manifest.json")["files"].keys()
    rows = [json.loads(line)["anchor"] for line in (export / TEST_TARGETS).read_text().splitlines()]
    assert np.load(export / "sealed/test_targets.arrays/anchor.npy")[:, 0].tolist() == rows


def test_an_exam_pairs_numbers_with_samples_whether_high_or_low_is_good(finished):
    metrics = finished.json("trivial/evaluate/metrics.json")
    assert metrics["anchor_error"] == 0
    assert finished.json("trivial/evaluate/anchors.json") == {"shape": [metrics["num_rows"], 1]}


def test_the_gate_looks_a_second_time_at_what_the_evaluation_left(finished):
    rules = [rule["rule"] for rule in finished.json("trivial/validate/validation.json")["rules"]]
    assert "something_was_predicted" in rules


def test_the_gate_fits_again_and_compares_the_episodes(finished):
    rules = {rule["rule"]: rule for rule in finished.json("trivial/gate/gate.json")["rules"]}
    found = finished.json("trivial/train/checkpoint/fitted.json")
    assert rules["fitted_on_train_episodes"]["found"] == found["episodes_digest"]
    split = finished.json("split/split_manifest.json")["episodes"]
    assert found["episode_ids"] == sorted(each["episode_id"] for each in split if each["split"] == "train")


def test_looking_at_the_targets_is_written_down_once_per_evaluation(finished):
    ledger = (finished.workspace / "seal_ledger.jsonl").read_text().splitlines()
    assert [json.loads(row)["purpose"] for row in ledger] == ["evaluate"]


def test_a_model_version_carries_the_alias_of_its_evidence(finished):
    import mlflow

    client = mlflow.MlflowClient(finished.store)
    version = client.get_model_version_by_alias("trivial", "validated-synthetic")
    evaluation = finished.json("trivial/evaluate/evaluation.json")
    assert version.tags["omni.checkpoint_digest"] == evaluation["checkpoint_digest"]


def test_the_package_holds_no_media_weights_or_sealed_targets(finished):
    package = finished.workspace / "trivial/publish/package"
    names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {"evaluate/metrics.json", "evaluate/RUN_REPORT.md", "package.json", "manifest-sha256.txt"} <= names
    assert not [name for name in names if name.endswith((".mp4", ".wav", ".npz", ".safetensors", ".hdf5"))]
    assert not [name for name in names if "sealed" in name or "samples" in name]


def test_the_main_job_again_reuses_every_stage(place):
    again = place.run("main", "--json")
    assert again.returncode == 0, again.stderr
    assert all(row["reused"] for row in json.loads(again.stdout))
    assert again.stderr.count("unchanged, reusing run") == len(MAIN_STAGES)


def test_a_changed_training_setting_runs_training_and_what_follows_again(place):
    again = place.run("main", "--json", "--set", "training.steps=6")
    assert again.returncode == 0, again.stderr
    rows = json.loads(again.stdout)
    assert [row["stage"] for row in rows if row["reused"]] == ["select", "split", "guard", "index", "export"]
    kept = list((place.workspace / "trivial" / "superseded").iterdir())
    assert any(folder.name.startswith("train-") for folder in kept), "the old checkpoint is kept"


def test_a_stage_alone_without_its_input_says_which_stage_to_run(empty):
    alone = empty.run("train")
    assert alone.returncode == 1
    assert "run it first, with the same options: omni-mlflow index" in alone.stderr
    [run] = empty.runs()
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("FAILED", "refused")
    assert "run it first" in run.data.tags["mlflow.note.content"]


def test_a_stage_whose_words_nobody_can_take_is_finished_all_the_same(empty):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            empty.arguments("select"),
            env=empty.environment,
            cwd=empty.root,
            stdout=full,
            stderr=full,
            check=False,
        )
    assert done.returncode == 1  # the result was lost, and whoever reads it must know
    [run] = empty.runs()
    assert (run.info.status, run.data.tags["omni.outcome"]) == ("FINISHED", "ok")


def test_a_missing_data_root_is_a_paragraph_and_a_failed_run(empty):
    missing = empty.run("select", "--data-root", str(empty.root / "nowhere"))
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
    [run] = empty.runs()
    assert run.info.status == "FAILED"
    assert not (empty.workspace / "select/seal.json").exists()


def test_a_wrong_contract_key_names_the_nearest_and_leaves_a_failed_run(empty):
    wrong = empty.run("select", "--set", "training.stepz=3")
    assert wrong.returncode == 1
    assert "did you mean 'steps'?" in wrong.stderr
    [run] = empty.runs()
    assert run.info.status == "FAILED"


def test_wrong_usage_is_exit_status_two(empty):
    assert empty.run("select", "--worker", "2").returncode == 2


def plant_twin(data):
    """Copy a session of another split to the first name that falls into test; return the sizes to ask for."""
    sessions = sorted(path.name for path in data.iterdir() if path.is_dir())
    sizes = {Split.TRAIN: 4, Split.VAL: 1, Split.TEST: 2}
    for number in range(100):
        twin = f"twin-{number}"
        split_of = assign_splits([*sessions, twin], sizes=sizes, seed=108)
        if split_of[twin] is Split.TEST:
            original = next(name for name in sessions if split_of[name] is Split.TRAIN)
            shutil.copytree(data / original, data / twin)
            return "4/1/2"
    raise AssertionError("no name falls into test")


def test_a_leak_between_splits_stops_the_main_job_with_its_evidence_shown(empty, tmp_path):
    data = tmp_path / "leaky"
    shutil.copytree(empty.data_root, data)
    sizes = plant_twin(data)
    stopped = empty.run("main", "--data-root", str(data), "--sizes", sizes)
    assert stopped.returncode == 1
    assert "content_disjoint" in stopped.stderr
    guard = next(run for run in empty.runs() if run.data.tags["omni.stage"] == "guard")
    assert (guard.info.status, guard.data.tags["omni.outcome"]) == ("FAILED", "refused")
    assert {path.name for path in empty.artifacts(guard)} >= {"leak_graph.json", "validation"}
    assert not (empty.workspace / "index").exists()
    assert not (empty.workspace / "guard/seal.json").exists()


def test_a_setting_that_was_tried_and_given_up_costs_nothing_that_was_finished(place):
    assert place.run("train", "--set", "training.fails_at=3").returncode == 1
    back = place.run("train", "--json")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)[0]["reused"], "the finished training was moved aside and comes back"


def test_a_lone_stage_does_not_read_what_other_settings_made(place):
    stale = place.run("gate", "--set", "training.steps=6")
    assert stale.returncode == 1
    assert "'train' was made with other settings: settings.training.steps=12 (now 6)" in stale.stderr


def test_a_lone_stage_does_not_read_what_another_upstream_made(place):
    assert place.run("split", "--sizes", "2/1/2").returncode == 0
    stale = place.run("export", "--sizes", "2/1/2")
    assert stale.returncode == 1
    assert "run 'guard' again" in stale.stderr


def test_a_partial_evaluation_is_smoke_unless_it_is_synthetic_and_says_what_it_looked_at(place):
    assert place.run("evaluate", "--limit", "3").returncode == 0
    evaluation = place.json("trivial/evaluate/evaluation.json")
    assert (evaluation["num_evaluated_samples"], evaluation["evidence"]) == (3, "synthetic")
    ledger = (place.workspace / "seal_ledger.jsonl").read_text().splitlines()
    assert [json.loads(row)["purpose"] for row in ledger] == ["evaluate", "evaluate the first 3"]
    assert evaluation["seal_openings"] == 2
    assert place.run("validate").returncode == 0
    assert place.run("register").returncode == 0
    assert "nothing registered" in place.json("trivial/register/registration.json")["reason"]


def test_a_contract_of_another_backbone_is_refused(empty):
    wrong = empty.run("select", "--backbone", "qwen3_omni_lora", "--contract", str(TRIVIAL / "trivial.yaml"))
    assert wrong.returncode == 1
    assert "is the contract of 'trivial'" in wrong.stderr


def test_a_stage_whose_seal_cannot_be_written_is_failed_and_goes_on_later(place, monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bench = Workbench(place, [])
    with monkeypatch.context() as full:
        full.setattr(StageFolder, "close", full_disk)
        with pytest.raises(StageFailedError, match="No space left on device"):
            bench.run("train", changes={"settings.training.steps": 6})
    events = read_events(bench.backbone / "train" / JOURNAL_NAME)
    assert [event.status for event in events if isinstance(event, Ended)] == ["FAILED"]
    assert not bench.run("train", changes={"settings.training.steps": 6}).reused


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
