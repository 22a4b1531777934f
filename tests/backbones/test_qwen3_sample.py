"""What Qwen3-Omni may see of a window: it ends at the anchor, and no answer is in it."""

from __future__ import annotations

import pytest
from qwen3_nano import qwen_settings, qwen_window, write_qwen_media

from omni_mlflow.backbones.qwen3_omni_lora.controls import CONTROLS, controlled
from omni_mlflow.backbones.qwen3_omni_lora.sample import export_window
from omni_mlflow.spine.synthetic.world import make_session
from omni_mlflow.spine.types import Labels, Language, Media, Modalities, Skip, Span


@pytest.fixture(scope="module")
def media_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    write_qwen_media(root / "kitchen", make_session(1, frames=60))
    return root


def export(window, media_root, **changes):
    made = export_window(window, media_root=media_root, settings=qwen_settings(**changes))
    return made if isinstance(made, Skip) else (made.sample, made.target)


def test_a_sample_points_at_the_last_context_frames_and_the_sound_before_the_anchor(media_root):
    sample, _ = export(qwen_window(anchor=50), media_root)
    assert sample.inputs == {
        # frames 18..49 of the episode hold the grid frames 20, 24 .. 48: proxy frames 5 .. 12
        "video": {
            "path": "kitchen/mosaic.mp4",
            "positions": [5, 6, 7, 8, 9, 10, 11, 12],
            "frames_per_second": 5.0,
        },
        "audio": {"path": "kitchen/audio.wav", "start_s": 1.5, "stop_s": 2.5},
        "window": {"start_frame": 30, "end_frame": 49},
        "main_task": "Sorting blocks at the workbench",
        "sensors": "head 1.00m 1deg; left 1.00m; right 1.00m; depth 1.00m; shake 1.0",
    }
    assert sample.observed == Span(start=20, stop=50)
    assert sample.forecast_from == 50


def test_long_sound_widens_what_was_observed_and_never_begins_before_the_episode(media_root):
    two_seconds, _ = export(qwen_window(anchor=50), media_root, prompt_audio_seconds=2.0)
    too_long, _ = export(qwen_window(anchor=50), media_root, prompt_audio_seconds=9.0)
    assert two_seconds.observed.start == 10
    assert too_long.inputs["audio"]["start_s"] == 0.0
    assert too_long.observed.start == 0


def test_sound_ends_at_the_anchor_by_the_devices_clock(media_root):
    sample, _ = export(qwen_window(anchor=50, anchor_s=2.6), media_root)
    assert sample.inputs["audio"] == {"path": "kitchen/audio.wav", "start_s": 1.6, "stop_s": 2.6}


def test_the_target_holds_the_labels_and_the_inputs_hold_none_of_them(media_root):
    labels = Labels(
        action="Brush red block",
        subtask="Handle red block",
        objects=("red block",),
        in_contact=True,
        transition=True,
        next_action="Scrape red block",
    )
    sample, target = export(qwen_window(supervision=labels), media_root)
    assert target.labels == labels
    assert target.span == Span(start=20, stop=40)
    seen = sample.model_dump_json()
    assert not any(word in seen for word in ("Brush", "Scrape", "Handle", "red block", "true"))


def test_without_the_sensor_bridge_or_sound_a_sample_has_none(media_root):
    media = Media(proxy_video="kitchen/mosaic.mp4", grid_stride=4, num_proxy_frames=15)
    silent = qwen_window(modalities=Modalities(media=media, language=Language()))
    sample, _ = export(silent, media_root)
    assert sample.inputs["audio"] is None
    assert sample.inputs["sensors"] is None
    assert sample.inputs["main_task"] is None
    bridged, _ = export(qwen_window(), media_root, prompt_sensor_bridge=False)
    assert bridged.inputs["sensors"] is None


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (qwen_window(supervision=Labels(in_contact=True)), "no action label reaches the share"),
        (qwen_window(anchor=30), "context leaves the episode"),
        (
            qwen_window(modalities=Modalities(media=Media(proxy_video=None), language=Language())),
            "no proxy video",
        ),
    ],
)
def test_a_window_that_cannot_be_asked_about_is_skipped_with_its_reason(window, reason, media_root):
    skip = export(window, media_root)
    assert isinstance(skip, Skip)
    assert (skip.subject, skip.stage) == (window.id, "export")
    assert reason in skip.reason


def samples(media_root, *anchors_by_episode):
    made = []
    for number, anchors in enumerate(anchors_by_episode):
        for anchor in anchors:
            sample, _ = export(qwen_window(anchor), media_root)
            inputs = sample.inputs | {"video": sample.inputs["video"] | {"path": f"{number}/mosaic.mp4"}}
            made.append(sample.model_copy(update={"episode_id": f"ep{number}", "inputs": inputs}))
    return made


def test_other_video_is_another_episodes_and_leaves_the_rest_alone(media_root):
    intact = samples(media_root, (40, 50, 60), (40, 50))
    changed = controlled("other_video", intact)
    assert [sample.id for sample in changed] == [sample.id for sample in intact]
    # half of five is two: 0 -> 2 is of the same episode, so the next of another one: 3
    paths = [sample.inputs["video"]["path"] for sample in changed]
    assert paths == ["1/mosaic.mp4", "1/mosaic.mp4", "1/mosaic.mp4", "0/mosaic.mp4", "0/mosaic.mp4"]
    for before, after in zip(intact, changed, strict=True):
        assert {**after.inputs, "video": None} == {**before.inputs, "video": None}


def test_other_audio_exchanges_only_the_sound(media_root):
    intact = samples(media_root, (40,), (60,))
    changed = controlled("other_audio", intact)
    assert [sample.inputs["audio"]["stop_s"] for sample in changed] == [3.0, 2.0]
    assert [sample.inputs["video"] for sample in changed] == [sample.inputs["video"] for sample in intact]


def test_text_only_leaves_the_task_and_the_window(media_root):
    (sample,) = controlled("text_only", samples(media_root, (40,)))
    assert [sample.inputs[key] for key in ("video", "audio", "sensors")] == [None, None, None]
    assert sample.inputs["main_task"] == "Sorting blocks at the workbench"


def test_an_unknown_control_is_an_error(media_root):
    with pytest.raises(KeyError, match="no_light"):
        controlled("no_light", samples(media_root, (40,)))
    assert CONTROLS == ("other_video", "other_audio", "text_only")
