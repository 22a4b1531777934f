"""The index of an episode: what is written, what is not done twice, and what no input may hold."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from handmade import STAMPS_NS, caption, grey_of, segment, write_video

from omni_mlflow.spine import indexing
from omni_mlflow.spine.adapter_views import as_asked
from omni_mlflow.spine.audio import read_audio
from omni_mlflow.spine.changed_files import ChangedEpisodeError
from omni_mlflow.spine.features import FEATURE_NAMES
from omni_mlflow.spine.frame_plan import CameraPass, FramePlan
from omni_mlflow.spine.indexing import IndexPlan, UnsplitEpisodeError, index_episode
from omni_mlflow.spine.rows import read_document, read_rows
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.types import CAMERAS, Scale, Span, Split, Window
from omni_mlflow.spine.video import read_frames
from tests.lost_sound import disguise_codec, lose_sound

PLAN = IndexPlan(
    scales=(Scale(frames=2, stride=1), Scale(frames=4, stride=2)),
    frame_grid=2,
    context_frames=2,
    tile=(16, 16),
    min_label_share=0.6,
)
WINDOWS = 7 + 3


@pytest.fixture
def indexed(make_episode, tmp_path):
    """Index one episode made by hand and return (index, folder of all indexes)."""

    def index(changes=None, *, plan=PLAN, split=Split.TRAIN, num_frames=8):
        folder = make_episode("kitchen", "ep1", changes, num_frames=num_frames)
        (episode,), _ = scan_data_root(folder.parents[1])
        out = tmp_path / "index"
        placed = episode.model_copy(update={"split": split})
        return index_episode(placed, data_root=folder.parents[1], out=out, plan=plan), out

    return index


def test_windows_of_every_scale_are_written_with_the_same_fields_as_returned(indexed):
    index, out = indexed()
    assert [window.id for window in index.windows] == [
        *(f"kitchen__ep1:2:{start}" for start in range(7)),
        *(f"kitchen__ep1:4:{start}" for start in (0, 2, 4)),
    ]
    assert tuple(read_rows(out / "kitchen__ep1" / "windows.jsonl", Window)) == index.windows
    row = json.loads((out / "kitchen__ep1" / "windows.jsonl").read_text().splitlines()[1])
    assert row["window"] == {"start_frame": 1, "end_frame": 2}
    assert row["anchor"] == 3
    assert row["supervision"]["action"] == "Brush block"
    assert set(row["adapter_views"]) == {"qwen3_omni_lora", "cosmos_world_model", "policy_vla_branch"}


def test_every_pointer_starts_at_the_folder_of_all_indexes(indexed):
    index, out = indexed()
    media = index.windows[0].modalities.media
    assert (out / media.proxy_video).is_file()
    assert (out / media.proxy_audio).is_file()
    frames = read_frames(out / media.proxy_video, range(media.num_proxy_frames))
    np.testing.assert_allclose(
        frames[:, 8, 8].mean(axis=-1), [grey_of(frame) for frame in range(0, 8, 2)], atol=2.5
    )
    assert np.abs(read_audio(out / media.proxy_audio, start_s=0, stop_s=0.4)).max() > 0.3
    pointer = index.windows[3].modalities.sensor_features
    with np.load(out / pointer.path) as arrays:
        assert arrays["windows"].shape == (WINDOWS, pointer.dim) == (WINDOWS, len(FEATURE_NAMES))


def test_the_frame_plan_of_an_episode_is_kept_beside_its_proxy(indexed):
    index, out = indexed()
    media = index.windows[0].modalities.media
    plan = read_document(out / media.frame_plan, FramePlan)
    assert tuple(plan.cameras) == CAMERAS
    assert {camera.frames for camera in plan.cameras.values()} == {(0, 2, 4, 6)}
    assert (plan.grid_stride, plan.num_proxy_frames) == (media.grid_stride, media.num_proxy_frames)
    assert {window.provenance["frame_plan_digest"] for window in index.windows} == {plan.digest}


def test_the_row_of_the_following_window_is_that_window_s_own_row(indexed):
    """Windows of 2 have rows 0 to 6, windows of 4 rows 7 to 9; those at frame 4 have rows 4 and 9."""
    hand = np.ones((8, 21, 3), dtype=np.float32) * np.arange(1, 9, dtype=np.float32)[:, None, None] ** 2
    index, out = indexed({"hand_mocap/left_joints_3d": hand})
    with np.load(out / index.windows[0].modalities.sensor_features.path) as arrays:
        rows, following = arrays["windows"], arrays["next_windows"]
    np.testing.assert_array_equal(following[2], rows[4])
    np.testing.assert_array_equal(following[7], rows[9])
    assert not following[[6, 8, 9]].any()  # nothing follows these in the episode
    assert index.windows[6].adapter_views["cosmos_world_model"]["target_window"] is None


def test_the_context_ends_before_the_anchor_and_the_target_starts_there(indexed):
    for window in indexed()[0].windows:
        views = window.adapter_views
        for view in (
            views["qwen3_omni_lora"],
            views["cosmos_world_model"],
            views["policy_vla_branch"]["observation"],
        ):
            context = Span.model_validate(view["context_window"])
            assert context.stop == window.anchor
            assert len(context) == min(window.anchor, PLAN.context_frames * PLAN.frame_grid)
        if target := views["cosmos_world_model"]["target_window"]:
            assert Span.model_validate(target).start == window.anchor
            assert len(Span.model_validate(target)) == len(window.span)
        assert views["policy_vla_branch"]["observation"]["state"]["frame"] == window.anchor - 1


def test_the_anchor_is_placed_in_time_by_the_device_clock(indexed):
    gap_ns = np.where(np.arange(8) < 4, 0, 300_000_000)
    stamps = np.array(STAMPS_NS) + gap_ns
    index, _ = indexed({"video/device_timestamp": np.array([str(stamp) for stamp in stamps], dtype="S14")})
    assert [window.anchor for window in index.windows[:3]] == [2, 3, 4]
    assert [window.anchor_s for window in index.windows[:3]] == pytest.approx([0.1, 0.15, 0.5])


def test_no_answer_appears_outside_supervision(indexed):
    text = caption(
        segment(
            STAMPS_NS[0],
            STAMPS_NS[7],
            ("secretaction", STAMPS_NS[0], STAMPS_NS[7]),
            subtask="secretsubtask",
            objects={str(STAMPS_NS[0]): ["secretobject"]},
            interaction={str(STAMPS_NS[0]): "secretinteraction"},
        )
    )
    for window in indexed({"caption": text})[0].windows:
        row = window.model_dump(mode="json")
        answers = row.pop("supervision")
        assert answers["action"] == "secretaction"
        assert answers["objects"] == ["secretobject"]
        assert "secret" not in json.dumps(row)


def test_a_policy_is_offered_only_targets_that_are_known(indexed):
    no_hands = np.zeros((8, 21, 3), dtype=np.float32)
    index, _ = indexed({"hand_mocap/left_joints_3d": no_hands, "hand_mocap/right_joints_3d": no_hands})
    kinds = [window.adapter_views["policy_vla_branch"]["target_kinds"] for window in index.windows]
    assert kinds[0] == ["action_class", "next_action", "contact_event", "retargeted_humanoid_action"]
    assert kinds[6] == ["action_class"]  # nothing follows the last window


def test_a_body_is_offered_where_it_is_known_before_the_anchor_and_after_it(indexed):
    body = np.ones((8, 52, 3), dtype=np.float32)
    body[3] = 0.0  # the frame before anchor 4
    body[6:] = 0.0  # all that follows anchors 6 and 7
    index, _ = indexed({"full_body_mocap/keypoints": body})
    offered = {
        window.anchor: "retargeted_humanoid_action"
        in window.adapter_views["policy_vla_branch"]["target_kinds"]
        for window in index.windows[:7]
    }
    assert offered == {2: True, 3: True, 4: False, 5: True, 6: False, 7: False, 8: False}


def test_a_hand_trajectory_starts_from_a_known_camera(indexed):
    quaternions = np.tile([1.0, 0, 0, 0], (8, 1))
    quaternions[3] = 0.0  # SLAM lost track at frame 3, the last one seen before anchor 4
    index, _ = indexed({"slam/quat_wxyz": quaternions})
    offered = {
        window.anchor: "hand_trajectory" in window.adapter_views["policy_vla_branch"]["target_kinds"]
        for window in index.windows[:7]
    }
    assert offered == {2: True, 3: True, 4: False, 5: True, 6: True, 7: False, 8: False}
    tokens = {
        window.anchor: "robot_action_token" in window.adapter_views["policy_vla_branch"]["target_kinds"]
        for window in index.windows[:7]
    }
    assert tokens == offered


def test_each_conditioning_input_points_at_the_columns_of_its_sensor(indexed):
    conditioning = indexed()[0].windows[0].adapter_views["cosmos_world_model"]["conditioning"]
    columns = [slice(*conditioning[kind]["columns"]) for kind in ("pose", "mocap", "imu", "depth")]
    assert [FEATURE_NAMES[part][0] for part in columns] == [
        "camera_share",
        "left_share",
        "imu_share",
        "depth_share",
    ]
    assert sum((FEATURE_NAMES[part] for part in columns), ()) == FEATURE_NAMES


def test_trajectories_hold_every_frame(indexed):
    index, out = indexed()
    path = index.windows[0].adapter_views["policy_vla_branch"]["target"]["path"]
    with np.load(out / path) as arrays:
        assert arrays["camera_to_world"].shape == (8, 4, 4)
        assert arrays["hands_in_camera"].shape == (2, 8, 21, 3)
        assert arrays["body_in_world"].shape == (8, 52, 3)
        assert arrays["hands_valid"].all()


def test_a_finished_episode_is_read_back_and_nothing_is_decoded_again(indexed):
    first, out = indexed()
    mosaic = out / "kitchen__ep1" / "mosaic.mp4"
    written = mosaic.stat().st_mtime_ns
    again, _ = indexed()
    assert again == first
    assert mosaic.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["mosaic.mp4", "features.npz", "windows.jsonl", "index.json"])
@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_finished_episode_with_a_damaged_file_is_made_again(indexed, name, damage):
    _, out = indexed()
    files = {path.name: path.read_bytes() for path in (out / "kitchen__ep1").iterdir()}
    path = out / "kitchen__ep1" / name
    path.unlink() if damage == "lost" else path.write_bytes(files[name][:100])
    indexed()
    assert {path.name: path.read_bytes() for path in (out / "kitchen__ep1").iterdir()} == files


def test_an_episode_that_is_overwritten_while_it_is_indexed_is_refused(make_episode, tmp_path, monkeypatch):
    """What is there in the end was compared with no other split."""
    test, train = make_episode("kitchen", "ep1"), make_episode("garage", "ep1", seed=9)
    episodes, _ = scan_data_root(test.parents[1])
    placed = next(each for each in episodes if each.session_id == "kitchen")
    write = indexing.write_soundtrack

    def overwrite_then_write(videos, out, **clock):
        for file in train.iterdir():
            (test / file.name).write_bytes(file.read_bytes())
        return write(videos, out, **clock)

    monkeypatch.setattr(indexing, "write_soundtrack", overwrite_then_write)
    with pytest.raises(ChangedEpisodeError, match=r"kitchen/ep1/\S+.*run 'select', 'split' and 'guard'"):
        index_episode(
            placed.model_copy(update={"split": Split.TEST}),
            data_root=test.parents[1],
            out=tmp_path / "index",
            plan=PLAN,
        )
    assert not list((tmp_path / "index").rglob("windows.jsonl"))


@pytest.mark.parametrize("changed", ["plan", "split", "annotation"])
def test_an_index_of_another_plan_split_or_episode_is_made_anew(indexed, changed):
    _, out = indexed()
    other_plan = IndexPlan(**{**vars(PLAN), "frame_grid": 4})
    index, _ = {
        "plan": lambda: indexed(plan=other_plan),
        "split": lambda: indexed(split=Split.VAL),
        "annotation": lambda: indexed({"imu/accel_xyz": None}),
    }[changed]()
    assert tuple(read_rows(out / "kitchen__ep1" / "windows.jsonl", Window)) == index.windows
    assert index.windows[0].split is (Split.VAL if changed == "split" else Split.TRAIN)
    assert index.windows[0].modalities.media.grid_stride == (4 if changed == "plan" else 2)


def test_an_index_that_was_interrupted_is_finished_with_the_same_bytes(indexed):
    _, out = indexed()
    files = {path.name: path.read_bytes() for path in (out / "kitchen__ep1").iterdir()}
    (out / "kitchen__ep1" / "windows.jsonl").unlink()  # it is written last
    (out / "kitchen__ep1" / "features.npz").write_bytes(b"half")
    indexed()
    assert {path.name: path.read_bytes() for path in (out / "kitchen__ep1").iterdir()} == files


def test_an_episode_shorter_than_every_window_is_skipped_with_its_length(indexed):
    plan = IndexPlan(**{**vars(PLAN), "scales": (Scale(frames=9, stride=1),)})
    index, out = indexed(plan=plan)
    assert index.windows == ()
    assert index.skips[0].reason == "8 frames, the shortest window has 9"
    assert index.counts["windows"] == 0
    assert not (out / "kitchen__ep1").exists()


def test_an_episode_in_no_split_is_refused(indexed):
    with pytest.raises(UnsplitEpisodeError, match="kitchen__ep1 is in no split; run 'split' before 'index'"):
        indexed(split=None)


def test_counts_add_up(indexed):
    body = np.full((8, 52, 3), np.nan, dtype=np.float32)
    index, _ = indexed({"full_body_mocap/keypoints": body})
    assert index.counts == {
        "windows": WINDOWS,
        "with_action": WINDOWS,
        "with_contact": 0,
        "with_next_action": 5 + 1,
        "proxy_frames": 4,
        "repeated_frames": 0,
        "silent_ms": 0,
    }


def test_a_window_past_the_last_picture_of_a_camera_says_so(make_episode, tmp_path):
    folder = make_episode(num_frames=20)
    write_video(folder / "fisheye_cam3.mp4", 18)
    (episode,), _ = scan_data_root(folder.parents[1])
    placed = episode.model_copy(update={"split": Split.TEST})
    plan = replace(PLAN, scales=(Scale(frames=2, stride=2),), frame_grid=1)
    index = index_episode(placed, data_root=folder.parents[1], out=tmp_path / "index", plan=plan)
    ended = {window.span.start: window.provenance["cameras_ended"] for window in index.windows}
    assert ended == {**{start: {} for start in range(0, 18, 2)}, 18: {"fisheye_cam3": 18}}
    assert index.counts["repeated_frames"] == 2


def test_the_sound_is_that_of_the_video_with_most_of_it_and_its_silence_is_counted(make_episode, tmp_path):
    folder = make_episode(num_frames=40)
    write_video(folder / "fisheye_cam0.mp4", 41, audio_s=0.5)
    write_video(folder / "stereo_left.mp4", 41, audio_s=1.5)
    index = indexed_alone(folder, tmp_path)
    sounds = {str(window.provenance["sound"]) for window in index.windows}
    assert len(sounds) == 1
    sound = index.windows[0].provenance["sound"]
    assert (sound["file"], sound["overlap_s"]) == ("stereo_left.mp4", 0)
    assert sound["silence_s"] == pytest.approx(0.5, abs=0.03)
    assert index.counts["silent_ms"] == round(1000 * sound["silence_s"])


def test_sound_that_cannot_be_decoded_is_taken_from_another_video_and_told(make_episode, tmp_path):
    folder = make_episode(num_frames=40)
    for camera in ("fisheye_cam0", "fisheye_cam1", "fisheye_cam2"):
        write_video(folder / f"{camera}.mp4", 41, audio_s=2.0)
    lose_sound(folder / "fisheye_cam0.mp4", lambda start_s: True, spoilt=True)
    disguise_codec(folder / "fisheye_cam1.mp4")
    index = indexed_alone(folder, tmp_path)
    told = index.windows[0].provenance
    assert told["sound"]["file"] == "fisheye_cam2.mp4"
    assert told["sound_refused"]["fisheye_cam0"].startswith("its audio cannot be decoded: ")
    assert told["sound_refused"]["fisheye_cam1"] == (
        "FFmpeg does not know the codec of its audio; encode its sound anew, as AAC for example"
    )


def test_an_episode_of_which_no_sound_can_be_decoded_is_kept_without(make_episode, tmp_path):
    folder = make_episode(num_frames=40)
    lose_sound(folder / "fisheye_cam0.mp4", lambda start_s: True, spoilt=True)
    (episode,), skips = scan_data_root(folder.parents[1])
    assert skips == []
    assert episode.missing_modalities["audio"].startswith("fisheye_cam0.mp4: its audio cannot be decoded: ")
    index = indexed_alone(folder, tmp_path)
    assert index.windows[0].modalities.media.proxy_audio is None
    assert index.windows[0].provenance["sound"] is None
    assert list(index.windows[0].provenance["sound_refused"]) == ["fisheye_cam0"]


def indexed_alone(folder, tmp_path):
    (episode,), _ = scan_data_root(folder.parents[1])
    placed = episode.model_copy(update={"split": Split.TEST})
    return index_episode(placed, data_root=folder.parents[1], out=tmp_path / "index", plan=PLAN)


def test_the_task_and_its_result_cross_processes(indexed, make_episode, tmp_path):
    index, _ = indexed()
    assert pickle.loads(pickle.dumps(index)) == index
    task = partial(index_episode, data_root=tmp_path, out=tmp_path, plan=PLAN)
    assert pickle.loads(pickle.dumps(task)).keywords["plan"] == PLAN


@pytest.mark.parametrize("file", ["fisheye_cam1.mp4", "annotation.hdf5"])
def test_an_episode_that_broke_since_the_selection_is_a_skip_that_names_the_file(
    make_episode, tmp_path, file
):
    folder = make_episode()
    (episode,), _ = scan_data_root(folder.parents[1])
    (folder / file).write_bytes(b"broken")
    placed = episode.model_copy(update={"split": Split.TEST})
    index = index_episode(placed, data_root=folder.parents[1], out=tmp_path / "index", plan=PLAN)
    assert index.windows == ()
    assert [(skip.subject, skip.stage) for skip in index.skips] == [("kitchen__ep1", "index")]
    reason = index.skips[0].reason
    assert reason.startswith(f"kitchen/ep1/{file}: it cannot be"), "and names no folder of this machine"
    assert not list((tmp_path / "index").rglob("windows.jsonl"))


def test_three_scales_cost_no_more_decoding_than_one(indexed, monkeypatch):
    """81 frames: 7 windows of 20 frames, 3 of 40 and 1 of 80, out of the same decoded pictures."""
    decoded = []
    check = CameraPass._check
    monkeypatch.setattr(CameraPass, "_check", lambda *args: decoded.append(args[1]) or check(*args))
    made = {}
    for scales in (((20, 10),), ((20, 10), (40, 20), (80, 40))):
        plan = replace(PLAN, scales=tuple(Scale(frames=frames, stride=stride) for frames, stride in scales))
        decoded.clear()
        index, out = indexed(plan=plan, num_frames=81)
        made[len(scales)] = (len(decoded), (out / "kitchen__ep1/mosaic.mp4").read_bytes(), index)
    assert made[1][0] == made[3][0] == 6 * 81
    assert made[1][1] == made[3][1]
    windows = made[3][2].windows
    assert windows[:7] == tuple(
        each.model_copy(update={"provenance": windows[0].provenance}) for each in made[1][2].windows
    )
    assert [(window.id, window.anchor) for window in windows[7:]] == [
        ("kitchen__ep1:40:0", 40),
        ("kitchen__ep1:40:20", 60),
        ("kitchen__ep1:40:40", 80),
        ("kitchen__ep1:80:0", 80),
    ]
    assert [(window.scale.frames, window.scale.stride) for window in windows[7:]] == [(40, 20)] * 3 + [
        (80, 40)
    ]


def test_windows_of_each_scale_have_features_and_targets_of_their_own_length(indexed):
    """The camera walks 1 m forward every 20 frames."""
    frames = 81
    position = np.zeros((frames, 3))
    position[:, 2] = -np.arange(frames) / 20  # SLAM stores world to body
    plan = replace(PLAN, scales=(Scale(frames=20, stride=20), Scale(frames=40, stride=40)))
    index, out = indexed({"slam/trans_xyz": position}, plan=plan, num_frames=frames)
    with np.load(out / index.windows[0].modalities.sensor_features.path) as arrays:
        forward = arrays["windows"][:, FEATURE_NAMES.index("camera_forward_m")]
    rows = {window.id: forward[window.modalities.sensor_features.index] for window in index.windows}
    assert rows["kitchen__ep1:20:0"] == pytest.approx(19 / 20)
    assert rows["kitchen__ep1:40:0"] == pytest.approx(39 / 20)
    for window in index.windows:
        target = window.adapter_views["cosmos_world_model"]["target_window"]
        assert target is None or Span.model_validate(target) == Span(
            start=window.anchor, stop=window.anchor + window.scale.frames
        )


def test_a_span_that_two_scales_hold_is_one_window(indexed):
    plan = replace(PLAN, scales=(Scale(frames=4, stride=2), Scale(frames=4, stride=1)))
    ids = [window.id for window in indexed(plan=plan)[0].windows]
    assert ids == [f"kitchen__ep1:4:{start}" for start in (0, 2, 4, 1, 3)]


def test_an_index_of_a_finer_grid_and_longer_context_shows_a_backbone_what_it_asks_for(indexed):
    asked = indexed()[0].windows
    fine = replace(PLAN, frame_grid=1, context_frames=6)
    for own, shared in zip(asked, indexed(plan=fine)[0].windows, strict=True):
        assert (shared.adapter_views == own.adapter_views) is (own.anchor < 4)  # 6 frames seen instead of 4
        shown = as_asked(shared, frame_grid=PLAN.frame_grid, context_frames=PLAN.context_frames)
        assert shown.adapter_views == own.adapter_views
        assert source_frames(shown) == source_frames(own)


def source_frames(window: Window) -> list[int]:
    """The source frames of a window's context that its backbone sees."""
    media = window.modalities.media
    context = Span.model_validate(window.adapter_views["qwen3_omni_lora"]["context_window"])
    return [frame * media.grid_stride for frame in media.proxy_frames(context)]
