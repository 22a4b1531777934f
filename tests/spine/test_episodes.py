"""What is read from an annotation, with everything that real ones lack or get wrong."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
from handmade import FIRST_NS, STAMPS_NS, annotation, caption, segment

from omni_mlflow.spine.episodes import CONTACT_GROUPS, UnreadableEpisodeError, nearest, open_episode
from omni_mlflow.spine.lost_frames import lost_frames
from omni_mlflow.spine.poses import moved
from omni_mlflow.spine.types import LostFrames

HALF = np.sqrt(0.5)


def test_the_left_wrist_of_the_real_sample_meets_the_body_of_its_wearer(real_sample):
    with open_episode(real_sample) as episode:
        poses, posed = episode.camera_to_world()
        hands, _ = episode.hands()
        body, _ = episode.body()
    wrist = moved(poses, hands[0, :, :1])[:, 0]
    distance_mm = 1000 * np.linalg.norm(wrist - body[:, 20], axis=1)
    assert posed.all()
    assert distance_mm.max() < 10
    assert 2 < distance_mm.mean() < 9


def test_the_real_sample_stands_upright_without_a_right_hand_and_with_feet_on_the_ground(real_sample):
    with open_episode(real_sample) as episode:
        body, valid = episode.body()
        _, seen = episode.hands()
        touching, known = episode.contacts()
        assert (body[:, 15, 2] - body[:, 7, 2] > 1.3).all()  # z is up: the head is above the ankles
        assert valid.all()
        assert known.all()
        assert seen.sum(axis=1).tolist() == [8, 0]
        assert np.flatnonzero(touching.any(axis=0)).tolist() == list(CONTACT_GROUPS["feet"])
        assert episode.missing() == {"hand_mocap_right": "no frame is valid"}


def test_the_real_sample_says_what_is_done_when_and_by_which_device(real_sample):
    with open_episode(real_sample) as episode:
        captions = episode.captions()
        assert captions.action[:7] == ("Pick up kettle",) * 7
        assert captions.objects[0] == ("kettle", "coffee dripper", "scale", "bottle")
        assert episode.main_task == "Making pour-over coffee"
        assert episode.device_id == "7211577584"
        assert episode.device_clock_ns == (72857807732824, 72858154785574)
        assert episode.fps == pytest.approx(20.17, abs=0.01)
        assert episode.imu().keyframes.tolist() == [0, 9, 18, 28, 39, 48, 58, 69]
        assert episode.depth_rows(2, 4).metres.shape == (2, 256, 256)
        assert not episode.synthetic


def test_a_camera_pose_is_the_inverse_of_body_after_world_then_camera_after_body(write_annotation):
    """The rig turns left by 90 degrees about z and stands at (1, 2, 3); the camera is 0.1 m ahead of it."""
    world_to_body = np.array([HALF, 0, 0, -HALF])
    camera_from_body = np.eye(4)
    camera_from_body[0, 3] = -0.1
    folder = write_annotation(
        {
            "slam/quat_wxyz": np.tile(world_to_body, (8, 1)),
            "slam/trans_xyz": np.tile([-2.0, 1.0, -3.0], (8, 1)),  # -R (1, 2, 3)
            "calibration/cam01/T_c0_b": camera_from_body,
        }
    )
    with open_episode(folder) as episode:
        poses, valid = episode.camera_to_world()
    assert valid.all()
    np.testing.assert_allclose(poses[0, :3, 3], [1.0, 2.1, 3.0], atol=1e-12)
    np.testing.assert_allclose(poses[0, :3, 0], [0.0, 1.0, 0.0], atol=1e-12)


def test_bad_poses_are_masked_and_the_others_are_kept(write_annotation):
    quaternions = np.tile([1.0, 0, 0, 0], (8, 1))
    quaternions[2], quaternions[3] = 0.0, np.nan
    translations = np.zeros((8, 3))
    translations[5, 1] = np.inf
    folder = write_annotation({"slam/quat_wxyz": quaternions, "slam/trans_xyz": translations})
    with open_episode(folder) as episode:
        poses, valid = episode.camera_to_world()
        assert np.flatnonzero(~valid).tolist() == [2, 3, 5]
        assert np.isnan(poses[~valid]).all()
        assert np.isfinite(poses[valid]).all()
        assert episode.coverage()["camera_pose"] == 5 / 8


def test_hands_and_bodies_of_zeros_or_with_a_nan_are_invalid_each_on_its_own(write_annotation):
    left = np.ones((8, 21, 3), dtype=np.float32)
    right, body = left.copy(), np.ones((8, 52, 3), dtype=np.float32)
    left[1] = 0
    right[2, 5, 0] = np.nan
    body[3:5] = np.nan
    changes = {
        "hand_mocap/left_joints_3d": left,
        "hand_mocap/right_joints_3d": right,
        "full_body_mocap/keypoints": body,
    }
    with open_episode(write_annotation(changes)) as episode:
        hands, seen = episode.hands()
        assert np.flatnonzero(~seen[0]).tolist() == [1]
        assert np.flatnonzero(~seen[1]).tolist() == [2]
        assert np.isnan(hands[0, 1]).all()
        assert np.flatnonzero(~episode.body()[1]).tolist() == [3, 4]


def test_a_wrist_in_contact_counts_above_one_half_and_only_where_the_body_is_valid(write_annotation):
    contacts = np.full((8, 21), 1e-3, dtype=np.float32)
    contacts[:, 6] = contacts[:, 18] = 1.0  # an ankle and an elbow
    contacts[2, 19] = contacts[5, 20] = contacts[6, 20] = 0.9
    contacts[7, 20] = np.nan
    body = np.ones((8, 52, 3), dtype=np.float32)
    body[6] = np.nan
    folder = write_annotation({"full_body_mocap/contacts": contacts, "full_body_mocap/keypoints": body})
    with open_episode(folder) as episode:
        touching, known = episode.hand_contact()
        assert np.flatnonzero(touching).tolist() == [2, 5]
        assert np.flatnonzero(~known).tolist() == [6, 7]
        assert episode.contact_of("hands", threshold=0.95)[0].sum() == 0


def test_an_episode_without_slam_and_body_keeps_its_labels_through_the_video_clock(write_annotation):
    changes = dict.fromkeys(name for name in annotation() if name.startswith(("slam/", "full_body_mocap/")))
    with open_episode(write_annotation(changes)) as episode:
        assert episode.frame_names[0] == f"{FIRST_NS}.jpg"
        assert episode.captions().action == ("Brush block",) * 8
        assert not episode.camera_to_world()[1].any()
        assert not episode.hand_contact()[1].any()
        assert set(episode.missing()) == {"camera_pose", "body_mocap", "contact"}
        assert "slam/quat_wxyz" in episode.missing()["camera_pose"]


def test_without_any_clock_frames_are_counted_and_the_rate_is_nominal(write_annotation):
    changes = dict.fromkeys(["slam/frame_names", "video/device_timestamp", "imu/keyframe_indices"])
    with open_episode(write_annotation(changes)) as episode:
        assert episode.frame_names[:2] == ("frame_000000.jpg", "frame_000001.jpg")
        assert episode.device_clock_ns is None
        assert episode.fps == 20.0
        assert episode.imu() is None


def test_timestamps_may_be_numbers_and_come_from_frame_names_where_the_video_group_is_absent(
    write_annotation,
):
    with open_episode(write_annotation({"video/device_timestamp": np.array(STAMPS_NS)})) as episode:
        assert episode.device_timestamps_ns.tolist() == STAMPS_NS
    with open_episode(write_annotation({"video/device_timestamp": None})) as episode:
        assert episode.device_timestamps_ns.tolist() == STAMPS_NS
        assert episode.fps == 20.0


@pytest.mark.parametrize(
    "names",
    [np.zeros(8, dtype="S18"), np.full(8, np.nan), np.array([f"{STAMPS_NS[0]}.jpg".encode(), *[b""] * 7])],
)
def test_frames_that_slam_left_without_a_name_are_named_by_the_video_clock(write_annotation, names):
    with open_episode(write_annotation({"slam/frame_names": names})) as episode:
        assert episode.frame_names == tuple(f"{stamp}.jpg" for stamp in STAMPS_NS)
        assert episode.captions().action == ("Brush block",) * 8


@pytest.mark.parametrize("values", [np.array([b"one", b"two"]), np.arange(3.0)])
def test_several_values_are_no_text(write_annotation, values):
    as_objects = values if values.dtype.kind == "f" else values.astype(h5py.string_dtype())
    for stored in (values, as_objects):
        with (
            open_episode(write_annotation({"metadata/device_id": stored})) as episode,
            pytest.raises(UnreadableEpisodeError, match=f"device_id holds {len(values)} values where one"),
        ):
            _ = episode.device_id


def test_texts_of_any_storage_are_read_alike(write_annotation):
    names = [f"{stamp}.jpg".encode() for stamp in STAMPS_NS]
    of_any_length = np.array(names, dtype=h5py.string_dtype())
    with open_episode(write_annotation({"slam/frame_names": of_any_length})) as episode:
        assert episode.annotation.array("slam/frame_names").tolist() == names
        assert episode.annotation.array("slam/frame_names").dtype == "S18"


def test_more_frames_than_a_recording_has_are_refused(tmp_path):
    with h5py.File(tmp_path / "annotation.hdf5", "w") as file:
        file.create_dataset("video/frame_number", (10**12,), "i8", chunks=(1024,))
    with pytest.raises(UnreadableEpisodeError, match=r"declares 1,000,000,000,000 frames.* at most 72,000"):
        open_episode(tmp_path).__enter__()


def test_a_file_named_as_the_caption_that_is_too_large_is_refused(write_annotation):
    folder = write_annotation({"caption": "caption.json"})
    with (folder / "caption.json").open("wb") as file:
        file.truncate(2**29)  # sparse
    with (
        open_episode(folder) as episode,
        pytest.raises(UnreadableEpisodeError, match=r"caption\.json: .* bytes"),
    ):
        episode.captions()


def test_the_shortest_array_sets_the_number_of_frames(write_annotation):
    changes = {
        "slam/quat_wxyz": np.tile([1.0, 0, 0, 0], (6, 1)),
        "caption": '{"config": {"total_frames": 9}}',
    }
    with open_episode(write_annotation(changes)) as episode:
        assert episode.num_frames == 6
        assert len(episode.frame_names) == len(episode.body()[1]) == len(episode.device_timestamps_ns) == 6


def told_in_halves() -> str:
    """Frames 0-3 brush a block, frames 4-7 lift a cup; SLAM's time of every frame names them."""
    first, second = (STAMPS_NS[0], STAMPS_NS[3]), (STAMPS_NS[4], STAMPS_NS[7])
    return caption(
        segment(*first, ("Brush", *first), subtask="Clean", objects={str(STAMPS_NS[0]): ["block"]}),
        segment(*second, ("Lift", *second), subtask="Tidy", objects={str(STAMPS_NS[6]): ["cup"]}),
    )


@pytest.mark.parametrize("rule", ["new", "old"])
@pytest.mark.parametrize(
    "cut",
    [
        ("hand_mocap/left_joints_3d",),
        ("slam/frame_names",),
        ("video/device_timestamp",),
        ("slam/frame_names", "video/device_timestamp"),
    ],
)
def test_what_a_caption_says_after_the_end_of_a_short_array_falls_to_no_frame_before_it(
    write_annotation, cut, rule
):
    changes = {name: annotation()[name][:4] for name in cut}
    with open_episode(write_annotation({**changes, "caption": told_in_halves()})) as episode:
        found = episode.captions(rule)
        assert found.action == ("Brush",) * 4
        assert found.subtask == ("Clean",) * 4
        assert found.objects == (("block",),) * 4
        assert [(each.start, each.end) for each in found.segments] == [(0, 3)]
        assert found.dropped_segments == 1


def test_frames_counted_from_one_are_counted_over_all_that_were_recorded(write_annotation):
    changes = {
        "slam/frame_names": None,
        "video/device_timestamp": None,
        "imu/keyframe_indices": None,
        "depth/depth": annotation()["depth/depth"][:6],
        "caption": caption(segment(1, 8, ("Brush", 1, 6), ("Lift", 8, "frame_0000009"))),
    }
    with open_episode(write_annotation(changes)) as episode:
        assert episode.captions().action == ("Brush",) * 6


def test_a_damaged_stamp_after_the_end_of_a_short_array_harms_no_frame_before_it(write_annotation):
    stamps = annotation()["video/device_timestamp"]
    stamps[7] = b"?"
    changes = {
        "slam/frame_names": None,
        "video/device_timestamp": stamps,
        "depth/depth": annotation()["depth/depth"][:4],
        "caption": told_in_halves(),
    }
    with open_episode(write_annotation(changes)) as episode:
        assert episode.frame_names == tuple(f"{stamp}.jpg" for stamp in STAMPS_NS[:4])
        assert episode.captions().action == ("Brush",) * 4


def test_lost_frames_are_counted_with_the_array_that_is_short(write_annotation):
    with open_episode(write_annotation({"caption": told_in_halves()})) as whole:
        assert lost_frames(whole) is None
    changes = {
        "hand_mocap/left_joints_3d": annotation()["hand_mocap/left_joints_3d"][:4],
        "depth/depth": annotation()["depth/depth"][:7],
    }
    with open_episode(write_annotation({**changes, "caption": told_in_halves()})) as episode:
        short = {"hand_mocap/left_joints_3d": 4, "depth/depth": 7}
        assert lost_frames(episode) == LostFrames(num_frames=4, num_labelled=4, short_arrays=short)


def test_an_array_that_declares_more_rows_than_any_recording_has_costs_no_memory(write_annotation):
    folder = write_annotation({"caption": told_in_halves()})
    with h5py.File(folder / "annotation.hdf5", "r+") as file:
        file.create_dataset("video/frame_number", (10**12,), "i8", chunks=(1024,))
    with open_episode(folder) as episode:
        assert episode.captions().action == ("Brush",) * 4 + ("Lift",) * 4


def test_body_arrays_of_older_exports_have_an_axis_in_front(write_annotation):
    changes = {
        "full_body_mocap/keypoints": np.ones((1, 8, 52, 3), dtype=np.float32),
        "full_body_mocap/contacts": np.ones((1, 8, 21), dtype=np.float32),
    }
    with open_episode(write_annotation(changes)) as episode:
        assert episode.num_frames == 8
        assert episode.body()[1].all()
        assert episode.hand_contact()[0].all()


@pytest.mark.parametrize("kind", ["other name", "array of one", "opaque bytes", "a file beside it"])
def test_a_caption_is_found_in_every_container_it_may_come_in(write_annotation, kind):
    text = caption(segment(STAMPS_NS[0], STAMPS_NS[7], ("Lift", STAMPS_NS[0], STAMPS_NS[7])))
    stored = {
        "other name": {"captions": text},
        "array of one": {"caption": np.array([text.encode()])},
        "opaque bytes": {"caption": np.void(text.encode())},
        "a file beside it": {"caption": "caption.json"},
    }[kind]
    folder = write_annotation({"caption": None, **stored})
    (folder / "caption.json").write_text(text)
    with open_episode(folder) as episode:
        assert episode.captions().action == ("Lift",) * 8


def test_a_caption_never_names_a_file_outside_its_episode(write_annotation):
    folder = write_annotation({"caption": "../caption.json"})
    (folder.parent / "caption.json").write_text(caption())
    with open_episode(folder) as episode:
        assert episode.captions() is None
        assert episode.missing()["action"] == "no frame is labelled"


@pytest.mark.parametrize("group", ["depth", "imu", "hand_mocap", "calibration"])
def test_a_missing_group_is_named_and_the_rest_is_read(write_annotation, group):
    folder = write_annotation()
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        del file[group]
    with open_episode(folder) as episode:
        modalities = {
            "depth": {"depth"},
            "imu": {"imu"},
            "hand_mocap": {"hand_mocap_left", "hand_mocap_right"},
            "calibration": {"camera_pose"},
        }
        assert set(episode.missing()) == modalities[group]
        assert all(group in reason for reason in episode.missing().values())
        assert episode.captions().action[0] == "Brush block"


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_this_process_has_open_in_another_way_is_not_called_damaged(write_annotation, mode):
    folder = write_annotation()
    told = "this process has it open already.*; close it there first"
    with (
        h5py.File(folder / "annotation.hdf5", mode, locking=True),
        pytest.raises(UnreadableEpisodeError, match=told),
        open_episode(folder),
    ):
        pass
    with open_episode(folder) as episode:
        assert episode.num_frames == 8


def test_imu_samples_are_found_by_time_where_the_key_frames_are_too_few(write_annotation):
    with open_episode(write_annotation({"imu/keyframe_indices": np.arange(3)})) as episode:
        assert episode.imu().keyframes.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]


def test_frames_that_the_imu_does_not_reach_are_not_covered(write_annotation):
    start = FIRST_NS + 100_000_000  # the IMU starts with frame 2
    changes = {"imu/device_timestamp_ns": np.arange(71) * 5e6 + start, "imu/keyframe_indices": None}
    with open_episode(write_annotation(changes)) as episode:
        assert episode.imu().covered.tolist() == [False, False, *[True] * 6]


def test_depth_is_valid_above_zero_where_confidence_reaches_a_fifth(write_annotation):
    metres = np.full((8, 1, 4), 2.0, dtype=np.float32)
    metres[:, 0, 0], metres[:, 0, 1] = 0.0, np.inf
    confidence = np.array([200, 200, 50, 51], dtype=np.uint8) * np.ones((8, 1, 1), dtype=np.uint8)
    changes = {"depth/depth": metres, "depth/confidence": confidence}
    with open_episode(write_annotation(changes)) as episode:
        rows = episode.depth_rows(6, 99)
        assert rows.metres.shape == (2, 1, 4)
        assert rows.valid[0, 0].tolist() == [False, False, False, True]


def test_the_ground_is_a_body_height_below_the_origin_unless_it_is_stored(write_annotation):
    with open_episode(write_annotation({"metadata/body_height": 1.8})) as episode:
        assert episode.ground_height == -1.8
    with open_episode(write_annotation({"floor_z": -1.5})) as episode:
        assert episode.ground_height == -1.5
    with open_episode(write_annotation({"metadata/body_height": None})) as episode:
        assert episode.ground_height == -1.75


def test_the_nearest_sample_is_the_earlier_one_on_a_tie():
    found = nearest(np.array([0, 10, 20]), np.array([-5, 4, 5, 6, 15, 99]))
    assert found.tolist() == [0, 0, 0, 1, 1, 2]
    assert nearest(np.array([7]), np.array([0, 9])).tolist() == [0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"slam/quat_wxyz": np.ones((8, 3))},
        {"full_body_mocap/keypoints": np.ones((2, 8, 52, 3))},
        {"calibration/cam01/T_c0_b": np.eye(3)},
        {"imu/accel_xyz": np.ones(71)},
    ],
)
def test_an_array_of_another_shape_is_named_with_its_shape(write_annotation, changes):
    (name,) = changes
    with pytest.raises(UnreadableEpisodeError, match=f"{name} has the unknown shape") as caught:  # noqa: SIM117
        with open_episode(write_annotation(changes)) as episode:
            episode.coverage()
    assert str(changes[name].shape) in str(caught.value)


def test_an_unknown_calibration_leaves_no_camera_pose(write_annotation):
    with open_episode(write_annotation({"calibration/cam01/T_c0_b": np.full((4, 4), np.nan)})) as episode:
        assert episode.missing() == {"camera_pose": "no frame is valid"}


def test_a_frame_lies_where_the_device_clock_says_also_after_dropped_frames(write_annotation):
    stamps = [*STAMPS_NS[:4], *(stamp + 1_000_000_000 for stamp in STAMPS_NS[4:])]
    clock = {
        "video/device_timestamp": np.array([str(stamp) for stamp in stamps], dtype="S14"),
        "slam/frame_names": None,
    }
    with open_episode(write_annotation(clock)) as episode:
        assert [episode.seconds_at(frame) for frame in (0, 3, 4, 7)] == pytest.approx([0, 0.15, 1.2, 1.35])
        assert episode.fps == pytest.approx(7 / 1.35)
        assert episode.seconds_at(8) == pytest.approx(1.35 + 1.35 / 7)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_file_cut_short_names_itself_the_reason_and_what_to_do(write_annotation, kept):
    file = write_annotation() / "annotation.hdf5"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UnreadableEpisodeError, match=r"annotation\.hdf5: .* download it again") as caught:
        open_episode(file.parent).__enter__()
    again = pickle.loads(pickle.dumps(caught.value))  # it crosses processes
    assert str(again) == str(caught.value)


def test_a_folder_without_an_annotation_or_without_frames_is_unreadable(tmp_path):
    with pytest.raises(UnreadableEpisodeError, match="there is no such file"):
        open_episode(tmp_path).__enter__()
    with h5py.File(tmp_path / "annotation.hdf5", "w") as file:
        file["caption"] = "{}"
    with pytest.raises(UnreadableEpisodeError, match="no array with a row per frame"):
        open_episode(tmp_path).__enter__()
