"""The table of datasets against a real recording and a synthetic one."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from handmade import NUM_FRAMES, annotation

from omni_mlflow.spine.annotation import UnreadableEpisodeError
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.features import window_features
from omni_mlflow.spine.layout import DATASETS, FRAME_ARRAYS
from omni_mlflow.spine.synthetic.annotation import write_annotation as write_synthetic
from omni_mlflow.spine.synthetic.world import make_session
from omni_mlflow.spine.types import Span

TEXTS = {
    name for name, dataset in DATASETS.items() if dataset.content.startswith("text") and not dataset.shape
}


def check(episode, sizes):
    """Every dataset is read through the episode's file, in the documented shape."""
    for name, dataset in DATASETS.items():
        expected = tuple(sizes.get(size, size) for size in dataset.shape)
        assert episode.annotation.shape(name) == expected, name
        if name in TEXTS:
            assert episode.annotation.text(name) is not None, name
        elif not expected:
            assert episode.annotation.number(name) is not None, name
        else:
            assert episode.annotation.array(name).shape == expected, name


def names_in(path):
    names = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return set(names)


def test_the_65_datasets_of_the_real_sample_are_all_known_and_read(real_sample):
    assert names_in(real_sample / "annotation.hdf5") == set(DATASETS)
    assert len(DATASETS) == 65
    with open_episode(real_sample) as episode:
        check(episode, {"N": 8, "M": 80, "P": 4089, "H": 256, "W": 256})
        assert set(episode.annotation.rows_by_array.values()) == {8}
        assert len(episode.annotation.rows_by_array) == len(FRAME_ARRAYS) - 1  # all but the IMU's key frames


def test_a_synthetic_annotation_is_known_and_read_as_well(tmp_path):
    write_synthetic(tmp_path / "annotation.hdf5", make_session(1, frames=60), invalid_body_share=0.25)
    assert names_in(tmp_path / "annotation.hdf5") == set(DATASETS)
    with open_episode(tmp_path) as episode:
        samples = len(episode.imu().timestamps_ns)
        check(episode, {"N": 60, "M": samples, "P": 47, "H": 32, "W": 32})


def test_what_has_numbers_has_a_unit_and_what_has_a_place_has_a_frame_of_reference():
    for name, dataset in DATASETS.items():
        if name.split("/")[0] in ("slam", "hand_mocap", "full_body_mocap", "imu") and dataset.unit == "m":
            assert dataset.frame, name
    assert DATASETS["depth/depth"].unit == "m"
    assert DATASETS["imu/accel_xyz"].unit == "m/s^2"


@pytest.mark.parametrize(
    "name", ["hand_mocap/left_mano_hand_pose", "video/frame_number", "full_body_mocap/betas"]
)
def test_any_array_with_a_row_per_frame_limits_the_number_of_frames(write_annotation, name):
    shape = tuple(NUM_FRAMES - 2 if size == "N" else size for size in DATASETS[name].shape)
    with open_episode(write_annotation({name: np.ones(shape)})) as episode:
        assert episode.num_frames == NUM_FRAMES - 2


def test_too_few_key_frames_of_the_imu_or_an_array_without_a_row_do_not_limit_it(write_annotation):
    changes = {"imu/keyframe_indices": np.arange(2), "depth/depth": np.zeros((0, 4, 4), dtype=np.float32)}
    with open_episode(write_annotation(changes)) as episode:
        assert episode.num_frames == NUM_FRAMES
        assert episode.missing() == {"depth": "annotation lacks depth/depth"}


def test_an_unknown_shape_of_an_array_that_is_not_asked_for_does_no_harm(write_annotation):
    with open_episode(write_annotation({"full_body_mocap/betas": np.ones((8, 10))})) as episode:
        assert episode.missing() == {}
        with pytest.raises(UnreadableEpisodeError, match=r"betas has the unknown shape \(8, 10\); leave"):
            episode.mocap("full_body_mocap/betas")


def test_the_axis_in_front_is_left_out_of_every_array_and_rows_stay_rows(write_annotation):
    metres = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((8, 4, 4), dtype=np.float32)
    changes = {
        "depth/depth": metres[None],
        "depth/confidence": np.full((1, 8, 4, 4), 255, dtype=np.uint8),
        "slam/quat_wxyz": np.tile([1.0, 0, 0, 0], (1, 8, 1)),
        "hand_mocap/left_translation": np.ones((1, 8, 3), dtype=np.float32),
    }
    with open_episode(write_annotation(changes)) as episode:
        assert episode.num_frames == 8
        assert episode.depth_rows(3, 5).metres[:, 0, 0].tolist() == [3.0, 4.0]
        assert episode.camera_to_world()[1].all()
        assert episode.mocap("hand_mocap/left_translation")[0].shape == (8, 3)
        assert episode.annotation.array("depth/depth", slice(2, 3)).shape == (1, 4, 4)


def test_an_episode_of_one_frame_is_not_taken_for_an_axis_in_front(write_annotation):
    with open_episode(write_annotation(num_frames=1)) as episode:
        assert episode.num_frames == 1
        assert episode.body()[0].shape == (1, 52, 3)
        assert episode.hands()[1].tolist() == [[True], [True]]
        assert episode.fps == 20.0
        assert episode.captions().action == ("Brush block",)
        assert episode.imu().keyframes.tolist() == [0]
        assert episode.missing() == {}


@pytest.mark.parametrize("held", ["text", "pairs", "nan", "two axes more", "a group"])
@pytest.mark.parametrize(
    "group", ["slam", "depth", "hand_mocap", "full_body_mocap", "imu", "video", "metadata"]
)
def test_whatever_a_dataset_holds_the_episode_is_read_or_refused_by_its_name(write_annotation, group, held):
    """Only that error may leave the reader: it is what turns an episode into a skip."""
    for name in (name for name in annotation() if name.startswith(group)):
        shape = np.shape(annotation()[name])
        folder = write_annotation({name: None})
        with h5py.File(folder / "annotation.hdf5", "a") as file:
            file[name] = {
                "text": np.full(shape, b"abc", dtype="S3"),
                "pairs": np.zeros(shape, dtype=[("x", "f8"), ("y", "i4")]),
                "nan": np.full(shape, np.nan),
                "two axes more": np.zeros((1, 1, *shape)),
                "a group": h5py.SoftLink("/"),
            }[held]
        try:
            with open_episode(folder) as episode:
                window_features(episode, [Span(start=0, stop=4)])
                assert 0 <= min(episode.coverage().values()) <= 1
                assert len(episode.frame_names) == episode.num_frames == NUM_FRAMES
                episode.point_cloud()
        except UnreadableEpisodeError as problem:
            assert name in problem.reason  # noqa: PT017


def test_an_annotation_with_changed_bytes_is_read_or_refused(write_annotation):
    file = write_annotation() / "annotation.hdf5"
    intact = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        damaged = bytearray(intact)
        for place in rng.integers(0, 4096, 64):  # where HDF5 keeps its own tables
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            with open_episode(file.parent) as episode:
                episode.coverage()
        except UnreadableEpisodeError:
            refused += 1
    assert refused > 0
