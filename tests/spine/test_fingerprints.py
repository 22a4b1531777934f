"""What an episode is, whatever it is called; and no file is read twice."""

from __future__ import annotations

import json
import os
import shutil

import h5py
import numpy as np
import pytest
from handmade import STAMPS_NS

from omni_mlflow.spine.fingerprints import FingerprintStore, fingerprint_episode, known_fingerprint
from omni_mlflow.spine.leaks import LEAK_RULES, find_leaks
from omni_mlflow.spine.types import Episode, Split


def an_episode(name, split):
    return Episode(
        episode_id=name, session_id=name, path=name, split=split, num_frames=8, fps=20, bytes_by_file={}
    )


def noisy(seed):
    """Arrays that differ between recordings, as a sensor's do."""
    noise = np.random.default_rng(seed)
    return {
        "imu/accel_xyz": noise.normal(size=(71, 3)),
        "imu/gyro_xyz": noise.normal(size=(71, 3)),
        "slam/quat_wxyz": noise.normal(size=(8, 4)),
        "slam/trans_xyz": noise.normal(size=(8, 3)),
        "metadata/device_id": f"device_{seed}",
    }


@pytest.fixture
def two_recordings(make_episode):
    first = make_episode("kitchen", "ep1", noisy(1), seed=1)
    shifted = np.array(STAMPS_NS) + 7_000_000_000
    clock = {
        "video/device_timestamp": np.array([str(stamp) for stamp in shifted], dtype="S14"),
        "slam/frame_names": np.array([f"{stamp}.jpg" for stamp in shifted], dtype="S18"),
        "imu/device_timestamp_ns": np.arange(71) * 5e6 + float(shifted[0]),
        "slam/point_cloud": np.arange(15.0).reshape(5, 3) + 1,
        "caption": "{}",
    }
    return first, make_episode("garage", "ep1", {**noisy(2), **clock}, seed=9)


@pytest.fixture
def store(tmp_path):
    return FingerprintStore(tmp_path / "fingerprints", code="this code")


@pytest.fixture
def fingerprint_of(store):
    return lambda folder: fingerprint_episode(folder, store)


@pytest.fixture
def leaks_of(fingerprint_of):
    def find(first, second):
        episodes = [an_episode("first", Split.TRAIN), an_episode("second", Split.TEST)]
        prints = {"first": fingerprint_of(first), "second": fingerprint_of(second)}
        edges = find_leaks(episodes, prints, blocking=LEAK_RULES).edges
        return [edge for edge in edges if edge.layer in ("identity", "bytes")]

    return find


def test_two_recordings_share_nothing(two_recordings, leaks_of):
    assert leaks_of(*two_recordings) == []


def test_a_renamed_copy_is_found_by_its_bytes_and_its_clock(two_recordings, tmp_path, leaks_of):
    first, _ = two_recordings
    shutil.copytree(first, tmp_path / "renamed" / "ep7")
    leaks = leaks_of(first, tmp_path / "renamed" / "ep7")
    assert [leak.rule for leak in leaks] == ["device_clock_disjoint", "content_disjoint"]
    assert "annotation.hdf5" in leaks[1].evidence
    assert "fisheye_cam0.mp4" in leaks[1].evidence


@pytest.mark.parametrize(
    "name",
    [
        "slam/quat_wxyz",
        "slam/trans_xyz",
        "slam/frame_names",
        "slam/point_cloud",
        "imu/device_timestamp_ns",
        "imu/accel_xyz",
        "imu/gyro_xyz",
        "video/device_timestamp",
    ],
)
def test_an_array_copied_into_another_file_is_found_whatever_is_written_around_it(
    two_recordings, name, leaks_of
):
    first, second = two_recordings
    with h5py.File(first / "annotation.hdf5") as source, h5py.File(second / "annotation.hdf5", "a") as target:
        stolen = source[name][()]
        del target[name]
        copy = target.create_dataset(name, data=stolen, compression="gzip", chunks=True)
        copy.attrs["origin"] = "somewhere else"
    (leak,) = leaks_of(first, second)
    assert leak.evidence == f"same content: {name}"


def test_one_copied_video_is_found(two_recordings, leaks_of):
    first, second = two_recordings
    shutil.copy(first / "fisheye_cam0.mp4", second / "fisheye_cam1.mp4")
    (leak,) = leaks_of(first, second)
    assert leak.evidence == "same content: fisheye_cam0.mp4 = fisheye_cam1.mp4"


def test_a_silent_video_without_contrast_is_no_copy_of_another_one(two_recordings, leaks_of, fingerprint_of):
    first, second = two_recordings
    assert "fisheye_cam0.mp4" not in fingerprint_of(first).blank, "it has a sound"
    covered = first / "stereo_left.mp4"
    shutil.copy(covered, second / "fisheye_cam1.mp4")
    assert leaks_of(first, second) == []
    covered.write_bytes(b"no video at all")
    shutil.copy(covered, second / "fisheye_cam1.mp4")
    (leak,) = leaks_of(first, second)
    assert leak.evidence == "same content: stereo_left.mp4 = fisheye_cam1.mp4"


def test_constant_arrays_identify_nothing(make_episode, fingerprint_of):
    assert set(fingerprint_of(make_episode()).datasets) == {
        "slam/frame_names",
        "slam/point_cloud",
        "imu/device_timestamp_ns",
        "video/device_timestamp",
    }


def test_a_digest_changes_with_every_byte_and_not_with_the_place(two_recordings, tmp_path, fingerprint_of):
    first, second = two_recordings
    shutil.copytree(first, tmp_path / "moved")
    assert fingerprint_of(tmp_path / "moved").digest == fingerprint_of(first).digest
    assert fingerprint_of(second).digest != fingerprint_of(first).digest


def test_the_time_of_a_recording_comes_from_its_health_report(make_episode, real_sample, fingerprint_of):
    assert fingerprint_of(real_sample).recorded_ns == (1770984599869762796, 1770984946929664462)
    report = {"recordings": [{"wav_mjpeg_overlap": {}}]}
    folder = make_episode(changes={"metadata/health_report": json.dumps(report)})
    assert fingerprint_of(folder).recorded_ns is None


def test_a_file_is_read_once_and_again_when_its_size_or_time_or_the_code_changes(make_episode, store):
    folder = make_episode()
    assert known_fingerprint(folder, store) is None
    found = fingerprint_episode(folder, store)
    again = known_fingerprint(folder, store)
    assert again.model_dump(mode="json") == found.model_dump(mode="json")
    other_code = FingerprintStore(store.folder, code="other code")
    assert known_fingerprint(folder, other_code) is None
    os.utime(folder / "stereo_left.mp4", ns=(1, 1))
    assert known_fingerprint(folder, store) is None
    assert fingerprint_episode(folder, store).files == found.files
    (folder / "stereo_left.mp4").write_bytes(b"another file")
    assert fingerprint_episode(folder, store).files != found.files


def test_a_file_that_changed_behind_its_size_and_time_is_found_when_every_byte_is_read_again(
    make_episode, store
):
    folder = make_episode()
    path = folder / "stereo_left.mp4"
    before, times = fingerprint_episode(folder, store), path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times, times))
    assert known_fingerprint(folder, store).files == before.files
    anew = fingerprint_episode(folder, store, anew=True)
    assert anew.changed_files == ("stereo_left.mp4",)
    assert anew.files["stereo_left.mp4"] != before.files["stereo_left.mp4"]
    assert fingerprint_episode(folder, store, anew=True).changed_files == ()


def test_a_store_that_was_damaged_is_mended_by_reading_the_file_again(make_episode, store):
    folder = make_episode()
    found = fingerprint_episode(folder, store)
    for document in store.folder.iterdir():
        document.write_text("{")
    assert known_fingerprint(folder, store) is None
    assert fingerprint_episode(folder, store).files == found.files


def test_a_video_that_cannot_be_decoded_is_digested_and_abstains(make_episode, store):
    folder = make_episode()
    (folder / "stereo_left.mp4").write_bytes(b"no video")
    found = fingerprint_episode(folder, store)
    assert len(found.files["stereo_left.mp4"]) == 64
    assert "stereo_left" not in found.key_frames
    assert list(found.unreadable) == ["stereo_left.mp4"]
