"""Writes a folder in the format LeRobotDataset v3.0, with nothing of lerobot.

``data/`` holds one Parquet file per episode with its numeric columns, ``videos/`` one MP4 per episode whose
frame i is shown at exactly i / fps, ``meta/`` where every frame lies and what is normal. The format is
documented at https://huggingface.co/docs/lerobot/lerobot-dataset-v3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.lerobot_stats import (
    Stats,
    column_stats,
    histogram,
    picture_stats,
)
from omni_mlflow.spine.rows import appearing_at_once, write_document

VERSION = "v3.0"
_FRAMES_PER_GROUP = 2  # policies read single frames in any order
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """One episode.

    Attributes:
        task: what is done, in words.
        pictures: RGB, shape (height, width, 3), one per frame; read once.
        columns: by name, shape (frames, numbers).
        known: by name of a column, which of its numbers are known; those alone count in its statistics.
    """

    task: str
    pictures: Iterable[Picture]
    columns: Mapping[str, NDArray[np.float32]]
    known: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Form:
    """What every episode of a dataset has.

    Attributes:
        fps: frame i of an episode is at i / fps.
        camera: key of the video, ``observation.images.<name>``.
        size: height and width of its pictures, both even.
        columns: names of the numbers of each column.
        robot_type: whose motion it is.
    """

    fps: Fraction
    camera: str
    size: tuple[int, int]
    columns: Mapping[str, tuple[str, ...]]
    robot_type: str


def write_dataset(
    root: Path,
    recordings: Iterable[Recording],
    form: Form,
    *,
    split: str,
    normal: Mapping[str, Stats] | None,
) -> dict[str, Stats]:
    """Write the folder ``root``, one recording after the other.

    Args:
        split: the one that all of them belong to.
        normal: what ``meta/stats.json`` says, which policies normalise with; None: it is taken from these
            recordings, as must be so for train and for nothing else.

    Returns:
        The content of ``meta/stats.json``.
    """
    writer = _Writer(root, form, split)
    for recording in recordings:
        writer.add(recording)
    return writer.finish(normal)


class _Writer:
    """The files of one dataset, and where its frames lie in them."""

    def __init__(self, root: Path, form: Form, split: str) -> None:
        self._root = root
        self._form = form
        self._split = split
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._num_frames = 0
        self._parts: list[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[np.bool_]]]] = []
        self._levels = np.zeros((3, 256), dtype=np.int64)

    def add(self, recording: Recording) -> None:
        number = len(self._episodes)
        place = {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
        levels, length = self._write_video(recording.pictures, place)
        columns = {**recording.columns, **self._counted(recording.task, length)}
        _write_parquet(self._root / DATA_PATH.format(**place), _table(columns))
        self._levels += levels
        self._parts.append((columns, recording.known))
        video = f"videos/{self._form.camera}"
        stats = {name: column_stats(values, recording.known.get(name)) for name, values in columns.items()}
        stats[self._form.camera] = picture_stats(levels, num_frames=length)
        self._episodes.append(
            {
                "episode_index": number,
                "tasks": [recording.task],
                "length": length,
                **{f"data/{key}": value for key, value in place.items()},
                "dataset_from_index": self._num_frames,
                "dataset_to_index": self._num_frames + length,
                **{f"{video}/{key}": value for key, value in place.items()},
                f"{video}/from_timestamp": 0.0,
                f"{video}/to_timestamp": float(length / self._form.fps),
                **{
                    f"stats/{name}/{key}": value
                    for name, each in stats.items()
                    for key, value in each.items()
                },
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self._num_frames += length

    def finish(self, normal: Mapping[str, Stats] | None) -> dict[str, Stats]:
        import pyarrow as pa

        stats = self._stats() if normal is None else dict(normal)
        _write_parquet(self._root / _EPISODES, pa.Table.from_pylist(self._episodes))
        _write_parquet(self._root / "meta/tasks.parquet", _tasks_table(self._tasks))
        write_document(self._root / "meta/stats.json", {**stats})
        write_document(self._root / "meta/info.json", self._info())
        return stats

    def _write_video(
        self, pictures: Iterable[Picture], place: Mapping[str, int]
    ) -> tuple[NDArray[np.int64], int]:
        """Return how often each level of each colour occurs, and how many frames there are.

        Levels are counted before they are encoded, as the library counts those of its own recordings.
        """
        from omni_mlflow.spine.mosaic import Encoder, RgbPicture

        height, width = self._form.size
        levels = np.zeros((3, 256), dtype=np.int64)
        length = 0
        path = self._root / VIDEO_PATH.format(video_key=self._form.camera, **place)
        with (
            appearing_at_once(path) as temporary,
            Encoder(temporary, width, height, self._form.fps, group=_FRAMES_PER_GROUP) as encoder,
        ):
            for picture in pictures:
                encoder.write(RgbPicture(picture))
                levels += histogram(picture)
                length += 1
        return levels, length

    def _counted(self, task: str, length: int) -> dict[str, NDArray[Any]]:
        frames = np.arange(length)
        task_index = self._tasks.setdefault(task, len(self._tasks))
        return {
            "timestamp": (frames / float(self._form.fps)).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, len(self._episodes)),
            "index": frames + self._num_frames,
            "task_index": np.full(length, task_index),
        }

    def _stats(self) -> dict[str, Stats]:
        found = {self._form.camera: picture_stats(self._levels, num_frames=self._num_frames)}
        for name in self._parts[0][0] if self._parts else ():
            values = np.concatenate([columns[name] for columns, _ in self._parts])
            masks = [known[name] for _, known in self._parts if name in known]
            found[name] = column_stats(values, np.concatenate(masks) if masks else None)
        return found

    def _info(self) -> dict[str, Any]:
        rate = self._form.fps
        return {
            "codebase_version": VERSION,
            "robot_type": self._form.robot_type,
            "total_episodes": len(self._episodes),
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": _plain(rate),
            "splits": {self._split: f"0:{len(self._episodes)}"},  # readers ignore it: one folder, one split
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        height, width = self._form.size
        video = {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": _plain(self._form.fps),
            "video.channels": 3,
            "has_audio": False,
        }
        counters = {name: {"dtype": "int64", "shape": [1], "names": None} for name in _COUNTERS}
        return {
            self._form.camera: {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": video,
            },
            **{
                name: {"dtype": "float32", "shape": [len(names)], "names": list(names)}
                for name, names in self._form.columns.items()
            },
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **counters,
        }


def _table(columns: Mapping[str, NDArray[Any]]) -> Any:
    import pyarrow as pa

    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: NDArray[Any]) -> Any:
    import pyarrow as pa

    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _tasks_table(tasks: Mapping[str, int]) -> Any:
    """Tasks and their numbers. Readers look a task up by the index of a pandas frame, so one is described."""
    import pyarrow as pa

    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            _pandas_column("task_index", "int64", "int64"),
            _pandas_column("task", "unicode", "object"),
        ],
    }
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _pandas_column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": kind,
        "numpy_type": numpy_kind,
        "metadata": None,
    }


def _write_parquet(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    with appearing_at_once(path) as temporary:
        pq.write_table(table, temporary)


def _plain(rate: Fraction) -> int | float:
    return rate.numerator if rate.denominator == 1 else float(rate)


def read_episodes(root: Path) -> Sequence[Mapping[str, Any]]:
    """Return the rows of the table of episodes."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(root / _EPISODES).to_pylist()
    return rows
