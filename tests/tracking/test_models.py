"""A checkpoint becomes one model version, and its alias moves once."""

from __future__ import annotations

import pytest

from omni_mlflow.events import RunOutcome
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection

ALIAS = "validated-synthetic"


@pytest.fixture
def register(begin, request_of):
    """Write the run of a stage that registers a checkpoint."""

    def request(digest, *, files=True, folder=None, train=None):
        stage = begin(f"qwen3_omni_lora/{folder or f'register-{digest}'}")
        if files:
            (stage.folder / "adapter_config.json").write_text(f'{{"checkpoint": "{digest}"}}')
        stage.upstream({"train": (train or stage).key})
        stage.model(request_of(digest))
        stage.ended("FINISHED", RunOutcome.OK)
        return stage

    return request


def alias_of(tracker, store):
    return str(tracker.client(store).get_model_version_by_alias("qwen3_omni_lora", ALIAS).version)


def test_a_version_carries_its_lineage_its_numbers_and_its_files(register, tracker, store):
    stage = register("c1")
    tracker.project(store)
    shown = tracker.dump(store)
    model = shown["models"]["c1"]
    assert (model["name"], model["status"], model["run"]) == ("qwen3_omni_lora-c1", "READY", stage.key)
    assert model["metrics"] == [("test/action_accuracy", 0.5, "episodes-test", "77aa")]
    assert list(model["artifacts"]) == ["adapter_config.json"]
    description, source, run, tags = shown["registry"]["qwen3_omni_lora"]["versions"]["1"]
    assert (description, source, run) == ("Synthetic episodes.", "c1", stage.key)
    assert tags["omni.evidence"] == "synthetic"
    assert tags["omni.checkpoint_digest"] == "c1"
    assert tags["omni.upstream.train"] == stage.key
    assert shown["registry"]["qwen3_omni_lora"]["aliases"] == {ALIAS: "1"}
    assert shown["runs"][stage.key]["outputs"] == ["c1"]


def test_the_alias_moves_to_the_newer_version_which_names_the_one_before(register, tracker, store):
    register("c1")
    tracker.project(store)
    register("c2")
    tracker.project(store)
    registry = tracker.dump(store)["registry"]["qwen3_omni_lora"]
    assert registry["aliases"] == {ALIAS: "2"}
    assert [registry["versions"][n][3][f"omni.alias.{ALIAS}.previous"] for n in "12"] == ["none", "1"]


def test_the_same_checkpoint_makes_no_second_version(register, tracker, store):
    register("c1")
    tracker.project(store)
    shown = tracker.dump(store)
    tracker.forget()
    tracker.project(store)
    assert tracker.dump(store) == shown
    assert list(shown["registry"]["qwen3_omni_lora"]["versions"]) == ["1"]


def test_a_person_who_moved_the_alias_back_is_not_overruled(register, tracker, store):
    register("c1")
    register("c2")
    tracker.project(store)
    tracker.client(store).set_registered_model_alias("qwen3_omni_lora", ALIAS, "1")
    tracker.forget()
    tracker.project(store)
    assert alias_of(tracker, store) == "1"


def test_a_registration_cut_short_anywhere_is_finished_the_next_time(register, tracker):
    from mlflow import MlflowClient

    register("c1")
    register("c2")
    whole = tracker.new_store("whole")
    tracker.project(whole)
    steps = ("create_logged_model", "log_model_artifacts", "finalize_logged_model", "log_outputs")
    steps += ("create_registered_model", "create_model_version", "set_model_version_tag")
    steps += ("set_registered_model_alias",)
    for step in steps:
        cut = tracker.new_store(step)
        tracker.forget()
        with pytest.MonkeyPatch.context() as patch:
            _lose_answer_of(patch, MlflowClient, step)
            with pytest.raises(ConnectionError):
                tracker.project(cut)
        tracker.project(cut)
        assert tracker.dump(cut) == tracker.dump(whole), f"answer of {step} lost"


def _lose_answer_of(patch, owner, name):
    """Lose the connection right after the store did one thing."""
    real = getattr(owner, name)

    def broken(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise ConnectionError(f"connection lost after {name}")

    patch.setattr(owner, name, broken)


def test_a_description_file_that_is_gone_is_noted_and_the_version_is_made(register, tracker, store):
    register("c1", files=False)
    report = tracker.project(store)
    assert report.complete
    assert "adapter_config.json of run register-c1 is gone" in report.notes[0]
    assert list(tracker.dump(store)["registry"]["qwen3_omni_lora"]["versions"]) == ["1"]


@pytest.fixture
def purge(tracker, store):
    """Return the tracker, and a function that purges runs by name, as delete and ``mlflow gc`` do."""

    def purge(*names):
        client = tracker.client(store)
        for run in client.search_runs(["1"]):
            if run.info.run_name in names:
                client.delete_run(run.info.run_id)
                client._tracking_client.store._hard_delete_run(run.info.run_id)

    return tracker, purge


def synced(workspace, store):
    opened = connect(store, workspace=workspace)
    projection = Projection(opened, Follower(workspace, store=opened.address))
    projection.distrust()
    projection.run_pass()
    return projection.report(failure=None)


@pytest.mark.parametrize("lost", [("train",), ("register-c1",), ("train", "register-c1")])
def test_a_version_names_the_runs_made_in_place_of_purged_ones(begin, register, purge, store, lost):
    tracker, purge_runs = purge
    train = begin("qwen3_omni_lora/train")
    train.ended("FINISHED", RunOutcome.OK)
    stage = register("c1", train=train)
    workspace = train.folder.parents[1]
    tracker.project(store)
    before = tracker.dump(store)
    purge_runs(*lost)
    notes = synced(workspace, store).notes
    is_replaced = "register-c1" in lost
    told = ["version 1 of qwen3_omni_lora"] if is_replaced else []
    assert [note.partition(" goes on naming run ")[0] for note in notes] == told
    shown = tracker.dump(store)
    for tags in (shown["models"]["c1"]["tags"], shown["registry"]["qwen3_omni_lora"]["versions"]["1"][3]):
        assert tags.pop("omni.continued_in", None) == (stage.key if is_replaced else None)
    assert shown == before
    again = synced(workspace, store)
    assert (again.projected, again.notes) == (0, ())


def test_a_version_stays_with_its_run_when_another_one_registers_the_same_checkpoint(
    register, tracker, store
):
    register("c1")
    tracker.project(store)
    shown = tracker.dump(store)["registry"]
    register("c1", folder="register-again")
    assert tracker.project(store).notes == ()
    assert tracker.dump(store)["registry"] == shown
