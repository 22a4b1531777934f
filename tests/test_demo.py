"""The demo as a new user runs it: the adapter learns, and the controls say from what."""

from __future__ import annotations

import pytest

from tests.conftest import PROJECT, Place


@pytest.fixture(scope="module")
def demo(tmp_path_factory, blank_store) -> Place:
    """The main job of the demo on the tiny base: minutes, and minutes more where the base is not cached."""
    place = Place(tmp_path_factory.mktemp("demo"), PROJECT)
    done = place.run_as_typed("main", "--profile", "demo", "--workspace", str(place.workspace))
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def metrics(demo) -> dict:
    return demo.json("qwen3_omni_lora/evaluate/metrics.json")


@pytest.mark.slow
def test_every_run_of_the_demo_is_finished(demo):
    assert {run.info.status for run in demo.runs()} == {"FINISHED"}


@pytest.mark.slow
def test_two_sessions_are_rejected_with_their_reasons_and_eight_are_held_out(demo, metrics):
    selection = demo.json("select/selection.json")
    assert (selection["found"], selection["selected"], selection["rejected"]) == (26, 24, 2)
    assert metrics["held_out_episode_count"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "contact_accuracy"])
def test_action_and_contact_beat_their_best_floor_with_the_whole_interval(metrics, metric):
    difference = metrics["baselines"][metric]["difference"]
    assert difference["low"] > 0, difference


@pytest.mark.slow
def test_free_decoding_writes_valid_json(metrics):
    assert metrics["json_validity_rate"] >= 0.95


@pytest.mark.slow
def test_action_falls_to_its_floor_without_its_video_and_not_without_its_sound(metrics):
    baseline = metrics["baselines"]["accuracy"]
    floor = baseline["floors"][baseline["best"]]
    assert metrics["controls"]["other_video"]["accuracy"]["value"] <= floor
    assert metrics["controls"]["other_audio"]["accuracy"]["value"] > metrics["accuracy"] - 0.05


@pytest.mark.slow
def test_contact_falls_to_its_floor_without_its_sound_and_not_without_its_video(metrics):
    baseline = metrics["baselines"]["contact_accuracy"]
    floor = baseline["floors"][baseline["best"]]
    without_sound = metrics["controls"]["other_audio"]["contact_accuracy"]["value"]
    assert without_sound <= floor + 0.12, "what chance leaves over eight episodes"
    without_video = metrics["controls"]["other_video"]["contact_accuracy"]["value"]
    assert without_video > metrics["contact_accuracy"] - 0.05


@pytest.mark.slow
def test_the_report_shows_numbers_beside_their_floors_and_claims_nothing(demo):
    report = (demo.workspace / "qwen3_omni_lora/evaluate/RUN_REPORT.md").read_text()
    assert "next-action accuracy is 0." in report
    assert "and “same as what is true now” scores 0." in report
    assert "beat" not in report


@pytest.fixture(scope="module")
def policy(tmp_path_factory, blank_store) -> dict:
    """The metrics of the policy's demo."""
    place = Place(tmp_path_factory.mktemp("policy_demo"), PROJECT)
    options = ("--profile", "demo", "--backbone", "policy_vla_branch", "--workspace", str(place.workspace))
    done = place.run_as_typed("main", *options)
    assert done.returncode == 0, done.stderr
    return place.json("policy_vla_branch/evaluate/metrics.json")


@pytest.mark.slow
def test_hands_are_foretold_better_than_hands_that_slow_down_with_the_whole_interval(policy):
    difference = policy["baselines"]["trajectory_mpjpe"]["differences"]["damped_velocity"]
    assert difference["low"] > 0, difference


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["action_accuracy", "contact_accuracy"])
def test_the_policy_s_action_and_contact_beat_the_most_frequent_answer_with_the_whole_interval(
    policy, metric
):
    difference = policy["baselines"][metric]["differences"]["majority"]
    assert difference["low"] > 0, difference


@pytest.mark.slow
def test_without_its_picture_the_policy_does_not_know_the_action(policy):
    baseline = policy["baselines"]["action_accuracy"]
    assert (
        policy["controls"]["blank_image"]["action_accuracy"]["value"] <= baseline["floors"][baseline["best"]]
    )
