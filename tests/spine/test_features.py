"""Sensor features of windows, worked out by hand."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from handmade import FIRST_NS, annotation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.features import FEATURE_GROUPS, FEATURE_NAMES, describe_features, window_features
from omni_mlflow.spine.types import Span

FIRST_HALF = Span(start=0, stop=4)


@pytest.fixture
def features_of(write_annotation):
    """Features of the first four frames, by name."""

    def compute(changes=None, span=FIRST_HALF):
        with open_episode(write_annotation(changes)) as episode:
            row = window_features(episode, [span])[0]
        return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))

    return compute


def forward_translations(step_m=0.1):
    """The rig moves along its own z axis; SLAM stores the negative of its place."""
    return np.outer(-step_m * np.arange(8), [0, 0, 1])


def yaw_quaternions(step_deg):
    half = np.radians(step_deg * np.arange(8)) / 2
    return np.stack([np.cos(half), 0 * half, np.sin(half), 0 * half], axis=1)


def test_the_way_of_the_camera_is_told_in_its_own_view(features_of):
    row = features_of({"slam/trans_xyz": forward_translations()})
    assert row["camera_share"] == 1
    assert row["camera_forward_m"] == pytest.approx(0.3)
    assert row["camera_right_m"] == row["camera_down_m"] == 0
    assert row["camera_displacement_m"] == pytest.approx(0.3)
    assert row["camera_speed_m_s"] == pytest.approx(0.3 / 0.15)
    assert row["camera_rotation_deg"] == pytest.approx(0, abs=1e-4)
    assert row["camera_height_m"] == pytest.approx(1.75 + 0.15)  # the world's z is up, and so is this rig's


def test_forward_is_where_the_camera_looked_at_the_start_of_the_window(features_of):
    """The rig looks along the world's x axis (a yaw of 90 degrees about y) and goes that way."""
    world_to_body = np.tile([np.sqrt(0.5), 0, -np.sqrt(0.5), 0], (8, 1))
    row = features_of({"slam/quat_wxyz": world_to_body, "slam/trans_xyz": forward_translations()})
    assert row["camera_forward_m"] == pytest.approx(0.3)
    assert row["camera_right_m"] == pytest.approx(0, abs=1e-6)
    assert row["camera_height_m"] == pytest.approx(1.75)


def test_speed_counts_real_seconds(features_of):
    slow_clock = np.array([str(FIRST_NS + 100_000_000 * frame) for frame in range(8)], dtype="S14")
    row = features_of({"slam/trans_xyz": forward_translations(), "video/device_timestamp": slow_clock})
    assert row["camera_speed_m_s"] == pytest.approx(0.3 / 0.3)


def test_speed_counts_the_seconds_of_frames_that_were_dropped_inside_the_window_and_no_others(features_of):
    """Two frames are dropped before frame 2: frames 0 to 3 take 250 ms, frames 4 to 7 only 150."""
    gaps = 50_000_000 * np.array([0, 1, 3, 1, 1, 1, 1, 1])
    stamps = np.array([str(stamp) for stamp in FIRST_NS + np.cumsum(gaps)], dtype="S14")
    changes = {"slam/trans_xyz": forward_translations(), "video/device_timestamp": stamps}
    assert features_of(changes)["camera_speed_m_s"] == pytest.approx(0.3 / 0.25)
    second_half = features_of(changes, Span(start=4, stop=8))
    assert second_half["camera_speed_m_s"] == pytest.approx(0.3 / 0.15)


def test_turning_is_the_angle_between_first_and_last_pose(features_of):
    assert features_of({"slam/quat_wxyz": yaw_quaternions(10)})["camera_rotation_deg"] == pytest.approx(
        30, abs=1e-3
    )


def test_a_window_is_measured_between_its_first_and_last_valid_frame(features_of):
    quaternions = yaw_quaternions(0)
    quaternions[3] = np.nan
    row = features_of({"slam/quat_wxyz": quaternions, "slam/trans_xyz": forward_translations()})
    assert row["camera_share"] == 0.75
    assert row["camera_displacement_m"] == pytest.approx(0.2)
    assert row["camera_speed_m_s"] == pytest.approx(2.0)


def test_a_hand_that_the_head_carries_along_moves_in_the_world(features_of):
    row = features_of({"slam/trans_xyz": forward_translations()})
    assert row["left_wrist_forward_m"] == pytest.approx(0.5)
    assert row["left_wrist_displacement_m"] == pytest.approx(0.3)


def test_a_hand_that_rests_in_the_world_does_not_move_when_the_head_does(features_of):
    hand = annotation()["hand_mocap/left_joints_3d"].copy()
    hand[:, :, 2] -= 0.1 * np.arange(8, dtype=np.float32)[:, None]
    row = features_of({"slam/trans_xyz": forward_translations(), "hand_mocap/left_joints_3d": hand})
    assert row["left_wrist_displacement_m"] == pytest.approx(0, abs=1e-6)


def test_the_aperture_is_the_distance_of_thumb_and_index_tip_where_the_hand_is_seen(features_of):
    hand = annotation()["hand_mocap/right_joints_3d"].copy()
    hand[0, 4, 0], hand[1, 4, 0] = 0.06, 0.02
    hand[2:] = 0
    row = features_of({"hand_mocap/right_joints_3d": hand})
    assert row["right_share"] == 0.5
    assert row["right_aperture_m"] == pytest.approx(0.04)


def test_the_pelvis_is_measured_above_the_ground(features_of):
    row = features_of()
    assert (row["body_share"], row["pelvis_height_m"]) == (1, pytest.approx(1.0))


def test_the_imu_is_summed_from_the_first_frame_to_the_last_one(features_of):
    """Frames 0 to 3 lie at samples 0, 10, 20, 30: 31 samples, 16 of 9 m/s² and 15 of 11."""
    accel = np.zeros((71, 3))
    accel[:, 2] = np.where(np.arange(71) % 2, 11.0, 9.0)
    accel[31:] = 1000.0
    row = features_of({"imu/accel_xyz": accel})
    assert row["accel_mean_m_s2"] == pytest.approx((16 * 9 + 15 * 11) / 31)
    assert row["accel_std_m_s2"] == pytest.approx(np.sqrt(1 - (1 / 31) ** 2), rel=1e-4)


def test_depth_is_the_median_of_its_valid_pixels_at_two_frames(features_of):
    metres = np.full((8, 2, 2), 5.0, dtype=np.float32)  # frames 1 and 3 speak for 0 to 3
    metres[1] = [[0, 1], [2, 3]]
    metres[3] = [[0, 0], [4, 4]]
    confidence = np.full((8, 2, 2), 255, dtype=np.uint8)
    row = features_of({"depth/depth": metres, "depth/confidence": confidence})
    assert row["depth_median_m"] == pytest.approx((2 + 4) / 2)
    assert row["depth_valid_share"] == pytest.approx((0.75 + 0.5) / 2)
    assert (row["depth_share"], row["depth_confidence"]) == (1, 1)


def test_what_happens_after_a_window_does_not_change_it(write_annotation):
    """Every array is replaced by noise from the anchor on; nothing may shine through."""
    rng = np.random.default_rng(0)
    span = Span(start=1, stop=5)
    anchor_ns = FIRST_NS + 50_000_000 * span.stop
    with open_episode(write_annotation()) as episode:
        expected = window_features(episode, [span])
    changes = {}
    for name, array in annotation().items():
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.shape[:1] == (8,):
            changes[name] = array.copy()
            changes[name][span.stop :] = rng.normal(size=array[span.stop :].shape)
    after = annotation()["imu/device_timestamp_ns"] >= anchor_ns
    for name in ("imu/accel_xyz", "imu/gyro_xyz"):
        changes[name] = annotation()[name].copy()
        changes[name][after] = rng.normal(size=(after.sum(), 3))
    changes["slam/trans_xyz"] = np.concatenate([np.zeros((5, 3)), rng.normal(size=(3, 3))])
    with open_episode(write_annotation(changes)) as episode:
        np.testing.assert_array_equal(window_features(episode, [span]), expected)


def test_no_answer_is_in_the_features(write_annotation):
    with open_episode(write_annotation()) as episode:
        expected = window_features(episode, [FIRST_HALF])
    contacts = np.ones((8, 21), dtype=np.float32)
    with open_episode(write_annotation({"full_body_mocap/contacts": contacts, "caption": "{}"})) as episode:
        np.testing.assert_array_equal(window_features(episode, [FIRST_HALF]), expected)


@pytest.mark.parametrize("group", ["slam", "hand_mocap", "full_body_mocap", "imu", "depth"])
def test_an_absent_sensor_is_zeros_and_says_so_and_changes_no_length(write_annotation, group):
    folder = write_annotation()
    with h5py.File(folder / "annotation.hdf5", "a") as file:
        del file[group]
    with open_episode(folder) as episode:
        rows = window_features(episode, [FIRST_HALF, Span(start=4, stop=8)])
    assert rows.shape == (2, len(FEATURE_NAMES))
    assert np.isfinite(rows).all()
    value = dict(zip(FEATURE_NAMES, rows[0], strict=True))
    absent = {
        "slam": FEATURE_GROUPS["pose"],
        "hand_mocap": [name for name in FEATURE_NAMES if name.startswith(("left_", "right_"))],
        "full_body_mocap": ("body_share", "pelvis_height_m"),
        "imu": FEATURE_GROUPS["imu"],
        "depth": FEATURE_GROUPS["depth"],
    }[group]
    assert {name for name, number in value.items() if number == 0} >= set(absent)


def test_windows_are_computed_together_as_they_are_alone(write_annotation):
    spans = [Span(start=start, stop=start + 3) for start in range(6)]
    with open_episode(write_annotation({"slam/trans_xyz": forward_translations()})) as episode:
        together = window_features(episode, spans)
        alone = [window_features(episode, [span])[0] for span in spans]
        assert window_features(episode, []).shape == (0, len(FEATURE_NAMES))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_a_row_is_described_in_one_short_line():
    row = np.zeros(len(FEATURE_NAMES))
    assert describe_features(row) == "head -; left -; right -; depth -; shake -"
    for name, number in {
        "camera_share": 1,
        "camera_displacement_m": 0.123,
        "camera_rotation_deg": 17.6,
        "right_share": 0.5,
        "right_wrist_displacement_m": 0.456,
        "depth_share": 1,
        "depth_median_m": 0.87,
        "imu_share": 1,
        "accel_std_m_s2": 1.26,
    }.items():
        row[FEATURE_NAMES.index(name)] = number
    line = describe_features(row)
    assert line == "head 0.12m 18deg; left -; right 0.46m; depth 0.87m; shake 1.3"
    assert len(line) <= 64
    row[FEATURE_NAMES.index("camera_share")] = 0
    assert describe_features(row) == "head -; left -; right -; depth 0.87m; shake 1.3", (
        "without the head's pose nobody knows how far a hand moved in the world"
    )


WRONG = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 3e38, 1e38, 1e20]),
    st.floats(allow_nan=True, allow_infinity=True, width=64),
)
NUMBERS = (
    "slam/quat_wxyz",
    "slam/trans_xyz",
    "calibration/cam01/T_c0_b",
    "depth/depth",
    "depth/confidence",
    "hand_mocap/left_joints_3d",
    "full_body_mocap/keypoints",
    "imu/accel_xyz",
    "imu/gyro_xyz",
    "metadata/body_height",
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(NUMBERS), wrong=WRONG, place=st.integers(0, 10**6), everywhere=st.booleans())
def test_whatever_number_is_stored_every_feature_is_finite(write_annotation, name, wrong, place, everywhere):
    stored = np.array(annotation()[name], dtype=np.float64)
    stored.flat[slice(None) if everywhere else place % stored.size] = wrong
    with open_episode(write_annotation({name: stored})) as episode:
        rows = window_features(episode, [FIRST_HALF, Span(start=4, stop=8), Span(start=0, stop=8)])
    assert np.isfinite(rows).all()


@pytest.mark.parametrize(
    ("name", "share", "kept"),
    [
        ("slam/trans_xyz", "camera_share", 3 / 4),
        ("imu/accel_xyz", "imu_share", 3 / 4),
        ("imu/gyro_xyz", "imu_share", 3 / 4),
        ("full_body_mocap/keypoints", "body_share", 3 / 4),
        ("hand_mocap/right_joints_3d", "right_share", 3 / 4),
    ],
)
def test_a_number_that_nobody_measured_is_masked(features_of, name, share, kept):
    stored = np.array(annotation()[name], dtype=np.float64)
    stored[10 if name.startswith("imu/") else 1] = 2e5
    assert features_of({name: stored})[share] == kept


def test_numbers_at_the_edge_of_the_possible_are_believed(features_of):
    row = features_of({"imu/accel_xyz": np.tile([0.0, 0.0, 9_999.0], (71, 1))})
    assert (row["imu_share"], row["accel_mean_m_s2"]) == (1, 9_999)
