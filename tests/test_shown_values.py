"""The numbers and tags that a run shows in the store are held against the files behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from omni_mlflow.registry import load_bound
from omni_mlflow.shown_values import judge_shown
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stages.run_under_test import RunUnderTest
from omni_mlflow.tracking import ShownRun
from tests.conftest import TRIVIAL, Place
from tests.judging import judge, run_of


def refused(rules: list[Check]) -> list[tuple[str, str, str, str]]:
    return [(each.rule, each.subject, each.expected, each.found) for each in broken(rules)]


METRIC, TAG = "shown_metric_is_that_of_the_files", "shown_tag_is_that_of_the_files"


@pytest.fixture(scope="module")
def job(finished, tmp_path_factory) -> Place:
    return finished.copy(tmp_path_factory.mktemp("shown"))


@pytest.fixture
def client(job):
    import mlflow

    return mlflow.MlflowClient(job.store)


@pytest.mark.parametrize("stage", ["evaluate", "main"])
def test_another_number_than_that_of_the_evaluation_is_named(place, stage):
    import mlflow

    run_id = run_of(place, stage).info.run_id
    mlflow.MlflowClient(place.store).log_metric(run_id, "action_accuracy", 0.9876)
    subject = f"{stage} run {run_id}: action_accuracy"
    assert refused(judge(place, run_of(place, "main").info.run_id)) == [(METRIC, subject, "0.0", "0.9876")]


def test_another_number_than_that_a_curve_of_the_training_ends_with_is_named(place):
    import mlflow

    run, progress = run_of(place, "train"), place.workspace / "trivial/train/progress.jsonl"
    rows = [json.loads(line) for line in progress.read_text().splitlines()]
    last = [row for row in rows if row["event"] == "step"][-1]
    mlflow.MlflowClient(place.store).log_metric(run.info.run_id, "train/loss", 0.5, step=last["step"] + 1)
    subject = f"train run {run.info.run_id}: train/loss"
    assert refused(judge(place, run_of(place, "main").info.run_id)) == [
        (METRIC, subject, str(last["loss"]), "0.5")
    ]


@pytest.mark.parametrize("said", ["nothing", "x", "train"])
def test_a_run_that_says_to_be_of_another_stage_is_judged_all_the_same(place, said):
    import mlflow

    client = mlflow.MlflowClient(place.store)
    runs = {stage: run_of(place, stage).info.run_id for stage in ("main", "evaluate")}
    for run_id in runs.values():
        client.log_metric(run_id, "action_accuracy", 0.9876)
        if said == "nothing":
            client.delete_tag(run_id, "omni.stage")
        else:
            client.set_tag(run_id, "omni.stage", said)
    told = refused(judge(place, runs["main"]))
    assert (METRIC, f"evaluate run {runs['evaluate']}: action_accuracy", "0.0", "0.9876") in told
    found = "none" if said == "nothing" else said
    assert ("run_is_of_this_stage", "evaluate", "evaluate", found) in told
    if said != "train":
        assert (METRIC, f"main run {runs['main']}: action_accuracy", "0.0", "0.9876") in told


def test_a_run_that_no_longer_says_of_which_backbone_it_is_is_named(place):
    import mlflow

    client = mlflow.MlflowClient(place.store)
    client.delete_tag(run_of(place, "evaluate").info.run_id, "omni.backbone")
    client.set_tag(run_of(place, "main").info.run_id, "omni.backbone", "another")
    told = refused(judge(place, run_of(place, "main").info.run_id))
    assert [(rule, found) for rule, _, _, found in told] == [
        ("run_is_of_this_backbone", "another"),
        ("run_is_of_this_backbone", "none"),
    ]


def test_a_number_for_what_the_evaluation_did_not_score_is_named(place):
    import mlflow

    run_id = run_of(place, "evaluate").info.run_id
    client = mlflow.MlflowClient(place.store)
    client.log_metric(run_id, "anchor_error", 0.0)  # metrics.json says so too
    client.log_metric(run_id, "num_rows", 5)
    client.log_metric(run_id, "my_own/note", 1.0)
    told = refused(judge(place, run_id))
    assert told == [(METRIC, f"evaluate run {run_id}: num_rows", "18", "5.0")]


def test_numbers_that_were_deleted_from_the_store_are_named(place):
    import sqlite3

    with sqlite3.connect(place.root / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"delete from {table}")
    told = refused(judge(place, run_of(place, "main").info.run_id))
    subjects = [f"{stage} run {run_of(place, stage).info.run_id}" for stage in ("main", "evaluate")]
    assert [each for each in told if each[1].endswith("action_accuracy")] == [
        (METRIC, f"{subject}: action_accuracy", "0.0", "none") for subject in subjects
    ]
    others = {(rule, subject.partition(" ")[0], found) for rule, subject, _, found in told}
    assert others == {(METRIC, stage, "none") for stage in ("main", "evaluate", "train")}


TAGS = [
    ("evaluate", "omni.evidence", "held_out"),
    ("main", "omni.evidence", "held_out"),
    ("train", "omni.evidence", "held_out"),
    ("evaluate", "omni.verdict", "beats_floor"),
    ("main", "omni.verdict.action", "beats_floor"),
    ("evaluate", "omni.checkpoint_digest", "0" * 16),
    ("main", "omni.dataset_digest", "0" * 16),
    ("evaluate", "omni.split_digest", "0" * 16),
    ("evaluate", "omni.contract_digest", "0" * 16),
    ("train", "omni.checkpoint_digest", "0" * 16),
    ("train", "omni.checkpoint_digest", None),
    ("evaluate", "omni.evidence", None),
]


@pytest.mark.parametrize(("stage", "key", "value"), TAGS)
def test_a_tag_that_the_files_do_not_bear_out_is_named(job, client, stage, key, value):
    run = run_of(job, stage)
    sound = run.data.tags.get(key)
    _tag(client, run, key, value)
    try:
        told = refused(judge(job, run_of(job, "main").info.run_id))
    finally:
        _tag(client, run, key, sound)
    [(rule, subject, expected, found)] = told
    assert (rule, subject) == (TAG, f"{stage} run {run.info.run_id}: {key}")
    assert (expected, found) == (sound or "none", value or "none")


def _tag(client: Any, run: Any, key: str, value: str | None) -> None:
    if value is None:
        client.delete_tag(run.info.run_id, key)
    else:
        client.set_tag(run.info.run_id, key, value)


def test_a_pipeline_run_that_did_not_end_well_has_not_shown_everything_yet(place):
    import mlflow

    client, main = mlflow.MlflowClient(place.store), run_of(place, "main")
    client.delete_tag(main.info.run_id, "omni.split_digest")
    client.set_terminated(main.info.run_id, "FAILED")
    assert refused(judge(place, main.info.run_id)) == []
    client.log_metric(main.info.run_id, "action_accuracy", 0.5)
    [(rule, *_)] = refused(judge(place, main.info.run_id))
    assert rule == METRIC


@pytest.fixture
def shown(finished, tmp_path, monkeypatch) -> Callable[..., list[Check]]:
    """What is told of an evaluate run, by what its files and the tracker say."""
    monkeypatch.syspath_prepend(str(TRIVIAL))
    bound = load_bound(TRIVIAL / "trivial.yaml", profile=None, changes={})

    def judged(*, headline: dict[str, float], metrics: dict[str, float], **tags: str) -> list[Check]:
        record = finished.json("trivial/evaluate/evaluation.json") | {"headline": headline}
        record["evidence"] = "held_out"
        scored = finished.json("trivial/evaluate/metrics.json")
        scored["verdicts"]["action"]["verdict"] = "tied_with_floor"
        write_document(tmp_path / "evaluation.json", record)
        write_document(tmp_path / "metrics.json", scored)
        run = RunUnderTest({"evaluate": tmp_path}, bound.contract, bound.backbone, bound.settings, logged={})
        own = {f"omni.{key}": record[key][:16] for key in record if key.endswith("_digest")}
        own |= {"omni.evidence": "held_out", **{key.replace("__", "."): value for key, value in tags.items()}}
        one = ShownRun("f" * 32, "evaluate", own=True, finished=True, metrics=metrics, tags=own)
        return judge_shown(run, [one], "eval")

    return judged


def test_the_verdicts_of_a_held_out_evaluation_are_shown_as_they_are(shown):
    tags = {"omni__verdict": "tied_with_floor", "omni__verdict__action": "tied_with_floor"}
    assert refused(shown(headline={}, metrics={}, **tags)) == []
    told = refused(shown(headline={}, metrics={}, **{**tags, "omni__verdict": "beats_floor"}))
    subject = f"evaluate run {'f' * 32}: omni.verdict"
    assert told == [(TAG, subject, "tied_with_floor", "beats_floor")]
    assert [each[3] for each in refused(shown(headline={}, metrics={}))] == ["none", "none"]


@pytest.mark.parametrize(
    ("value", "found", "sound"),
    [(2 / 3, 0.666667, True), (2 / 3, 2 / 3, False), (1.5, math.nan, False), (0.0, -0.0, True)],
)
def test_a_number_is_shown_with_six_digits(shown, value, found, sound):
    tags = {"omni__verdict": "tied_with_floor", "omni__verdict__action": "tied_with_floor"}
    rules = shown(headline={"hand error": value}, metrics={"hand error": found}, **tags)
    assert (refused(rules) == []) is sound


VERSION = "registered_version_is_that_of_the_files"


def test_a_registered_version_that_claims_more_than_its_evaluation_is_named(place):
    import mlflow

    client = mlflow.MlflowClient(place.store)
    [version] = client.search_model_versions("name = 'trivial'")
    client.set_model_version_tag("trivial", version.version, "omni.evidence", "held_out")
    client.set_registered_model_alias("trivial", "validated", version.version)
    client.set_registered_model_alias("trivial", "my_favourite", version.version)
    subject = f"version {version.version} of trivial"
    assert refused(judge(place, run_of(place, "main").info.run_id)) == [
        (VERSION, f"{subject}: omni.evidence", "synthetic", "held_out"),
        (VERSION, f"{subject}: aliases", "no other than validated-synthetic", "['validated']"),
    ]
