"""Leaks between splits are found in content, whatever episodes are called."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from handmade import STAMPS_NS

from omni_mlflow.spine.fingerprints import (
    LEAK_RULES,
    Fingerprint,
    find_leaks,
    fingerprint_episode,
)
from omni_mlflow.spine.types import Episode, Split

CLOCK_NS = (1_000, 2_000)


def an_episode(name, split, *, session=None):
    return Episode(
        episode_id=name,
        session_id=name if session is None else session,
        path=name,
        split=split,
        num_frames=8,
        fps=20,
        bytes_by_file={},
    )


def a_fingerprint(name, **changes):
    """Of an episode that has nothing in common with any other name."""
    facts = {
        "files": {"annotation.hdf5": f"file of {name}"},
        "datasets": {"imu/accel_xyz": f"array of {name}"},
        "device_id": f"device of {name}",
        "device_clock_ns": CLOCK_NS,
    }
    return Fingerprint(**{**facts, **changes})


@pytest.fixture
def leaks_between():
    """Leaks of a train episode and a test episode whose fingerprints have these changes."""

    def find(changes=(), other_changes=(), *, split=Split.TEST):
        episodes = [an_episode("a", Split.TRAIN), an_episode("b", split)]
        fingerprints = {
            "a": a_fingerprint("a", **dict(changes)),
            "b": a_fingerprint("b", **dict(other_changes)),
        }
        return find_leaks(episodes, fingerprints)

    return find


def test_clean_episodes_have_no_leak():
    names = [f"episode_{number}" for number in range(60)]
    episodes = [an_episode(name, list(Split)[number % 3]) for number, name in enumerate(names)]
    assert find_leaks(episodes, {name: a_fingerprint(name) for name in names}) == []


def test_a_session_in_two_splits_is_a_leak():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", Split.VAL, session="s")]
    (leak,) = find_leaks(episodes, {name: a_fingerprint(name) for name in "ab"})
    assert (leak.rule, leak.layer) == ("session_disjoint", "identity")
    assert (leak.first, leak.first_split, leak.second, leak.second_split) == (
        "a",
        Split.TRAIN,
        "b",
        Split.VAL,
    )
    assert leak.evidence == "both belong to session s"


def test_a_device_at_the_same_moment_in_two_splits_is_a_leak(leaks_between):
    device = {"device_id": "7211577584"}
    (leak,) = leaks_between(device, {**device, "device_clock_ns": (2_000, 3_000)})
    assert leak.rule == "device_clock_disjoint"
    assert leak.evidence == "device 7211577584 recorded both at (1000, 2000) and (2000, 3000) ns"
    assert leaks_between(device, {**device, "device_clock_ns": (2_001, 3_000)}) == []


def test_a_clock_that_started_again_is_no_leak_where_the_host_knows_that_the_times_are_apart(leaks_between):
    device = {"device_id": "7211577584"}
    monday, tuesday = {"recorded_ns": (10**18, 10**18 + 5)}, {"recorded_ns": (10**18 + 9, 10**18 + 12)}
    assert leaks_between({**device, **monday}, {**device, **tuesday}) == []
    assert len(leaks_between({**device, **monday}, {**device, **monday})) == 1
    assert len(leaks_between({**device, **monday}, device)) == 1


def test_the_same_file_or_array_in_two_splits_is_one_leak_that_lists_them(leaks_between):
    (leak,) = leaks_between(
        {"files": {"fisheye_cam0.mp4": "x"}, "datasets": {"slam/quat_wxyz": "y", "imu/gyro_xyz": "p"}},
        {"files": {"fisheye_cam2.mp4": "x"}, "datasets": {"slam/quat_wxyz": "y", "imu/gyro_xyz": "q"}},
    )
    assert (leak.rule, leak.layer) == ("content_disjoint", "bytes")
    assert leak.evidence == "same content: fisheye_cam0.mp4 = fisheye_cam2.mp4, slam/quat_wxyz"


def test_what_one_split_shares_with_itself_is_no_leak(leaks_between):
    same = {"device_id": "d", "files": {"annotation.hdf5": "x"}}
    assert leaks_between(same, same, split=Split.TRAIN) == []


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [({"device_id": None}, "device id"), ({"device_clock_ns": None}, "device clock")],
)
def test_an_unknown_identity_is_a_failure(leaks_between, changes, unknown):
    (leak,) = leaks_between(changes)
    assert (leak.rule, leak.first, leak.second) == ("identity_known", "a", None)
    assert leak.evidence.startswith(f"unknown {unknown}:")


def test_an_episode_without_session_or_fingerprint_is_a_failure():
    (leak,) = find_leaks([an_episode("a", Split.TEST, session=" ")], {})
    assert leak.evidence.startswith("unknown session, fingerprint, device id, device clock:")


def test_an_episode_in_no_split_is_not_compared():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", None, session="s")]
    assert find_leaks(episodes, {name: a_fingerprint(name) for name in "ab"}) == []


def test_a_contract_may_name_fewer_rules():
    episodes = [an_episode("a", Split.TRAIN, session="s"), an_episode("b", Split.VAL, session="s")]
    fingerprints = {name: a_fingerprint(name) for name in "ab"}
    assert find_leaks(episodes, fingerprints, rules=["content_disjoint"]) == []
    assert set(LEAK_RULES) == {"session_disjoint", "device_clock_disjoint", "content_disjoint"}


def test_the_order_of_the_episodes_changes_nothing():
    episodes = [an_episode(name, split, session="s") for name, split in zip("abc", Split, strict=True)]
    fingerprints = {name: a_fingerprint(name, datasets={"slam/quat_wxyz": "y"}) for name in "abc"}
    leaks = find_leaks(episodes, fingerprints)
    assert len(leaks) == 6
    assert find_leaks(episodes[::-1], fingerprints) == leaks


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


def leaks_of(first, second):
    episodes = [an_episode("first", Split.TRAIN), an_episode("second", Split.TEST)]
    prints = {"first": fingerprint_episode(first), "second": fingerprint_episode(second)}
    return find_leaks(episodes, prints)


def test_two_recordings_share_nothing(two_recordings):
    assert leaks_of(*two_recordings) == []


def test_a_renamed_copy_is_found_by_its_bytes_and_its_clock(two_recordings, tmp_path):
    first, _ = two_recordings
    shutil.copytree(first, tmp_path / "renamed" / "ep7")
    leaks = leaks_of(first, tmp_path / "renamed" / "ep7")
    assert [leak.rule for leak in leaks] == ["device_clock_disjoint", "content_disjoint"]
    assert "annotation.hdf5" in leaks[1].evidence
    assert "stereo_right.mp4" in leaks[1].evidence


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
def test_an_array_copied_into_another_file_is_found_whatever_is_written_around_it(two_recordings, name):
    first, second = two_recordings
    with h5py.File(first / "annotation.hdf5") as source, h5py.File(second / "annotation.hdf5", "a") as target:
        stolen = source[name][()]
        del target[name]
        copy = target.create_dataset(name, data=stolen, compression="gzip", chunks=True)
        copy.attrs["origin"] = "somewhere else"
    (leak,) = leaks_of(first, second)
    assert leak.evidence == f"same content: {name}"


def test_one_copied_video_is_found(two_recordings):
    first, second = two_recordings
    shutil.copy(first / "stereo_left.mp4", second / "fisheye_cam1.mp4")
    (leak,) = leaks_of(first, second)
    assert leak.evidence == "same content: stereo_left.mp4 = fisheye_cam1.mp4"


def test_constant_arrays_identify_nothing(make_episode):
    assert set(fingerprint_episode(make_episode()).datasets) == {
        "slam/frame_names",
        "slam/point_cloud",
        "imu/device_timestamp_ns",
        "video/device_timestamp",
    }


def test_a_digest_changes_with_every_byte_and_not_with_the_place(two_recordings, tmp_path):
    first, second = two_recordings
    shutil.copytree(first, tmp_path / "moved")
    assert fingerprint_episode(tmp_path / "moved").digest == fingerprint_episode(first).digest
    assert fingerprint_episode(second).digest != fingerprint_episode(first).digest


def test_the_time_of_a_recording_comes_from_its_health_report(make_episode, real_sample):
    assert fingerprint_episode(real_sample).recorded_ns == (1770984599869762796, 1770984946929664462)
    report = {"recordings": [{"wav_mjpeg_overlap": {}}]}
    folder = make_episode(changes={"metadata/health_report": json.dumps(report)})
    assert fingerprint_episode(folder).recorded_ns is None
