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
    assert "and “same as the true current action” scores 0." in report
    assert "beat" not in report
