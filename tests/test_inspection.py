"""What `omni-mlflow inspect` says about intact, damaged and real episodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from omni_mlflow.inspection import inspect_episode
from omni_mlflow.spine.annotation import UnreadableEpisodeError
from omni_mlflow.spine.synthetic import Anomaly, write_episode_set
from omni_mlflow.spine.types import CAMERAS
from tests.lost_sound import lose_sound

PERIOD_NS = 50_000_000
WRISTS = slice(19, 21)
BODY_ARRAYS = ("full_body_mocap/keypoints", "full_body_mocap/contacts")


@pytest.fixture(scope="module")
def demo_set(tmp_path_factory) -> dict[Anomaly | None, Path]:
    """One episode of 100 frames with each demo anomaly, and one without; all lack a body now and then."""
    out = tmp_path_factory.mktemp("demo")
    plan = write_episode_set(out, sessions=4, frames=100, seed=3, anomalies="demo", workers=1)
    return {episode.anomaly: out / episode.path for episode in plan.episodes}


@pytest.fixture
def episode(tmp_path, episodes) -> Path:
    """A flawless episode of 100 frames, to change as one likes; half of its frames have hand contact.

    Also its first body is one of its own, which it is in no real recording.
    """
    source = min(episodes.glob("*/ep1"))
    folder = shutil.copytree(source, tmp_path / "kitchen" / "ep1")
    touch_until(folder, frame=50)
    with h5py.File(folder / "annotation.hdf5", "r+") as file:
        file["full_body_mocap/keypoints"][0] += 0.001
    return folder


def touch_until(folder: Path, *, frame: int) -> None:
    with h5py.File(folder / "annotation.hdf5", "r+") as file:
        contacts = file["full_body_mocap/contacts"]
        contacts[:, WRISTS] = 0.0
        contacts[:frame, WRISTS] = 1.0


def replace(folder: Path, name: str, values: np.ndarray | None) -> None:
    with h5py.File(folder / "annotation.hdf5", "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "omni_mlflow", "inspect", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_flawless_episode_is_covered_in_full_and_has_no_anomaly(episode):
    found = inspect_episode(episode)
    assert found.episode_id == "kitchen__ep1"
    assert found.num_frames == 100
    assert found.fps == pytest.approx(20, abs=0.1)
    assert list(found.modalities)[:7] == [*CAMERAS, "audio"]
    assert min(found.modalities.values()) == 1.0
    assert found.anomalies == ()


def test_the_command_prints_one_json_object_and_nothing_else(episode):
    done = command_line(str(episode), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert set(told) == {
        *("episode_id", "num_frames", "fps", "modalities", "sampled", "lost_frames", "anomalies")
    }
    assert told["sampled"] == {"depth": 16}
    assert told["modalities"]["depth"] == 1.0


def test_a_coverage_that_was_estimated_is_said_to_be_one(episode):
    confidence = np.zeros((100, 32, 32), np.uint8)
    confidence[:50] = 255
    replace(episode, "depth/confidence", confidence)
    found = inspect_episode(episode)
    assert (found.modalities["depth"], found.sampled) == (0.5, {"depth": 16})
    assert found.anomalies == ("depth invalid in 50 % of 16 sampled frames",)
    [row] = [
        line for line in command_line(str(episode)).stdout.splitlines() if line.strip().startswith("depth ")
    ]
    assert row.split(maxsplit=1)[1].strip() == "50 % of 16 sampled frames"


def test_depth_that_no_sampled_frame_shows_is_not_called_absent_from_all_of_them(episode):
    replace(episode, "depth/confidence", np.zeros((100, 32, 32), np.uint8))
    assert inspect_episode(episode).anomalies == ("depth not available: none of 16 sampled frames is valid",)


def test_for_people_the_command_prints_a_table_and_the_anomalies(episode):
    (episode / "fisheye_cam1.mp4").unlink()
    done = command_line(str(episode))
    assert done.returncode == 0
    assert "kitchen__ep1: 100 frames" in done.stdout
    assert "- fisheye_cam1.mp4 missing" in done.stdout


def test_an_episode_without_videos_is_readable(episode):
    for camera in CAMERAS:
        (episode / f"{camera}.mp4").unlink()
    found = inspect_episode(episode)
    assert found.anomalies == tuple(f"{camera}.mp4 missing" for camera in CAMERAS)
    assert {found.modalities[name] for name in (*CAMERAS, "audio")} == {0.0}
    assert found.modalities["action"] == 1.0


def test_an_annotation_cut_short_is_refused_in_a_paragraph(demo_set):
    done = command_line(str(demo_set[Anomaly.CUT_SHORT]), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "annotation.hdf5: it cannot be read as HDF5: " in done.stderr
    assert "download it again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_an_annotation_is_refused(tmp_path):
    with pytest.raises(UnreadableEpisodeError, match="download the episode's annotation"):
        inspect_episode(tmp_path)


def test_an_episode_without_slam_keeps_its_labels_and_names_its_frames_by_the_device_clock(demo_set):
    found = inspect_episode(demo_set[Anomaly.NO_SLAM])
    assert found.anomalies == (
        "no slam: poses are not available, frames named by device timestamp",
        "body_mocap not available: annotation lacks full_body_mocap/keypoints",
        "contact not available: annotation lacks full_body_mocap/contacts",
    )
    assert (found.modalities["camera_pose"], found.modalities["action"]) == (0.0, 1.0)


def test_without_any_clock_frames_are_counted(episode):
    for name in ("slam", "video", "imu/keyframe_indices"):
        replace(episode, name, None)
    found = inspect_episode(episode)
    assert found.fps == 20.0
    assert "no slam: poses are not available, frames counted from 0" in found.anomalies
    assert "no device clock: 20 frames per second assumed, IMU not placed" in found.anomalies


def test_an_episode_without_a_caption_says_so_once(demo_set):
    found = inspect_episode(demo_set[Anomaly.NO_CAPTION])
    about_labels = [each for each in found.anomalies if "body" not in each]
    assert about_labels == ["no caption that can be read: there is nothing to train or to score on"]


def test_the_share_of_frames_without_a_body_is_told(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        file["full_body_mocap/keypoints"][10:35] = np.nan
    found = inspect_episode(episode)
    assert found.modalities["body_mocap"] == 0.75
    assert "body invalid in 25 % of frames: 10-34" in found.anomalies


def test_a_hand_out_of_sight_for_a_while_is_no_anomaly(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        file["hand_mocap/right_joints_3d"][:40] = 0
    found = inspect_episode(episode)
    assert found.modalities["hand_mocap_right"] == 0.6
    assert found.anomalies == ()


def test_five_dropped_frames_are_counted_on_the_device_clock(episode):
    stamps = 72857807732824 + PERIOD_NS * np.arange(100)
    stamps[30:] += 2 * PERIOD_NS
    stamps[60:] += 3 * PERIOD_NS
    replace(episode, "video/device_timestamp", stamps)
    found = inspect_episode(episode)
    assert found.fps == pytest.approx(99 / (104 * 0.05), abs=0.001)
    assert (
        "fps 19.0: dropped frames, about 5 by the device clock: 2 before frame 30, 3 before frame 60"
    ) in found.anomalies


def test_a_clock_that_stands_still_is_told(episode):
    stamps = 72857807732824 + PERIOD_NS * np.arange(100)
    stamps[40] = stamps[39]
    replace(episode, "video/device_timestamp", stamps)
    assert "the device clock does not advance at 1 frames" in inspect_episode(episode).anomalies


def test_another_rate_than_the_nominal_one_is_told(episode):
    replace(episode, "video/device_timestamp", 72857807732824 + 100_000_000 * np.arange(100))
    assert "fps 10.0, not the nominal 20" in inspect_episode(episode).anomalies


def test_contact_in_three_frames_of_a_hundred_is_a_degenerate_label(episode):
    touch_until(episode, frame=3)
    assert inspect_episode(episode).anomalies == ("contact label is degenerate (97 % no)",)
    touch_until(episode, frame=5)
    assert inspect_episode(episode).anomalies == ()


def test_an_array_with_fewer_rows_than_the_others_is_named(episode):
    with h5py.File(episode / "annotation.hdf5") as file:
        contacts = file["full_body_mocap/contacts"][:90]
    replace(episode, "full_body_mocap/contacts", contacts)
    found = inspect_episode(episode)
    assert found.num_frames == 90
    assert (
        "full_body_mocap/contacts has 90 rows where others have up to 100: only the first 90 frames are "
        "used, and 10 are lost, 10 of them labelled with an action"
    ) in found.anomalies
    assert found.lost_frames is not None
    assert found.lost_frames.short_arrays == {"full_body_mocap/contacts": 90}


def test_a_video_with_too_few_pictures_covers_that_share_of_the_frames(episode, tmp_path):
    short = write_episode_set(tmp_path / "short", sessions=1, frames=60, seed=3, anomalies="none", workers=1)
    shutil.copy(tmp_path / "short" / short.episodes[0].path / "stereo_left.mp4", episode)
    found = inspect_episode(episode)
    assert found.modalities["stereo_left"] == 0.61
    assert found.anomalies == (
        "stereo_left.mp4 holds 61 pictures for 100 frames: its last one stands for 39",
    )


def test_a_video_cut_short_is_named_and_the_others_are_still_looked_at(episode):
    video = episode / "fisheye_cam2.mp4"
    os.truncate(video, video.stat().st_size // 2)
    found = inspect_episode(episode)
    [anomaly] = found.anomalies
    assert anomaly.startswith("fisheye_cam2.mp4: it ")
    assert (found.modalities["fisheye_cam2"], found.modalities["stereo_right"]) == (0.0, 1.0)


def test_videos_without_sound_are_told(episode):
    shutil.copy(episode / "fisheye_cam1.mp4", episode / "fisheye_cam0.mp4")
    found = inspect_episode(episode)
    assert found.modalities["audio"] == 0.0
    assert found.anomalies == ("no sound: no video has an audio track",)


def test_sound_that_ends_early_or_has_a_hole_is_told_and_counted(episode):
    lose_sound(episode / "fisheye_cam0.mp4", lambda start_s: 1 <= start_s < 2 or start_s >= 4)
    found = inspect_episode(episode)
    assert found.modalities["audio"] == pytest.approx(3 / 5, abs=0.02)
    [anomaly] = found.anomalies
    assert anomaly.startswith("no sound for ")
    assert anomaly.endswith("; fisheye_cam0.mp4 has most of it")
    told = [float(each) for each in re.findall(r"\d+\.\d\d", anomaly)]
    assert told == pytest.approx([2, 5, 1, 2, 4, 5], abs=0.06)


def test_sound_of_which_packets_are_damaged_is_told_and_the_rest_is_heard(episode):
    lose_sound(episode / "fisheye_cam0.mp4", lambda start_s: 1 <= start_s < 1.1, spoilt=True)
    found = inspect_episode(episode)
    assert found.modalities["audio"] == pytest.approx(0.98, abs=0.01)
    hole, damaged = found.anomalies
    assert hole.startswith("no sound for 0.")
    assert re.fullmatch(
        r"\d packets of the sound of fisheye_cam0\.mp4 cannot be decoded: silence stands for them", damaged
    )


def test_sound_that_another_video_has_in_full_is_no_anomaly(episode):
    shutil.copy(episode / "fisheye_cam0.mp4", episode / "stereo_left.mp4")
    lose_sound(episode / "fisheye_cam0.mp4", lambda start_s: start_s >= 4)
    found = inspect_episode(episode)
    assert (found.modalities["audio"], [each for each in found.anomalies if "sound" in each]) == (1.0, [])


def test_the_real_sample_has_no_right_hand_and_no_contact(tmp_path):
    default = Path(__file__).parents[2] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "annotation_sample8.hdf5"
    if not file.is_file():
        pytest.skip(f"no real sample at {file}; set OMNI_REFERENCE_DIR")
    (tmp_path / "annotation.hdf5").symlink_to(file.resolve())
    found = inspect_episode(tmp_path)
    assert (found.num_frames, found.fps) == (8, 20.17)
    assert found.modalities["camera_pose"] == 1.0
    assert found.anomalies == (
        *(f"{camera}.mp4 missing" for camera in CAMERAS),
        "hand_mocap_right not available: no frame is valid",
        "body of frame 0 is a copy of frame 1",
        "contact label is degenerate (100 % no)",
    )


def test_a_first_body_that_is_a_copy_of_the_second_is_told(episodes):
    assert "body of frame 0 is a copy of frame 1" in inspect_episode(min(episodes.glob("*/ep1"))).anomalies


def test_a_clock_that_only_the_inertial_samples_tell_still_finds_every_label(episode):
    replace(episode, "slam", None)
    replace(episode, "video", None)
    found = inspect_episode(episode)
    assert found.anomalies == (
        "no device clock by frame: it is taken from the nearest inertial samples",
        "no slam: poses are not available, frames named by device timestamp",
    )
    assert (found.modalities["action"], found.modalities["imu"]) == (1.0, 1.0)
    assert found.fps == pytest.approx(20, abs=0.1)


def test_bad_poses_are_named_by_frame(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        file["slam/quat_wxyz"][5] = 0
        file["slam/quat_wxyz"][9] = np.nan
    assert inspect_episode(episode).anomalies == ("camera pose invalid in 2 % of frames: 5, 9",)


def test_of_many_runs_the_first_four_are_named(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        for frame in range(10, 70, 10):
            file["full_body_mocap/keypoints"][frame] = np.nan
    assert "body invalid in 6 % of frames: 10, 20, 30, 40 and 2 more" in inspect_episode(episode).anomalies


def test_a_hand_that_is_not_finite_is_told_apart_from_one_out_of_sight(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        file["hand_mocap/left_joints_3d"][30:34] = np.nan
        file["hand_mocap/right_joints_3d"][:15] = 0
    assert inspect_episode(episode).anomalies == (
        "left hand is not finite in frames 30-33; a hand out of sight is zeros",
    )


def test_numbers_that_nobody_measured_are_told_and_masked(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        sample = int(file["imu/keyframe_indices"][7])
        file["imu/accel_xyz"][sample, 1] = 1e300
        file["slam/trans_xyz"][20] = -1e300
        num_samples = len(file["imu/accel_xyz"])
    found = inspect_episode(episode)
    assert found.anomalies == (
        "slam/trans_xyz is beyond 100,000 m in 1 of 100 rows, first 20: invalid",
        f"imu/accel_xyz is beyond 10,000 m/s^2 in 1 of {num_samples} rows, first {sample}: invalid",
        "camera pose invalid in 1 % of frames: 20",
        "IMU invalid in 1 % of frames: 7",
    )
    assert (found.modalities["camera_pose"], found.modalities["imu"]) == (0.99, 0.99)


def test_an_axis_in_front_is_told_and_read_over(episode):
    with h5py.File(episode / "annotation.hdf5") as file:
        arrays = {name: file[name][()][None] for name in BODY_ARRAYS}
    for name, array in arrays.items():
        replace(episode, name, array)
    found = inspect_episode(episode)
    assert found.anomalies == (
        "an axis of length 1 in front, as in older exports, is left out: "
        "full_body_mocap/keypoints, full_body_mocap/contacts",
    )
    assert found.modalities["body_mocap"] == 1.0


def test_key_frames_of_the_imu_that_are_too_few_are_told(episode):
    replace(episode, "imu/keyframe_indices", np.arange(7))
    sentence = "imu/keyframe_indices has 7 rows for 100 frames: found by time instead"
    assert inspect_episode(episode).anomalies == (sentence,)


@pytest.mark.parametrize(
    ("change", "wrong"), [(lambda named: 0 * named, 99), (lambda named: named + 400, 99)]
)
def test_key_frames_of_the_imu_that_do_not_fit_the_clock_are_told(episode, change, wrong):
    with h5py.File(episode / "annotation.hdf5") as file:
        named = file["imu/keyframe_indices"][()]
    replace(episode, "imu/keyframe_indices", change(named))
    sentence = (
        f"imu/keyframe_indices does not fit the clock at {wrong} of 100 frames: "
        "the nearest sample by time is taken instead"
    )
    assert inspect_episode(episode).anomalies == (sentence,)


def test_an_array_that_nobody_knows_is_told_and_does_not_stop_the_rest(episode):
    replace(episode, "hand_mocap/left_mano_hand_betas", np.ones((100, 16)))
    sentence = "hand_mocap/left_mano_hand_betas has an unknown shape and cannot be read"
    assert inspect_episode(episode).anomalies == (sentence,)


def test_captions_that_name_frames_by_place_are_told(episode):
    actions = [
        {"label": "Lift", "start_frame": "20", "end_frame": 1},
        {"label": "Pour", "start_frame": 21, "end_frame": "frame_0000101"},
    ]
    document = {
        "segments": [
            {"start_frame": 1, "end_frame": 100, "Sub Task": "Work", "Current Action": actions},
            {"Current Action": None, "objects": None},
        ]
    }
    replace(episode, "caption", np.bytes_(json.dumps(document)))
    assert inspect_episode(episode).anomalies == (
        "objects not available: no frame is labelled",
        "caption segments that name no frame of this episode: 1 of 2",
        "the two published rules for captions disagree in 80 % of frames: the new one is used",
    )


@pytest.mark.parametrize("place", ["captions", "caption.json"])
def test_a_caption_that_lies_elsewhere_is_read_and_told(episode, place):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        text = file["caption"][()]
        del file["caption"]
        file["captions"] = text if place == "captions" else place
    (episode / "caption.json").write_bytes(text)
    found = inspect_episode(episode)
    assert found.anomalies == (f"the caption is not in the dataset 'caption' but in {place!r}",)
    assert found.modalities["action"] == 1.0


def test_a_caption_that_is_not_utf8_throughout_is_read_and_told(episode):
    with h5py.File(episode / "annotation.hdf5", "r+") as file:
        text = file["caption"][()]
        del file["caption"]
        file["caption"] = np.bytes_(text.replace(b"The person", b"The p\xffrson"))
    found = inspect_episode(episode)
    assert found.anomalies == ("the caption holds bytes that are not UTF-8: they are read as \ufffd",)
    assert found.modalities["action"] == 1.0


def test_exchanged_fisheye_videos_cannot_be_told_from_the_files(episode):
    first, third, aside = (episode / f"{name}.mp4" for name in ("fisheye_cam0", "fisheye_cam2", "aside"))
    first.rename(aside)
    third.rename(first)
    aside.rename(third)
    assert inspect_episode(episode).anomalies == ()
