"""A copied array is found by its numbers, whole or cut; what recordings may share by right is no copy."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from omni_mlflow.spine.annotation import AnnotationFile
from omni_mlflow.spine.contents import RECORDED_ARRAYS, array_digests, row_sketches
from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.layout import DATASETS
from omni_mlflow.spine.leaks import LEAK_RULES, find_leaks
from omni_mlflow.spine.types import Episode, Split

SIZES = {"N": 40, "M": 400, "P": 50, "H": 4, "W": 4}


def recorded(seed):
    """All arrays of a recording, as noise."""
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(SIZES.get(size, size) for size in each.shape) for name, each in DATASETS.items()}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items() if shape}
    for name, ending in (("video/device_timestamp", ""), ("slam/frame_names", ".jpg")):
        arrays[name] = np.array(
            [f"{10**13 * seed + 5 * frame}{ending}" for frame in range(SIZES["N"])], "S18"
        )
    return arrays


@pytest.fixture
def fingerprint_of(tmp_path):
    def read(arrays):
        path = tmp_path / "annotation.hdf5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        with AnnotationFile(path) as annotation:
            return Fingerprint(
                files={},
                datasets=array_digests(annotation),
                rows=row_sketches(annotation),
                device_id="d",
                device_clock_ns=None,
            )

    return read


@pytest.fixture
def shared(fingerprint_of):
    """What the rule about bytes says two recordings have in common."""

    def find(one, other):
        prints = {"a": fingerprint_of(one), "b": fingerprint_of(other)}
        episodes = [
            Episode(
                episode_id=name,
                session_id=name,
                path=name,
                split=split,
                num_frames=1,
                fps=20,
                bytes_by_file={},
            )
            for name, split in zip("ab", (Split.TRAIN, Split.TEST), strict=True)
        ]
        edges = find_leaks(episodes, prints, blocking=LEAK_RULES).edges
        return [edge.evidence for edge in edges if edge.layer == "bytes"]

    return find


def test_28_of_the_65_datasets_are_digested_and_the_others_are_shared_by_right_or_single_values():
    others = set(DATASETS) - set(RECORDED_ARRAYS)
    assert (len(RECORDED_ARRAYS), len(others)) == (28, 37)
    arrays = {name for name in others if DATASETS[name].shape and not name.startswith("calibration/")}
    assert arrays == {"full_body_mocap/frame_nums", "video/frame_number", "imu/keyframe_indices"}


@pytest.mark.parametrize("name", RECORDED_ARRAYS)
def test_each_of_them_is_found_when_it_was_copied(shared, name):
    copied = recorded(2) | {name: recorded(1)[name]}
    assert shared(recorded(1), copied) == [f"same content: {name}"]


def test_depth_hands_and_body_of_another_recording_are_one_leak_and_a_shared_calibration_is_none(shared):
    groups = ("depth/", "hand_mocap/", "full_body_mocap/", "calibration/")
    copied = recorded(2) | {name: each for name, each in recorded(1).items() if name.startswith(groups)}
    [evidence] = shared(recorded(1), copied)
    found = evidence.removeprefix("same content: ").split(", ")
    assert found == sorted(name for name in RECORDED_ARRAYS if name.startswith(groups))
    rig = {name: each for name, each in recorded(1).items() if name.startswith("calibration/")}
    assert shared(recorded(1), recorded(2) | rig) == []


def test_two_recordings_share_nothing(shared):
    assert shared(recorded(1), recorded(2)) == []


@pytest.mark.parametrize("name", ["hand_mocap/left_joints_3d", "full_body_mocap/keypoints"])
def test_a_copy_that_lacks_the_head_of_its_source_is_found_by_its_rows(shared, name):
    copied = recorded(2) | {name: recorded(1)[name][15:]}
    assert shared(recorded(1), copied) == [f"same content: {name} (25 of 64 remembered parts)"]


def test_a_third_of_a_long_recording_is_found_wherever_it_was_cut(shared):
    name, rows = "hand_mocap/right_mano_hand_pose", np.random.default_rng(5).normal(size=(3000, 135))
    [evidence] = shared(recorded(1) | {name: rows}, recorded(2) | {name: rows[1700:2700]})
    assert evidence.startswith(f"same content: {name} (")


@pytest.mark.parametrize("nothing", [0.0, np.nan, 7.0])
def test_hands_that_nobody_saw_are_no_copies_of_each_other(shared, nothing):
    unseen = {
        name: np.full_like(each, nothing)
        for name, each in recorded(1).items()
        if name.startswith("hand_mocap/")
    }
    assert shared(recorded(1) | unseen, recorded(2) | unseen) == []


def test_two_poses_of_rest_that_alternate_are_a_code_and_no_content(shared):
    name = "full_body_mocap/left_hand_quats"
    rest = {name: recorded(1)[name][[0, 1] * (SIZES["N"] // 2)]}
    assert shared(recorded(1) | rest, recorded(2) | rest) == []


def test_texts_are_the_same_whether_stored_with_a_fixed_or_a_variable_length(shared):
    name = "video/device_timestamp"
    texts = [text.decode() for text in recorded(1)[name]]
    assert shared(recorded(1), recorded(2) | {name: texts}) == [f"same content: {name}"]
