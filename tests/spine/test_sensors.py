"""What of the hands, the body, the clock and the inertial unit is believed, and what is masked."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from handmade import FIRST_NS, STAMPS_NS, annotation

from omni_mlflow.spine.annotation import UnreadableEpisodeError
from omni_mlflow.spine.episodes import CONTACT_GROUPS, open_episode
from omni_mlflow.spine.features import FEATURE_NAMES, window_features
from omni_mlflow.spine.layout import DATASETS
from omni_mlflow.spine.types import Span

HAND_ARRAYS = [
    name.removeprefix("hand_mocap/left_") for name in DATASETS if name.startswith("hand_mocap/left_")
]


@pytest.mark.parametrize("array", HAND_ARRAYS)
def test_a_hand_out_of_sight_is_masked_in_all_five_of_its_arrays(write_annotation, array):
    name = f"hand_mocap/left_{array}"
    values = np.ones((8, *DATASETS[name].shape[1:]), dtype=np.float32)
    joints = np.ones((8, 21, 3), dtype=np.float32)
    joints[2] = values[2] = 0
    values[4].flat[0] = np.inf
    with open_episode(write_annotation({"hand_mocap/left_joints_3d": joints, name: values})) as episode:
        rows, valid = episode.mocap(name)
    assert np.flatnonzero(~valid).tolist() == [2, 4]
    assert np.isnan(rows[[2, 4]]).all()
    assert (rows[valid] == 1).all()


def test_a_right_hand_of_the_real_sample_is_masked_and_the_left_wrist_is_mano_s(real_sample):
    with open_episode(real_sample) as episode:
        for array in HAND_ARRAYS:
            assert not episode.mocap(f"hand_mocap/right_{array}")[1].any()
            assert episode.mocap(f"hand_mocap/left_{array}")[1].all()
        wrist = episode.hands()[0][0, :, 0]
        translation = episode.mocap("hand_mocap/left_translation")[0]
    np.testing.assert_allclose(wrist - translation, np.tile([-0.0957, 0.0064, 0.0062], (8, 1)), atol=1e-3)


def test_the_pelvis_of_the_real_sample_is_joint_0_to_the_bit_and_row_0_is_row_1(real_sample):
    with open_episode(real_sample) as episode:
        body, _ = episode.body()
        root, valid = episode.mocap("full_body_mocap/Ts_world_root")
    assert valid.all()
    np.testing.assert_array_equal(root[:, 4:], body[:, 0])
    np.testing.assert_array_equal(body[0], body[1])
    np.testing.assert_allclose(np.linalg.norm(root[:, :4], axis=1), 1, atol=1e-5)


def test_gravity_of_the_real_sample_points_up_in_the_world(real_sample):
    """An accelerometer at rest feels the floor push upwards: about (0, 0, 9.8) in the world."""
    with open_episode(real_sample) as episode:
        poses, _ = episode.body_to_world()
        accel = poses[:, :3, :3] @ episode.imu().accel[episode.imu().keyframes][:, :, None]
    assert accel[:, :, 0].mean(axis=0) == pytest.approx([0.34, 0.43, 9.86], abs=0.4)


def test_body_arrays_are_masked_where_there_is_no_body(write_annotation):
    body = np.ones((8, 52, 3), dtype=np.float32)
    body[3] = np.nan
    quats = np.ones((8, 21, 4), dtype=np.float32)
    changes = {"full_body_mocap/keypoints": body, "full_body_mocap/body_quats": quats}
    with open_episode(write_annotation(changes)) as episode:
        assert np.flatnonzero(~episode.mocap("full_body_mocap/body_quats")[1]).tolist() == [3]


@pytest.mark.parametrize("stored", ["absent", "empty", "a group"])
@pytest.mark.parametrize("name", ["hand_mocap/left_translation", "full_body_mocap/body_quats"])
def test_a_mocap_array_that_is_not_there_is_invalid_at_every_frame(write_annotation, name, stored):
    shape = DATASETS[name].shape[1:]
    folder = write_annotation({name: np.zeros((0, *shape), dtype="f4") if stored == "empty" else None})
    if stored == "a group":
        with h5py.File(folder / "annotation.hdf5", "a") as file:
            file.create_group(name)
    with open_episode(folder) as episode:
        rows, valid = episode.mocap(name)
    assert rows.shape == (8, *shape)
    assert np.isnan(rows).all()
    assert valid.tolist() == [False] * 8


def test_a_mocap_array_nobody_recorded_is_refused_by_name(write_annotation):
    with open_episode(write_annotation()) as episode:
        for name in ("hand_mocap/left_wings", "imu/accel_xyz"):
            with pytest.raises(KeyError, match=f"'{name}' is no array of a hand or of the body"):
                episode.mocap(name)


def test_every_contact_belongs_to_one_group(write_annotation):
    assert sorted(column for group in CONTACT_GROUPS.values() for column in group) == list(range(21))
    contacts = np.zeros((8, 21), dtype=np.float32)
    contacts[1, 19], contacts[2, 9], contacts[3, 17], contacts[4, 0] = 1, 1, 1, 0.5
    with open_episode(write_annotation({"full_body_mocap/contacts": contacts})) as episode:
        assert np.flatnonzero(episode.contact_of("hands")[0]).tolist() == [1]
        assert np.flatnonzero(episode.contact_of("feet")[0]).tolist() == [2]
        assert np.flatnonzero(episode.contact_of("other")[0]).tolist() == [3]  # one half is not above it


def test_the_published_contact_fires_on_noise_and_is_no_where_there_is_no_body(write_annotation):
    contacts = np.full((8, 21), -1e-4, dtype=np.float32)
    contacts[:, 5] = 1e-5
    contacts[3], contacts[4] = np.nan, 0
    with open_episode(write_annotation({"full_body_mocap/contacts": contacts})) as episode:
        assert episode.published_contact().tolist() == [True] * 3 + [False] * 2 + [True] * 3
        assert not episode.hand_contact()[0].any()
    with open_episode(write_annotation({"full_body_mocap/contacts": None})) as episode:
        assert not episode.published_contact().any()


def test_the_published_contact_of_the_real_sample_is_yes_throughout(real_sample):
    with open_episode(real_sample) as episode:
        assert episode.published_contact().all()
        assert not episode.hand_contact()[0].any()
        assert episode.contact_of("feet")[0].all()


def test_where_no_array_holds_the_time_of_frames_the_inertial_samples_tell_it(write_annotation):
    changes = dict.fromkeys(name for name in annotation() if name.startswith(("slam/", "video/")))
    with open_episode(write_annotation(changes)) as episode:
        assert episode.device_timestamps_ns.tolist() == STAMPS_NS
        assert episode.captions().action == ("Brush block",) * 8
    keyframes = np.array([0, 10, 20, 30, 40, 50, 60, 999])
    with open_episode(write_annotation({**changes, "imu/keyframe_indices": keyframes})) as episode:
        assert episode.device_timestamps_ns is None
    with open_episode(write_annotation({**changes, "imu/keyframe_indices": np.zeros(8)})) as episode:
        assert episode.device_timestamps_ns is None  # not eight frames at one moment


def test_names_of_frames_are_used_also_where_the_poses_are_gone(write_annotation):
    changes = {"slam/quat_wxyz": None, "slam/trans_xyz": None, "video/device_timestamp": None}
    with open_episode(write_annotation(changes)) as episode:
        assert episode.captions().action == ("Brush block",) * 8


@pytest.mark.parametrize(
    "stamps",
    [
        np.array(["", *(str(stamp) for stamp in STAMPS_NS[1:])], dtype="S14"),
        np.array([np.nan, *STAMPS_NS[1:]]),
        np.array(["9" * 40] * 8, dtype="S40"),
        np.array([b"\xff\xfe"] * 8, dtype="S2"),
    ],
)
def test_a_clock_that_is_no_number_is_looked_for_elsewhere(write_annotation, stamps):
    with open_episode(write_annotation({"video/device_timestamp": stamps})) as episode:
        assert episode.device_timestamps_ns.tolist() == STAMPS_NS


@pytest.mark.parametrize("kind", ["whole", "floating", "text", "padded"])
def test_timestamps_are_read_whatever_they_are_stored_as(write_annotation, kind):
    stored = {
        "whole": np.array(STAMPS_NS),
        "floating": np.array(STAMPS_NS, dtype=np.float64),
        "text": np.array([str(stamp) for stamp in STAMPS_NS], dtype=h5py.string_dtype()),
        "padded": np.array([f" {stamp}\0\0" for stamp in STAMPS_NS], dtype="S20"),
    }[kind]
    changes = {"video/device_timestamp": stored, "slam/frame_names": None}
    with open_episode(write_annotation(changes)) as episode:
        assert episode.device_timestamps_ns.tolist() == STAMPS_NS


def test_inertial_times_may_be_text_and_samples_without_one_are_left_out(write_annotation):
    times = [str(FIRST_NS + 5_000_000 * sample).encode() for sample in range(71)]
    times[10] = b"nan"
    with open_episode(write_annotation({"imu/device_timestamp_ns": np.array(times)})) as episode:
        imu = episode.imu()
    assert len(imu.timestamps_ns) == 70
    assert imu.keyframes.tolist() == [0, 9, 19, 29, 39, 49, 59, 69]  # 9 is 5 ms before frame 1


def test_inertial_samples_out_of_order_are_put_in_order(write_annotation):
    times = annotation()["imu/device_timestamp_ns"][::-1].copy()
    accel = np.arange(71.0)[:, None] * np.ones(3)
    with open_episode(
        write_annotation({"imu/device_timestamp_ns": times, "imu/accel_xyz": accel})
    ) as episode:
        imu = episode.imu()
    assert imu.accel[imu.keyframes, 0].tolist() == [70, 60, 50, 40, 30, 20, 10, 0]


def test_an_inertial_sample_that_is_not_finite_is_masked_and_left_out_of_the_mean(write_annotation):
    accel = np.tile([0.0, 0.0, 10.0], (71, 1))
    accel[5:21] = np.nan  # frames 1 and 2 are at samples 10 and 20
    with open_episode(write_annotation({"imu/accel_xyz": accel})) as episode:
        assert episode.imu().covered.tolist() == [True, False, False, *[True] * 5]
        row = dict(zip(FEATURE_NAMES, window_features(episode, [Span(start=0, stop=4)])[0], strict=True))
    assert row["imu_share"] == 0.5
    assert row["accel_mean_m_s2"] == pytest.approx(10)
    assert row["accel_std_m_s2"] == pytest.approx(0, abs=1e-3)


def test_fewer_than_ten_inertial_samples_per_frame_are_enough(write_annotation):
    changes = {name: annotation()[name][:65] for name in annotation() if name.startswith("imu/")}
    with open_episode(write_annotation(changes)) as episode:
        assert episode.imu().keyframes.tolist() == [0, 10, 20, 30, 40, 50, 60, 64]
        assert episode.imu().covered.tolist() == [True] * 7 + [False]


@pytest.mark.parametrize(
    ("named", "misplaced"),
    [
        (np.arange(60) * 10, []),
        (np.arange(60) * 10 + 1, []),  # 5 ms late is near enough
        (np.zeros(60), range(1, 60)),
        (np.arange(60) * 10 + 400, range(59)),  # frame 59 belongs to the last sample there is
        (np.where(np.arange(60) == 7, np.nan, np.arange(60) * 10), [7]),
    ],
)
def test_a_sample_that_the_file_names_is_taken_only_where_the_clock_agrees(
    write_annotation, named, misplaced
):
    accel = np.tile([0.0, 0.0, 10.0], (591, 1))
    accel[0] = np.nan  # what stands for a frame decides whether it is covered
    changes = {"imu/keyframe_indices": named, "imu/accel_xyz": accel}
    with open_episode(write_annotation(changes, num_frames=60)) as episode:
        imu = episode.imu()
    apart_ns = np.abs(imu.timestamps_ns[imu.keyframes] - FIRST_NS - 50_000_000 * np.arange(60))
    assert apart_ns.max() <= 10_000_000
    assert np.flatnonzero(imu.misplaced).tolist() == list(misplaced)
    assert np.flatnonzero(~imu.covered).tolist() == ([] if named[0] == 1 else [0])


def test_depth_and_confidence_of_two_sizes_are_named(write_annotation):
    folder = write_annotation({"depth/confidence": np.full((8, 2, 2), 200, dtype=np.uint8)})
    with open_episode(folder) as episode, pytest.raises(UnreadableEpisodeError, match=r"\(4, 4\).*\(2, 2\)"):
        episode.depth_rows(0, 1)


def test_the_ground_is_looked_for_in_the_file_first_and_then_in_its_metadata(write_annotation):
    found = [
        ("ground_height", -1.1, -1.1),
        ("floor_z", -1.2, -1.2),
        ("body_height", 1.3, -1.3),
        ("metadata/ground_height", -1.4, -1.4),
        ("metadata/floor_z", -1.5, -1.5),
        ("metadata/body_height", 1.6, -1.6),
    ]
    stored = {name: value for name, value, _ in found}
    for name, _, height in found:
        with open_episode(write_annotation(stored)) as episode:
            assert episode.ground_height == height
        del stored[name]
    for unusable in (np.nan, "tall", h5py.Empty("f8")):
        with open_episode(write_annotation({"metadata/body_height": unusable})) as episode:
            assert episode.ground_height == -1.75


def test_a_text_that_is_empty_or_not_utf8_is_no_name_or_a_damaged_one(write_annotation):
    with open_episode(write_annotation({"metadata/device_id": h5py.Empty("S1")})) as episode:
        assert episode.device_id is None
    with open_episode(write_annotation({"metadata/device_id": np.bytes_(b"72\xff1")})) as episode:
        assert episode.device_id == "72\ufffd1"
