"""Recordings in which fisheye_cam0.mp4 and fisheye_cam2.mp4 hold each other's pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omni_mlflow.contract import ContractError
from omni_mlflow.contract.file import load_contract
from omni_mlflow.spine.episodes import open_episode
from omni_mlflow.spine.indexing import IndexPlan, index_episode
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.types import CAMERAS, Scale, Split
from omni_mlflow.stages.index import INDEX

AS_NAMED = IndexPlan(
    scales=(Scale(frames=2, stride=2),), frame_grid=2, context_frames=2, tile=(16, 16), min_label_share=0.6
)
EXCHANGED = replace(AS_NAMED, swap_fisheye_cam0_cam2=True)


@pytest.fixture
def mosaic_of(tmp_path):
    """Index an episode and return the bytes of its mosaic."""

    def index(folder, plan, place):
        (episode,), _ = scan_data_root(folder.parents[1])
        placed = episode.model_copy(update={"split": Split.TRAIN})
        out = tmp_path / place
        index_episode(placed, data_root=folder.parents[1], out=out, plan=plan)
        return (out / "kitchen__ep1" / "mosaic.mp4").read_bytes()

    return index


def exchange(folder):
    first, third, aside = (folder / f"{name}.mp4" for name in ("fisheye_cam0", "fisheye_cam2", "aside"))
    first.rename(aside)
    third.rename(first)
    aside.rename(third)


def test_the_switch_undoes_the_exchange_and_without_it_files_are_taken_as_they_are_named(
    make_episode, mosaic_of
):
    folder = make_episode()
    intact = mosaic_of(folder, AS_NAMED, "intact")
    exchange(folder)
    assert mosaic_of(folder, AS_NAMED, "as named") != intact
    assert mosaic_of(folder, EXCHANGED, "exchanged") == intact


def test_the_switch_touches_no_other_camera_and_no_calibration(make_episode):
    folder = make_episode()
    (folder / "stereo_left.mp4").unlink()
    with open_episode(folder) as episode:
        assert list(episode.video_files()) == [camera for camera in CAMERAS if camera != "stereo_left"]
        named = {camera: path.stem for camera, path in episode.video_files().items()}
        taken = episode.video_files(swap_fisheye_cam0_cam2=True)
    assert all(camera == name for camera, name in named.items())
    assert {camera: path.stem for camera, path in taken.items() if camera != path.stem} == {
        "fisheye_cam0": "fisheye_cam2",
        "fisheye_cam2": "fisheye_cam0",
    }


def test_a_contract_says_which_files_are_taken_and_an_index_made_otherwise_is_another_one(pytestconfig):
    path = pytestconfig.rootpath / "contracts" / "qwen3_omni_lora.yaml"
    contract = load_contract(path)
    swapped = load_contract(path, changes={"windows.swap_fisheye_cam0_cam2": True})
    assert INDEX.settings(contract)["swap_fisheye_cam0_cam2"] is False
    assert INDEX.settings(swapped)["swap_fisheye_cam0_cam2"] is True
    assert AS_NAMED.digest != EXCHANGED.digest
    with pytest.raises(ContractError, match="did you mean 'swap_fisheye_cam0_cam2'"):
        load_contract(path, changes={"windows.swap_fisheye_cam0_cam1": True})
