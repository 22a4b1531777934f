"""Open a written episode for an edit, and move its clock, which stands in many places of the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.annotation import ANNOTATION

_SMALLEST_TIMESTAMP = 100_000_000  # smaller numbers in a caption count frames


@contextmanager
def editing(folder: Path) -> Iterator[Any]:
    """Open the annotation in an episode folder as an ``h5py.File`` that can be changed."""
    import h5py

    with h5py.File(folder / ANNOTATION, "r+") as file:
        yield file


def replace(file: Any, name: str, value: NDArray[np.generic] | bytes, **options: Any) -> None:
    """Write dataset ``name`` anew; ``options`` are those of ``create_dataset``."""
    import h5py

    if name in file:
        del file[name]
    dtype = h5py.string_dtype("ascii") if isinstance(value, bytes) else None
    file.create_dataset(name, data=value, dtype=dtype, **options)


def edit_caption(file: Any, change: Callable[[Any], Any]) -> None:
    """Put what ``change`` makes of the caption's JSON in its place."""
    replace(file, "caption", json.dumps(change(json.loads(file["caption"][()]))).encode())


def frame_clock(file: Any) -> NDArray[np.int64]:
    return np.asarray(file["video/device_timestamp"][()].astype(np.int64))


def write_frame_clock(file: Any, clock: NDArray[np.int64]) -> None:
    """Write the device time of every frame, in nanoseconds of 14 digits, and name the frames by it."""
    replace(file, "video/device_timestamp", np.array([str(stamp) for stamp in clock], "S14"))
    replace(file, "slam/frame_names", np.array([f"{stamp}.jpg" for stamp in clock], "S18"))


def move_clock(file: Any, first_ns: int) -> None:
    """Let the episode begin at device time ``first_ns``: frames, inertial samples and caption."""
    clock = frame_clock(file)
    by_ns = int(first_ns - clock[0])
    write_frame_clock(file, clock + by_ns)
    file["imu/device_timestamp_ns"][...] += by_ns
    edit_caption(file, lambda document: retimed(document, lambda stamp: stamp + by_ns))


def retimed(document: Any, new_time: Callable[[int], int]) -> Any:
    """Return JSON with every device timestamp replaced, whether a number, a text or a key."""
    if isinstance(document, dict):
        return {retimed(key, new_time): retimed(value, new_time) for key, value in document.items()}
    if isinstance(document, list):
        return [retimed(value, new_time) for value in document]
    if isinstance(document, int) and document >= _SMALLEST_TIMESTAMP:
        return new_time(document)
    if isinstance(document, str) and document.isdecimal() and int(document) >= _SMALLEST_TIMESTAMP:
        return str(new_time(int(document)))
    return document
