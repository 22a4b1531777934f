import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.captions import map_captions
from omni_mlflow.spine.synthetic import rig
from omni_mlflow.spine.synthetic.annotation import write_annotation
from omni_mlflow.spine.synthetic.caption import caption_json
from omni_mlflow.spine.synthetic.world import make_session

FRAMES = 600
CHECKOUT = Path(__file__).parents[2]
REFERENCE = (
    Path(os.environ.get("OMNI_REFERENCE_DIR", CHECKOUT.parent / "shared" / "reference"))
    / "annotation_sample8.hdf5"
)


@pytest.fixture(scope="module")
def world():
    return make_session(1, frames=FRAMES)


@pytest.fixture(scope="module")
def annotation(world, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotation") / "annotation.hdf5"
    write_annotation(path, world, invalid_body_share=0.25)
    with h5py.File(path) as file:
        yield file


def kinds(file):
    found = {}
    file.visititems(
        lambda name, item: (
            found.update({name: (item.ndim, item.dtype.str)}) if isinstance(item, h5py.Dataset) else None
        )
    )
    return found


def test_it_has_the_65_datasets_of_a_real_annotation_with_their_types(annotation):
    assert len(kinds(annotation)) == 65
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is absent; set OMNI_REFERENCE_DIR to compare with a real annotation")
    with h5py.File(REFERENCE) as real:
        assert kinds(annotation) == kinds(real)


def test_datasets_are_contiguous_uncompressed_and_without_attributes(annotation):
    found = [annotation[name] for name in kinds(annotation)]
    assert all(item.chunks is None and item.compression is None and not item.attrs for item in found)


def test_captions_say_at_every_frame_what_the_world_did(world, annotation):
    names = [name.decode() for name in annotation["slam/frame_names"]]
    captions = map_captions(annotation["caption"][()], names)
    assert captions.main_task == world.main_task
    for frame in range(FRAMES):
        assert captions.action[frame] == world.action_at(frame)
        assert captions.subtask[frame] == world.subtask_at(frame)
        assert captions.objects[frame] == world.objects_at(frame)


def test_captions_mix_numbers_and_text_and_end_with_the_surplus_frame(annotation):
    segments = json.loads(annotation["caption"][()])["segments"]
    starts = {type(action["start_frame"]) for segment in segments for action in segment["Current Action"]}
    assert starts == {int, str}
    assert segments[-1]["end_frame"] == "frame_0000601"


def test_a_segment_without_an_action_is_covered_by_the_one_that_runs_past_its_end():
    stamps = [72_857_807_732_824 + 50_000_000 * frame for frame in range(2000)]
    empty = 0
    for seed in range(5):
        world = make_session(seed, frames=2000)
        text = caption_json(world, stamps)
        empty += sum(not segment["Current Action"] for segment in json.loads(text)["segments"])
        captions = map_captions(text, [f"{stamp}.jpg" for stamp in stamps])
        assert [world.action_at(frame) for frame in range(2000)] == list(captions.action)
    assert empty > 0


@pytest.mark.parametrize(("side", "joint"), [("left", 20), ("right", 21)])
def test_wrists_of_hand_and_body_capture_meet_within_a_centimetre(annotation, side, joint):
    camera = annotation[f"hand_mocap/{side}_joints_3d"][:, 0]
    rig_to_camera = annotation["calibration/cam01/T_c0_b"][()]
    in_rig = (camera - rig_to_camera[:3, 3]) @ rig_to_camera[:3, :3]
    world_to_rig = Rotation.from_quat(annotation["slam/quat_wxyz"][()], scalar_first=True)
    in_world = world_to_rig.inv().apply(in_rig - annotation["slam/trans_xyz"][()])
    distance_m = np.linalg.norm(in_world - annotation["full_body_mocap/keypoints"][:, joint], axis=1)
    assert np.nanmax(distance_m) < 0.01


def test_contact_is_written_to_the_wrists_and_feet_stand_on_the_floor(world, annotation):
    contacts = annotation["full_body_mocap/contacts"][()]
    valid = np.isfinite(contacts).all(axis=1)
    in_contact = world.contacts()[:FRAMES]
    for wrist in (19, 20):
        np.testing.assert_array_equal((contacts[:, wrist] > 0.5)[valid], in_contact[valid])
    assert (contacts[valid][:, [6, 7, 9, 10]] == 1).all()
    assert np.abs(np.delete(contacts[valid], [6, 7, 9, 10, 19, 20], axis=1)).max() < 0.01
    lowest_m = np.nanmin(annotation["full_body_mocap/keypoints"][:, :, 2])
    assert lowest_m == pytest.approx(-annotation["metadata/body_height"][()], abs=0.05)


def test_the_first_row_of_the_body_repeats_the_second_and_the_root_is_joint_0(annotation):
    body = annotation["full_body_mocap"]
    for name in ("keypoints", "contacts", "Ts_world_root", "body_quats", "left_hand_quats"):
        np.testing.assert_array_equal(body[name][0], body[name][1])
    np.testing.assert_array_equal(body["keypoints"][:, 0], body["Ts_world_root"][:, 4:])


def test_the_wanted_share_of_frames_has_no_body_in_runs(annotation):
    missing = np.isnan(annotation["full_body_mocap/keypoints"][:, 0, 0])
    assert missing.mean() == pytest.approx(0.25, abs=0.01)
    assert np.diff(missing.astype(int)).clip(0).sum() <= 5
    assert np.isnan(annotation["full_body_mocap/contacts"][()]).all(axis=1).tolist() == missing.tolist()
    assert np.isfinite(annotation["hand_mocap/left_joints_3d"][()]).all()


def test_the_clock_ticks_at_20_hz_in_14_digits_and_names_the_frames(annotation):
    stamps = annotation["video/device_timestamp"][()]
    assert {len(stamp) for stamp in stamps} == {14}
    assert annotation["slam/frame_names"][5] == stamps[5] + b".jpg"
    gaps = np.diff(stamps.astype(np.int64))
    assert gaps[0] == 47_052_875
    assert np.abs(gaps[1:] - 50_000_000).max() <= 600_000


def test_inertial_samples_hold_gravity_and_each_frame_knows_its_nearest_one(annotation):
    stamps = annotation["imu/device_timestamp_ns"][()]
    frames = annotation["video/device_timestamp"][()].astype(np.int64)
    nearest = [int(np.argmin(np.abs(stamps - frame))) for frame in frames]
    assert annotation["imu/keyframe_indices"][()].tolist() == nearest
    assert len(stamps) / FRAMES == pytest.approx(10, abs=0.1)
    assert stamps[0] > frames[0]
    assert stamps[-1] > frames[-1]
    norms = np.linalg.norm(annotation["imu/accel_xyz"][()], axis=1)
    assert norms.mean() == pytest.approx(9.81, abs=0.1)
    upward = Rotation.from_quat(annotation["slam/quat_wxyz"][0], scalar_first=True).inv()
    world_z = upward.apply(annotation["imu/accel_xyz"][:10].mean(axis=0))[2]
    assert world_z == pytest.approx(9.81, abs=0.1)


def test_the_camera_chain_puts_cam1_one_baseline_right_of_the_rectified_left_camera(annotation):
    calibration = annotation["calibration"]
    cam1 = calibration["cam1/T_cn_cnm1"][()] @ calibration["cam0/T_c_b"][()]
    centre = rig.inverse(cam1)[:, 3]
    in_left = calibration["cam01/T_c0_b"][()] @ centre
    np.testing.assert_allclose(in_left[:3], [calibration["cam01/baseline"][()], 0, 0], atol=1e-12)


def test_depth_has_half_the_stereo_size_and_none_where_the_cameras_do_not_overlap(annotation):
    depth = annotation["depth/depth"]
    assert depth.shape == (FRAMES, 32, 32)
    assert annotation["depth/scale"][()] == 0.5
    assert not depth[:, :, :2].any()
    assert depth[:, :, 2:].min() > 0.3


def test_the_annotation_says_that_it_is_synthetic(annotation):
    assert json.loads(annotation["metadata/other"][()])["synthetic"] is True


def test_sessions_have_their_own_device_and_clock(tmp_path):
    clocks, devices = [], set()
    for seed in (7000, 7001, 7002):
        write_annotation(tmp_path / "a.hdf5", make_session(seed, frames=60), invalid_body_share=0)
        with h5py.File(tmp_path / "a.hdf5") as file:
            stamps = file["video/device_timestamp"][()].astype(np.int64)
            devices.add(file["metadata/device_id"][()])
            assert np.isfinite(file["full_body_mocap/keypoints"][()]).all()
        clocks.append((stamps[0], stamps[-1]))
    assert len(devices) == 3
    assert clocks[0][1] < clocks[1][0]
    assert clocks[1][1] < clocks[2][0]
