"""Damaged annotations from ``select`` to ``index``: none takes the run down, none leaves the counts."""

from __future__ import annotations

import json
import shutil

import h5py
import pytest

from tests.conftest import Place
from tests.damaged_rows import spoil_rows

pytestmark = pytest.mark.slow

NUM_SESSIONS = 6
REJECTED = {
    "map": "slam/point_cloud cannot be read as HDF5",
    "accelerations": "imu/accel_xyz declares the size (1000000000000, 3), no recording has M above",
}
"""Sessions that are added to the clean ones, each with one damage, and why it is rejected."""


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, episodes, blank_store):
    """Six sessions, two of them damaged, and two that nobody can read: selected, split, guarded, indexed.

    Returns the place and the ids of the episodes without frame names and with damage inside depth.
    """
    root = tmp_path_factory.mktemp("damaged")
    shutil.copy(blank_store, root)
    data_root = root / "episodes"
    shutil.copytree(episodes, data_root)
    unnamed, torn, *others = sorted(path.parent for path in data_root.glob("*/*/annotation.hdf5"))
    for session, source in zip(REJECTED, others, strict=False):
        shutil.copytree(source, data_root / session / "ep1")
    with h5py.File(unnamed / "annotation.hdf5", "a") as file:
        file["slam/frame_names"][:] = b""
    with h5py.File(torn / "annotation.hdf5", "a") as file:
        spoil_rows(file, "depth/depth", [45])  # of 100; select looks at the first, the middle and the last
    with h5py.File(data_root / "map/ep1/annotation.hdf5", "a") as file:
        spoil_rows(file, "slam/point_cloud", [0])
    with h5py.File(data_root / "accelerations/ep1/annotation.hdf5", "a") as file:
        del file["imu/accel_xyz"]
        file.create_dataset("imu/accel_xyz", (10**12, 3), "f8", chunks=(1024, 3))
    place = Place(root, data_root)
    for stage in ("select", "split", "guard", "index"):
        done = place.run(stage)
        assert done.returncode == 0, done.stderr
    return place, *(f"{folder.parent.name}__{folder.name}" for folder in (unnamed, torn))


def skips(place, stage):
    lines = (place.workspace / stage / "skipped_episodes.jsonl").read_text().splitlines()
    return {skip["subject"]: skip["reason"] for skip in map(json.loads, lines)}


def test_what_is_found_is_selected_or_rejected_and_what_is_selected_is_indexed_or_skipped(indexed):
    place, *_ = indexed
    select, index = place.json("select/seal.json"), place.json("index/seal.json")
    assert (select["taken"], select["made"], select["skipped"]) == (NUM_SESSIONS + 2, NUM_SESSIONS, 2)
    assert (index["taken"], index["made"], index["skipped"]) == (NUM_SESSIONS, NUM_SESSIONS - 1, 1)


@pytest.mark.parametrize("session", REJECTED)
def test_what_later_stages_could_not_read_is_rejected_by_name(indexed, session):
    place, *_ = indexed
    assert set(skips(place, "select")) == {f"{each}__ep1" for each in REJECTED}
    assert REJECTED[session] in skips(place, "select")[f"{session}__ep1"]


def test_an_episode_without_frame_names_keeps_its_labels_into_the_index(indexed):
    place, unnamed, _ = indexed
    rows = map(json.loads, (place.workspace / "index/window_index.jsonl").read_text().splitlines())
    labels = [row["supervision"]["action"] for row in rows if row["episode_id"] == unnamed]
    assert len(labels) == 9  # of 20 frames at every tenth of 100
    assert all(labels)


def test_damage_inside_depth_that_only_index_meets_is_a_skip_with_its_reason(indexed):
    place, _, torn = indexed
    assert list(skips(place, "index")) == [torn]
    assert "depth/depth cannot be read as HDF5" in skips(place, "index")[torn]
