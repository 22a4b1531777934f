"""Whatever one dataset of an annotation holds, its episode is selected, or rejected by name; none is lost."""

from __future__ import annotations

import random
import shutil

import h5py
import pytest
from damage import DAMAGE, damaged
from handmade import write_video

from omni_mlflow.spine.episodes import UnreadableEpisodeError, open_episode
from omni_mlflow.spine.fingerprints import print_of
from omni_mlflow.spine.indexing import IndexPlan, index_episode
from omni_mlflow.spine.layout import DATASETS, FRAME_ARRAYS
from omni_mlflow.spine.selection import IncompleteError, read_annotation, scan_data_root
from omni_mlflow.spine.synthetic.annotation import datasets_of
from omni_mlflow.spine.synthetic.world import make_session
from omni_mlflow.spine.types import CAMERAS, Episode, Scale, Split

NUM_FRAMES = 8
PLAN = IndexPlan(
    scales=(Scale(frames=4, stride=2),), frame_grid=2, context_frames=2, tile=(32, 32), min_label_share=0.5
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """The bytes of an annotation with all 65 datasets of a synthetic session, 8 frames of them."""
    path = tmp_path_factory.mktemp("intact") / "annotation.hdf5"
    with h5py.File(path, "w") as file:
        for name, value in datasets_of(make_session(1, frames=20), invalid_body_share=0.0).items():
            file[name] = value[:NUM_FRAMES] if name in FRAME_ARRAYS else value
    return path.read_bytes()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    video = write_video(tmp_path_factory.mktemp("videos") / "any.mp4", NUM_FRAMES + 1, audio_s=0.4)
    return {f"{camera}.mp4": video for camera in CAMERAS}


def read_selecting(folder):
    """What ``select`` reads of an annotation: the fields of the manifest, or why it is rejected."""
    try:
        with open_episode(folder) as source:
            return read_annotation(source), None
    except (IncompleteError, UnreadableEpisodeError) as problem:
        return None, str(problem)


def read_later(read, root):
    """What ``guard`` and ``index`` read of the annotation ``root/s/ep1``: all of it succeeds."""
    identity = {"episode_id": "s__ep1", "session_id": "s", "path": "s/ep1", "bytes_by_file": {}}
    print_of(root / "s/ep1/annotation.hdf5")
    episode = Episode(**identity, **read, split=Split.TRAIN)
    indexed = index_episode(episode, data_root=root, out=root / "index", plan=PLAN)
    assert indexed.skips == ()
    assert indexed.windows
    shutil.rmtree(root / "index")


def accepted(intact, root, damage, names):
    """Spoil each dataset in turn, and yield what is selected; a rejection names the dataset."""
    for name in names:
        damaged(intact, name, damage, root / "s/ep1/annotation.hdf5")
        read, reason = read_selecting(root / "s/ep1")
        if read is None:
            assert name in reason
        else:
            yield name, read


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_spoilt_dataset_is_named_or_does_no_harm_to_later_reads(intact, tmp_path, damage):
    assert len(DATASETS) == 65
    followed = random.Random(damage.__name__).sample(sorted(DATASETS), 4)
    for name, read in accepted(intact, tmp_path, damage, DATASETS):
        if name in followed:
            read_later(read, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_every_selected_episode_with_a_spoilt_dataset_passes_through_the_later_reads(
    intact, tmp_path, damage
):
    for _, read in accepted(intact, tmp_path, damage, DATASETS):
        read_later(read, tmp_path)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_beside_a_clean_episode_a_spoilt_one_is_counted_once(intact, videos, tmp_path, damage):
    name = random.Random(damage.__name__).choice(sorted(DATASETS))
    for session in ("clean", "spoilt"):
        folder = tmp_path / session / "ep1"
        folder.mkdir(parents=True)
        (folder / "annotation.hdf5").write_bytes(intact)
        for file, video in videos.items():
            (folder / file).symlink_to(video)
    damaged(intact, name, damage, folder / "annotation.hdf5")
    selected, rejected = scan_data_root(tmp_path)
    assert selected[0].episode_id == "clean__ep1"
    assert sorted(each.episode_id for each in selected[1:]) + [skip.subject for skip in rejected] == [
        "spoilt__ep1"
    ]
