"""Episode folders for the tests of the spine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import pytest
from handmade import NUM_FRAMES, annotation, write_video

from omni_mlflow.spine.synthetic import Synthesis, write_episode_set
from omni_mlflow.spine.types import CAMERAS


@pytest.fixture
def write_annotation(tmp_path: Path) -> Callable[..., Path]:
    """Write an episode's annotation; a dataset given as None is left out. Returns the folder."""

    def write(
        changes: Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        num_frames: int = NUM_FRAMES,
    ) -> Path:
        target = folder or tmp_path / "session" / "ep1"
        target.mkdir(parents=True, exist_ok=True)
        with h5py.File(target / "annotation.hdf5", "w") as file:
            for name, value in {**annotation(num_frames), **(changes or {})}.items():
                if value is not None:
                    file[name] = value
        return target

    return write


@cache
def video_bytes(num_frames: int, audio_s: float, seed: int) -> bytes:
    with TemporaryDirectory() as folder:
        return write_video(Path(folder) / "video.mp4", num_frames, audio_s=audio_s, seed=seed).read_bytes()


@pytest.fixture
def make_episode(write_annotation: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a complete episode ``<data root>/<session>/<name>`` and return its folder."""

    def make(
        session: str = "kitchen",
        name: str = "ep1",
        changes: Mapping[str, Any] | None = None,
        *,
        num_frames: int = NUM_FRAMES,
        seed: int = 0,
    ) -> Path:
        folder = tmp_path / "data" / session / name
        write_annotation(changes, folder=folder, num_frames=num_frames)
        for place, camera in enumerate(CAMERAS):
            audio_s = num_frames / 20 if place == 0 else 0.0
            (folder / f"{camera}.mp4").write_bytes(video_bytes(num_frames + 1, audio_s, seed + place))
        return folder

    return make


@pytest.fixture
def real_sample(tmp_path: Path) -> Path:
    """An episode folder that holds the first 8 frames of a real recording."""
    default = Path(__file__).parents[3] / "shared" / "reference"
    file = Path(os.environ.get("OMNI_REFERENCE_DIR", default)) / "annotation_sample8.hdf5"
    if not file.is_file():
        pytest.skip(f"no real sample at {file}; set OMNI_REFERENCE_DIR")
    (tmp_path / "annotation.hdf5").symlink_to(file.resolve())
    return tmp_path


@pytest.fixture(scope="session")
def every_anomaly(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Synthesis]:
    """What ``synthesize --anomalies all`` writes for three sessions of 60 frames; only to be read."""
    out = tmp_path_factory.mktemp("every_anomaly")
    return out, write_episode_set(out, sessions=3, frames=60, seed=5, anomalies="all", workers=1)
