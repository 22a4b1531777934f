"""What the stages could not look at is told, and a green result is no proof of it."""

from __future__ import annotations

import shutil

import h5py
import pytest

from omni_mlflow.spine.synthetic import write_episode_set
from omni_mlflow.spine.synthetic.video_edits import short_video
from omni_mlflow.stage_report import RulesBrokenError
from tests.conftest import TRIVIAL, Place
from tests.damaged_rows import spoil_rows
from tests.lost_sound import lose_sound
from tests.workbench import Workbench


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Workbench:
    """Six recordings of 3 seconds: one lacks the last 5 of 60 pictures of a camera, one a second of sound."""
    root = tmp_path_factory.mktemp("shortfalls")
    synthesis = write_episode_set(root / "data", sessions=6, frames=60, seed=11, anomalies="none", workers=1)
    short_video(root / "data" / synthesis.episodes[0].path)
    lose_sound(
        root / "data" / synthesis.episodes[1].path / "fisheye_cam0.mp4", lambda start_s: 1 <= start_s < 2
    )
    bench = Workbench(Place(root, root / "data"), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRIVIAL))
        for stage in ("select", "split", "guard"):
            bench.run(stage)
    return bench


def test_a_rule_that_compared_no_pair_of_a_green_split_is_named_everywhere(guarded):
    """Recordings of 3 seconds share no 5 seconds of motion or sound, whatever they hold."""
    metrics = guarded.place.json("guard/seal.json")["metrics"]
    assert metrics["checks/leaks"] == 0
    assert metrics["checks/pairs_not_compared"] == 2 * 11  # of 3 x 2 + 3 x 1 + 2 x 1, twice
    page = (guarded.place.workspace / "guard/leak_graph.html").read_text()
    for sentence in ("motion_disjoint compared 0 of 11 pairs", "sound_disjoint compared 0 of 11 pairs"):
        assert any(said.startswith(f"guard: {sentence}") for said in guarded.said)
        assert sentence in page.partition("</h1>")[0]


def test_the_index_counts_the_pictures_that_it_had_to_repeat_and_the_seconds_without_sound(
    guarded, monkeypatch
):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    index = guarded.run("index")
    manifest = guarded.place.json("index/window_index_manifest.json")
    grid = range(0, 60, manifest["plan"]["frame_grid"])
    repeated = len([frame for frame in grid if frame >= 55])
    assert repeated > 0
    assert manifest["num_repeated_frames"] == repeated
    assert manifest["repeated_frames"] == {"fisheye_cam3": repeated}
    [deaf] = [
        each
        for each in guarded.place.json("guard/episode_manifest.json")["episodes"]
        if each["coverage"]["audio"] < 0.9
    ]
    assert deaf["coverage"]["audio"] == pytest.approx(2 / 3, abs=0.03)
    assert manifest["silence_s"] == {deaf["episode_id"]: pytest.approx(1, abs=0.1)}
    assert (index.seal.taken, index.seal.made, index.seal.skipped) == (6, 6, 0)
    assert "omni.splits_without_windows" not in index.seal.tags
    assert not any("is left" in said for said in guarded.said)


@pytest.mark.slow
def test_a_split_that_lost_its_last_episode_is_told_once_and_tagged(guarded, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TRIVIAL))
    shutil.copytree(guarded.place.data_root, tmp_path / "data")
    [val] = [
        each["path"]
        for each in guarded.place.json("guard/episode_manifest.json")["episodes"]
        if each["split"] == "val"
    ]
    with h5py.File(tmp_path / "data" / val / "annotation.hdf5", "a") as file:
        spoil_rows(file, "depth/depth", [25])  # a frame that only the features of windows look at
    bench = Workbench(Place(tmp_path, tmp_path / "data"), [])
    for stage in ("select", "split", "guard"):
        bench.run(stage)
    index = bench.run("index")
    assert (index.seal.made, index.seal.skipped) == (5, 1)
    assert index.seal.metrics["rows/windows_val"] == 0
    assert index.seal.tags["omni.splits_without_windows"] == "val"
    [told] = [said for said in bench.said if said.startswith("index: no window of val is left: 1 of its 1 ")]
    assert "'export' refuses" in told
    with pytest.raises(RulesBrokenError, match=r"every_split_has_samples \(split val\)"):
        bench.run("export")
