"""What a list of files says about episodes."""

from __future__ import annotations

import json

import pytest

from omni_mlflow.spine.listing import EPISODE_FILES, ListingError, complete_episodes, read_listing
from omni_mlflow.spine.rows import BadRowError


@pytest.fixture
def listing(tmp_path):
    """Write files and sizes as a CSV listing."""

    def write(sizes: dict[str, int | str], *, header: str = "path,bytes") -> object:
        path = tmp_path / "listing.csv"
        path.write_text("\n".join([header, *(f"{file},{size}" for file, size in sizes.items())]) + "\n")
        return path

    return write


def files_of(folder: str) -> dict[str, int]:
    return {f"{folder}/{name}": 100 + place for place, name in enumerate(EPISODE_FILES)}


def test_a_listing_gives_the_sizes_of_an_episode(listing):
    (episode,) = read_listing(listing({"README.md": 5, **files_of("a/ep1"), "a/ep1/visualization.rrd": 900}))
    assert (episode.session, episode.name, episode.number, episode.path) == ("a", "ep1", 1, "a/ep1")
    assert (episode.annotation_bytes, episode.video_bytes) == (100, 101 + 102 + 103 + 104 + 105 + 106)
    assert (episode.training_bytes, episode.total_bytes) == (721, 1621)


def test_jsonl_as_the_hub_writes_it_is_the_same_listing(listing, tmp_path):
    rows = [{"type": "directory", "path": "a/ep1", "size": 0}]
    rows += [{"type": "file", "path": file, "size": size} for file, size in files_of("a/ep1").items()]
    path = tmp_path / "listing.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_listing(path) == read_listing(listing(files_of("a/ep1")))


def test_episodes_are_sorted_as_people_count(listing):
    files = {**files_of("b/ep10"), **files_of("b/ep2"), **files_of("a/ep3")}
    assert [each.path for each in read_listing(listing(files))] == ["a/ep3", "b/ep2", "b/ep10"]


def test_every_episode_is_complete_or_has_a_reason(listing):
    files = {**files_of("a/ep1"), **files_of("a/ep2"), **files_of("a/ep3"), **files_of("a/take_4")}
    del files["a/ep2/stereo_left.mp4"], files["a/ep2/annotation.hdf5"]
    files["a/ep3/fisheye_cam1.mp4"] = 0
    listed = read_listing(listing(files))
    complete, skips = complete_episodes(listed)
    assert [each.path for each in complete] == ["a/ep1"]
    assert {skip.subject: skip.reason for skip in skips} == {
        "a__ep2": "missing annotation.hdf5, stereo_left.mp4",
        "a__ep3": "empty fisheye_cam1.mp4",
        "a__take_4": "the folder of an episode is called ep<number>",
    }
    assert len(listed) == len(complete) + len(skips)


@pytest.mark.parametrize(
    ("file", "size", "words"),
    [
        ("a/ep1/annotation.hdf5", "1.5", r":2: a/ep1/annotation.hdf5 has size '1.5'"),
        ("a/ep1/annotation.hdf5", "-1", "is a whole number"),
        ("a/ep1/annotation.hdf5", "", "has size None"),
        ("../ep1/annotation.hdf5", "1", r":2: path '../ep1/annotation.hdf5' is no path below"),
        ("/ep1/annotation.hdf5", "1", "is no path below"),
    ],
)
def test_a_bad_row_is_named_by_line(listing, file, size, words):
    with pytest.raises(BadRowError, match=words):
        read_listing(listing({file: size}))


def test_a_file_that_is_listed_twice_is_named(tmp_path):
    path = tmp_path / "listing.csv"
    path.write_text("path,bytes\na/ep1/annotation.hdf5,1\na/ep1/annotation.hdf5,2\n")
    with pytest.raises(BadRowError, match=r":3: a/ep1/annotation\.hdf5 is listed twice"):
        read_listing(path)


def test_a_file_that_is_no_listing_says_what_it_should_be(listing, tmp_path):
    with pytest.raises(BadRowError, match="header of a listing names path and bytes"):
        read_listing(listing({"a/ep1/annotation.hdf5": 1}, header="file,length"))
    with pytest.raises(ListingError, match="lists no episode: no path <session>/ep<number>"):
        read_listing(listing({"README.md": 1}))
    with pytest.raises(ListingError, match="There is no listing at"):
        read_listing(tmp_path / "nowhere.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,bytes\nk\xfcche/ep1/annotation.hdf5,1\n")
    with pytest.raises(BadRowError, match="not UTF-8"):
        read_listing(tmp_path / "latin.csv")
