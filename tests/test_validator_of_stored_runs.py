"""What the tracking store shows of a run is judged like a workspace: every damaged file is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.spine.rows import file_digest
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stages.validate import stages_of
from tests.conftest import TRIVIAL, Place
from tests.judging import judge, run_of
from tests.test_validator import CONTRACT, DAMAGES, EVAL_FILES, TRAINING_FILES, changed, named
from tests.tracking.test_server import Server

DAMAGED = [
    ("evaluate/RUN_REPORT.md", "cut"),
    ("evaluate/predictions.jsonl", "flipped"),
    ("evaluate/evaluation.json", "flipped"),
    ("gate/gate.json", "flipped"),
    ("train/progress.jsonl", "cut"),
    ("train/training_metadata.json", "flipped"),
    ("train/checkpoint/model.json", "deleted"),
    ("train/outputs.json", "flipped"),
    ("select/selection.json", "cut"),
    ("index/window_index_manifest.json", "flipped"),
    ("validate/validation.json", "deleted"),
    ("register/registration.json", "flipped"),
]
BESIDE = ("select", "index", "validate", "report", "register", "publish")


def cut(path: Path) -> None:
    """Keep whole lines where there are several: no reader stumbles over a torn one."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]) or path.read_bytes()[:40])


HOW: dict[str, Callable[[Path], Any]] = {**DAMAGES, "cut": cut}


@pytest.fixture(scope="module")
def job(finished, tmp_path_factory) -> Place:
    """A copy of the finished job; its files in the store are those of the job, and are given back."""
    return finished.copy(tmp_path_factory.mktemp("stored"))


def folder_of(job: Place, stage: str) -> Path:
    """Where the store keeps the files of a stage."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(run_of(job, stage).info.artifact_uri))


@pytest.fixture
def damage(job) -> Iterator[Callable[[str, Callable[[Path], Any]], None]]:
    """Damage a file of the store, ``<stage>/<name>``; it is restored afterwards."""
    kept: dict[Path, bytes] = {}

    def apply(name: str, change: Callable[[Path], Any]) -> None:
        stage, _, inner = name.partition("/")
        path = folder_of(job, stage) / inner
        kept.setdefault(path, path.read_bytes())
        change(path)

    yield apply
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link would be followed
        path.write_bytes(content)


@pytest.fixture
def stored(job) -> Callable[[], list[Check]]:
    main = run_of(job, "main").info.run_id
    return lambda: judge(job, main)


@pytest.mark.parametrize("stage", ["main", "register"])
def test_a_run_of_the_store_is_judged_by_what_its_stage_runs_show(place, stage):
    shutil.rmtree(place.workspace)
    rules = judge(place, run_of(place, stage).info.run_id)
    assert broken(rules) == []
    unseen = {check.subject for check in rules if "not in the tracking store" in check.found}
    assert unseen >= {"train/training_ledger.jsonl", "export/samples/test.jsonl"}
    assert {check.subject for check in rules} >= {*TRAINING_FILES, *EVAL_FILES, *CONTRACT.primary_metrics}


@pytest.mark.parametrize(("name", "how"), DAMAGED)
def test_a_damaged_file_of_a_stored_run_is_named(stored, damage, name, how):
    damage(name, HOW[how])
    assert name in named(stored())


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stage", [*stages_of("eval"), *BESIDE])
def test_every_damaged_file_of_every_stage_of_a_stored_run_is_named(stored, job, damage, stage, how):
    folder = folder_of(job, stage)
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    assert "outputs.json" in names
    for name in names:
        sound = (folder / name).read_bytes()
        damage(f"{stage}/{name}", HOW[how])
        assert f"{stage}/{name}" in named(stored())
        (folder / name).write_bytes(sound)
    assert named(stored()) == set()


def test_a_required_file_that_was_shown_and_is_gone_is_not_taken_for_a_large_one(stored, damage):
    damage("train/checkpoint/model.json", Path.unlink)
    told = {check.rule: check.found for check in broken(stored())}
    assert told == {
        "logged_file_is_unchanged": "missing",
        "required_training_file": "missing",
        "checkpoint_file_is_the_one_listed": "missing",
    }


def lead_nowhere(path: Path) -> None:
    """A link whose target is gone: the store cannot even list the folder that it lies in."""
    path.unlink()
    path.symlink_to("gone")


@pytest.mark.parametrize(
    "name", ["evaluate/RUN_REPORT.md", "train/checkpoint/model.json", "gate/outputs.json"]
)
def test_a_file_that_the_store_cannot_deliver_is_named_and_every_other_rule_is_applied(stored, damage, name):
    sound = stored()
    damage(name, lead_nowhere)
    rules = stored()
    [told] = [check.subject for check in broken(rules) if check.rule == "file_is_delivered"]
    assert told == name
    assert {check.rule for check in rules} >= {check.rule for check in sound} - {"logged_files_are_unchanged"}
    others = {check.subject for check in broken(rules)} - {name, name.rpartition("/")[2]}
    assert {each.partition("/")[0] for each in others} <= {name.partition("/")[0]}


@pytest.fixture
def served(finished, tmp_path) -> Iterator[tuple[Server, Path]]:
    """The finished job as a server shows it that keeps the files itself; and where it keeps them."""
    job = finished.copy(tmp_path / "job")
    kept = folder_of(job, "main").parents[1]
    server = Server(tmp_path)
    shutil.copytree(kept, tmp_path / "artifacts" / kept.name)
    shutil.copy(job.root / "mlflow.db", server.database)
    with sqlite3.connect(server.database) as database:
        moved = (f"{kept.as_uri()}/", f"mlflow-artifacts:/{kept.name}/")
        database.execute("update runs set artifact_uri = replace(artifact_uri, ?, ?)", moved)
    server.start()
    yield server, tmp_path / "artifacts" / kept.name
    server.kill()


@pytest.mark.slow
def test_a_file_for_which_a_server_answers_500_is_named(served, finished):
    server, kept = served
    main, evaluation = (run_of(finished, stage).info.run_id for stage in ("main", "evaluate"))
    assert broken(judge(finished, main, store=server.address)) == []
    lead_nowhere(kept / evaluation / "artifacts" / "RUN_REPORT.md")
    [told] = [
        each
        for each in broken(judge(finished, main, store=server.address))
        if each.rule == "file_is_delivered"
    ]
    assert told.subject == "evaluate/RUN_REPORT.md"
    assert server.address in told.found


def test_a_link_to_nowhere_that_no_stage_left_is_nothing_to_judge(stored, job):
    link = folder_of(job, "train") / "note.txt"
    link.symlink_to("gone")
    try:
        assert broken(stored()) == []
    finally:
        link.unlink()


def test_a_number_changed_in_a_checkpoint_differs_from_its_manifest_too(stored, damage):
    damage("train/checkpoint/model.json", changed(schema_version=7))
    assert {(check.rule, check.subject) for check in broken(stored())} == {
        ("logged_file_is_unchanged", "train/checkpoint/model.json"),
        ("checkpoint_file_is_the_one_listed", "train/checkpoint/model.json"),
    }


def test_a_file_changed_together_with_its_digest_is_told_by_the_tag_of_its_run(stored, job, damage):
    report = folder_of(job, "evaluate") / "RUN_REPORT.md"
    damage("evaluate/RUN_REPORT.md", lambda path: path.write_text(f"{path.open().readline()}All is well.\n"))

    def follow(path: Path) -> None:
        logged = json.loads(path.read_text())
        logged["shown"]["RUN_REPORT.md"] = logged["outputs"]["RUN_REPORT.md"] = file_digest(report)
        path.write_text(json.dumps(logged))

    damage("evaluate/outputs.json", follow)
    [refused] = broken(stored())
    assert (refused.rule, refused.subject) == ("digests_of_its_files_were_logged", "evaluate/outputs.json")


OTHER_CONTRACTS = {
    "another seed": (("  seed: 108", "  seed: 109"), "split", "split_seed=108 (this contract: 109)"),
    "one rule less in its guard": (("    - sound_disjoint\n", ""), "guard", "leakage_guard="),
    "another stride": (("stride: 10", "stride: 20"), "export", "windows.scales="),
    "a longer training": (
        ("{steps: 12", "{steps: 13"),
        "train",
        "settings.training.steps=12 (this contract: 13)",
    ),
}


@pytest.mark.parametrize("difference", OTHER_CONTRACTS)
def test_a_run_that_was_made_under_another_contract_is_refused(job, tmp_path, difference):
    (old, new), stage, told = OTHER_CONTRACTS[difference]
    text = (TRIVIAL / "trivial.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "other.yaml").write_text(text.replace(old, new))
    rules = judge(job, run_of(job, "main").info.run_id, contract=tmp_path / "other.yaml")
    [refused] = broken(rules)
    assert (refused.rule, refused.subject) == ("made_under_this_contract", stage)
    assert told in refused.found
    assert "download contract.json from the artifacts of its evaluate run" in refused.found


def test_the_contract_among_the_artifacts_of_a_run_is_the_one_that_it_is_sound_under(job):
    own = folder_of(job, "evaluate") / "contract.json"
    assert broken(judge(job, run_of(job, "main").info.run_id, contract=own)) == []


def test_a_contract_that_differs_in_what_shapes_nothing_is_judged_by_what_it_asks_for(job, tmp_path):
    text = (TRIVIAL / "trivial.yaml").read_text()
    fewer = text.replace(
        "primary_metrics: [action_accuracy, anchor_error, ", "primary_metrics: [action_accuracy, "
    )
    assert fewer != text
    (tmp_path / "other.yaml").write_text(fewer.replace("display_name: Trivial", "display_name: Same"))
    rules = judge(job, run_of(job, "main").info.run_id, contract=tmp_path / "other.yaml")
    assert broken(rules) == []
    assert "anchor_error" not in {each.subject for each in rules if each.rule == "primary_metric"}


def test_a_run_whose_settings_nobody_logged_is_never_green(stored, damage):
    damage("train/outputs.json", changed(settings=None))
    told = {(check.rule, check.subject): check.found for check in broken(stored())}
    assert "judge the workspace" in told["made_under_this_contract", "train/outputs.json"]


def test_the_contract_that_a_checkpoint_names_is_the_one_its_run_shows(stored, job):
    import mlflow

    client, train = mlflow.MlflowClient(job.store), run_of(job, "train")
    client.set_tag(train.info.run_id, "omni.contract_digest", "0" * 16)
    try:
        [refused] = broken(stored())
    finally:
        client.set_tag(train.info.run_id, "omni.contract_digest", train.data.tags["omni.contract_digest"])
    assert refused.rule == "shown_tag_is_that_of_the_files"
    assert refused.subject == f"train run {train.info.run_id}: omni.contract_digest"


def test_a_run_that_logged_no_digests_is_never_green(stored, job, damage):
    import mlflow

    client, train = mlflow.MlflowClient(job.store), run_of(job, "train")
    tag = train.data.tags["omni.outputs_digest"]
    client.delete_tag(train.info.run_id, "omni.outputs_digest")
    damage("train/outputs.json", Path.unlink)
    try:
        told = {(check.rule, check.subject): check.found for check in broken(stored())}
    finally:
        client.set_tag(train.info.run_id, "omni.outputs_digest", tag)
    assert "an earlier omni-mlflow" in told["digests_of_its_files_were_logged", "train/outputs.json"]
    assert ("ledger_is_the_one_of_the_training", "train/training_ledger.jsonl") in told


def test_all_files_of_a_run_that_are_gone_are_named(stored, job):
    folder = folder_of(job, "gate")
    folder.rename(folder.with_name("away"))
    try:
        refused = named(stored())
    finally:
        folder.with_name("away").rename(folder)
    assert refused >= {"gate/outputs.json", "gate/gate.json"}


@pytest.mark.slow
def test_a_run_that_reused_finished_work_is_judged_by_the_run_that_did_it(place):
    assert place.run("evaluate").returncode == 0
    reused = next(run for run in place.runs() if "omni.reused" in run.data.tags)
    assert broken(judge(place, reused.info.run_id)) == []


def test_a_run_that_is_not_there_or_ended_badly_or_before_is_a_broken_rule(place):
    import mlflow

    client = mlflow.MlflowClient(place.store)
    assert [check.rule for check in judge(place, "0" * 32)] == ["stage_run_exists"]
    lacking = {
        check.subject
        for check in broken(judge(place, run_of(place, "train").info.run_id))
        if check.rule == "stage_run_exists"
    }
    assert lacking == {"gate", "evaluate"}
    client.set_terminated(run_of(place, "gate").info.run_id, "FAILED")
    refused = [
        (check.rule, check.subject) for check in broken(judge(place, run_of(place, "main").info.run_id))
    ]
    assert refused == [("stage_run_is_finished", "gate")]


def test_a_run_may_be_named_by_the_key_that_its_stage_printed(place):
    run = run_of(place, "evaluate")
    for key in (run.data.tags["omni.run_key"], run.data.tags["omni.run_key"][:12]):
        assert key not in run.info.run_id
        rules = judge(place, key)
        assert len(rules) > 100
        assert broken(rules) == []


def test_a_run_is_judged_from_the_command_line(place):
    missing = place.run("validate", "--run", "f" * 32)
    assert missing.returncode == 1
    assert "stage_run_exists" in missing.stdout
