import shutil

import h5py
import pytest

from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.synthetic import Anomaly, Synthesis, SynthesisError, write_episode_set
from omni_mlflow.spine.synthetic.world import WARM_UP_SEEDS
from omni_mlflow.spine.types import CAMERAS


def write(out, *, sessions=2, frames=60, seed=3, anomalies="none", workers=1, on_episode=None):
    return write_episode_set(
        out,
        sessions=sessions,
        frames=frames,
        seed=seed,
        anomalies=anomalies,
        workers=workers,
        on_episode=on_episode,
    )


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair")
    return out, write(out)


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    out = tmp_path_factory.mktemp("spoiled")
    synthesis = write(out, sessions=4, anomalies="demo")
    return {episode.anomaly: out / episode.path for episode in synthesis.episodes}


def test_each_session_has_one_episode_of_seven_files_and_the_set_describes_itself(pair):
    out, synthesis = pair
    assert read_document(out / "synthesis.json", Synthesis) == synthesis
    assert len({episode.session_id for episode in synthesis.episodes}) == 2
    for episode in synthesis.episodes:
        assert {path.name for path in (out / episode.path).iterdir()} == {
            "annotation.hdf5",
            *(f"{camera}.mp4" for camera in CAMERAS),
        }


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(pair, tmp_path):
    out, _ = pair
    write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)
    other = write(tmp_path / "other", sessions=1, seed=4)
    assert contents(tmp_path / "other").keys().isdisjoint(contents(out).keys() - {"synthesis.json"})
    assert other.episodes[0].world_seed == 4000


def test_a_killed_run_goes_on_with_the_episodes_that_are_missing(pair, tmp_path):
    whole, synthesis = pair
    out = tmp_path / "killed"
    shutil.copytree(whole, out)
    first, second = synthesis.episodes
    shutil.rmtree(out / second.session_id)
    (out / f".{second.session_id}.1.partial" / "ep1").mkdir(parents=True)
    kept = (out / first.path / "annotation.hdf5").stat().st_mtime_ns
    told = []
    write(out, on_episode=told.append)
    assert contents(out) == contents(whole)
    assert (out / first.path / "annotation.hdf5").stat().st_mtime_ns == kept
    assert sorted(told) == sorted([first.path, second.path])


def test_a_folder_that_holds_another_set_is_refused_with_what_to_do(pair):
    out, _ = pair
    with pytest.raises(SynthesisError, match=r"sessions=2, frames=60, seed=3.*choose another folder"):
        write(out, frames=80)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "real_session").mkdir()
    with pytest.raises(SynthesisError, match="new or empty folder"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1000}, "0 .. 999"),
        ({"sessions": 0}, "1 .. 1000"),
        ({"frames": 59}, "60 .. 6000"),
        ({"frames": 6001}, "60 .. 6000"),
        ({"sessions": 3, "anomalies": "demo"}, "4 or more"),
    ],
)
def test_arguments_that_allow_no_set_are_refused_before_anything_is_written(tmp_path, change, told):
    with pytest.raises(SynthesisError, match=told):
        write(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_no_episode_shows_a_world_that_a_base_model_may_know(pair):
    _, synthesis = pair
    assert [episode.world_seed for episode in synthesis.episodes] == [3000, 3001]
    assert WARM_UP_SEEDS.start > 999 * 1000 + 999


def test_one_demo_session_has_no_caption(spoiled):
    with h5py.File(spoiled[Anomaly.NO_CAPTION] / "annotation.hdf5") as file:
        assert "caption" not in file
        assert len(file) == 8


def test_one_demo_session_has_an_annotation_cut_short_and_whole_videos(spoiled):
    folder = spoiled[Anomaly.CUT_SHORT]
    with pytest.raises(OSError, match="truncated file"):
        h5py.File(folder / "annotation.hdf5")
    assert len(list(folder.glob("*.mp4"))) == 6


def test_one_demo_session_lacks_slam_and_body_though_its_file_is_no_smaller(spoiled):
    spared, gone = (spoiled[kind] / "annotation.hdf5" for kind in (None, Anomaly.NO_SLAM))
    with h5py.File(gone) as file:
        assert {"slam", "full_body_mocap"}.isdisjoint(file)
        assert "device_timestamp" in file["video"]
    assert gone.stat().st_size == pytest.approx(spared.stat().st_size, abs=5000)


@pytest.mark.slow
def test_processes_write_the_same_bytes_as_one(pair, tmp_path):
    out, _ = pair
    write(tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == contents(out)
