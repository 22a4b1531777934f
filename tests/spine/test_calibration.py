"""Where the cameras are: on the real rig, and on one made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.poses import inverse
from omni_mlflow.spine.types import CAMERAS


def centre(episode, camera):
    """Where the camera is on the rig, metres in the body frame."""
    return inverse(episode.camera(camera).from_body)[:3, 3]


def yaw_deg(episode, camera):
    """How far to the right of the rig's forward axis the camera looks."""
    axis = inverse(episode.camera(camera).from_body)[:3, 2]
    return np.degrees(np.arctan2(axis[0], axis[2]))


def test_the_stereo_cameras_of_the_real_rig_sit_where_its_front_fisheyes_do(real_sample):
    with open_episode(real_sample) as episode:
        np.testing.assert_allclose(
            centre(episode, "stereo_left"), centre(episode, "fisheye_cam0"), atol=1e-12
        )
        np.testing.assert_allclose(
            centre(episode, "stereo_right"), centre(episode, "fisheye_cam1"), atol=1e-12
        )
        baseline = np.linalg.norm(centre(episode, "stereo_left") - centre(episode, "stereo_right"))
        assert baseline == pytest.approx(0.145307, abs=1e-6)


def test_the_fisheyes_of_the_real_rig_look_front_left_front_right_rear_left_and_rear_right(real_sample):
    with open_episode(real_sample) as episode:
        yaws = [yaw_deg(episode, camera) for camera in CAMERAS[:4]]
    assert yaws == pytest.approx([-30, 30, -120, 120], abs=1.5)


def test_the_real_cameras_have_the_intrinsics_of_their_kind(real_sample):
    with open_episode(real_sample) as episode:
        fisheyes = [episode.camera(camera) for camera in CAMERAS[:4]]
        assert all(camera.intrinsics == pytest.approx([395, 395, 541, 657], abs=20) for camera in fisheyes)
        assert all(
            camera.distortion == pytest.approx([-0.057, 0.003, -0.006, 0.002], abs=0.01)
            for camera in fisheyes
        )
        left = episode.camera("stereo_left")
        assert left.intrinsics == pytest.approx([200, 200, 256, 256])
        assert left.distortion is None
        assert episode.depth_intrinsics == pytest.approx([100, 100, 128, 128])  # 256 x 256 of 512 x 512


def motion(yaw=0.0, shift=(0.0, 0.0, 0.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def test_a_fisheye_reaches_the_body_through_all_cameras_before_it(write_annotation):
    """cam0 is 1 m ahead of the body, cam1 2 m to the right and turned by 90 degrees, cam2 3 m ahead of it."""
    changes = {
        "calibration/cam0/T_c_b": motion(shift=(0, 0, -1)),
        "calibration/cam1/T_cn_cnm1": motion(-90) @ motion(shift=(-2, 0, 0)),
        "calibration/cam2/T_cn_cnm1": motion(shift=(0, 0, -3)),
    }
    with open_episode(write_annotation(changes)) as episode:
        np.testing.assert_allclose(centre(episode, "fisheye_cam1"), [2, 0, 1], atol=1e-12)
        np.testing.assert_allclose(centre(episode, "fisheye_cam2"), [5, 0, 1], atol=1e-12)
        assert yaw_deg(episode, "fisheye_cam2") == pytest.approx(90)
        poses, valid = episode.camera_to_world("fisheye_cam2")
        assert valid.all()
        np.testing.assert_allclose(poses[3, :3, 3], [5, 0, 1], atol=1e-12)  # body and world are one here
        assert np.isnan(episode.camera("fisheye_cam3").from_body).all()
        assert not episode.camera_to_world("fisheye_cam3")[1].any()


def test_the_rig_is_at_minus_the_turned_translation_of_slam(write_annotation):
    turn = Rotation.from_euler("z", 90, degrees=True)  # world to body
    changes = {
        "slam/quat_wxyz": np.tile(turn.as_quat(scalar_first=True), (8, 1)),
        "slam/trans_xyz": np.tile([1.0, 2.0, 3.0], (8, 1)),
    }
    with open_episode(write_annotation(changes)) as episode:
        poses, _ = episode.body_to_world()
    np.testing.assert_allclose(poses[0, :3, 3], [-2, 1, -3], atol=1e-12)


@pytest.mark.parametrize("broken", [np.zeros((4, 4)), 2 * np.eye(4), np.diag([1.0, 1, -1, 1])])
def test_a_calibration_that_is_no_rigid_motion_gives_no_pose(write_annotation, broken):
    with open_episode(write_annotation({"calibration/cam01/T_c0_b": broken})) as episode:
        assert episode.missing() == {"camera_pose": "no frame is valid"}


def test_a_camera_that_nobody_has_is_refused_by_name(write_annotation):
    with open_episode(write_annotation()) as episode, pytest.raises(KeyError, match=r"cam9.*fisheye_cam0"):
        episode.camera("fisheye_cam9")


def test_what_is_not_recorded_is_none(write_annotation):
    with open_episode(write_annotation()) as episode:
        assert episode.camera("fisheye_cam0").intrinsics is None
        assert episode.depth_intrinsics is None
        assert np.isnan(episode.camera("stereo_right").from_body).all()


def test_the_map_comes_without_its_far_outliers(write_annotation):
    points = np.zeros((100, 3))
    points[:, 0] = np.linspace(-1, 1, 100)
    points[:4] = 100.0
    points[4] = np.nan
    with open_episode(write_annotation({"slam/point_cloud": points})) as episode:
        cloud = episode.point_cloud()
    assert np.abs(cloud).max() <= 1
    assert 90 <= len(cloud) <= 95
    with open_episode(write_annotation({"slam/point_cloud": None})) as episode:
        assert episode.point_cloud().shape == (0, 3)
