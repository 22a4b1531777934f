"""The HDF5 file of an episode: every read goes through here, and a damaged file says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

ANNOTATION = "annotation.hdf5"

_Shape = tuple[int | None, ...]

_FRAME_ARRAYS: dict[str, _Shape] = {
    "slam/frame_names": (None,),
    "slam/quat_wxyz": (None, 4),
    "slam/trans_xyz": (None, 3),
    "depth/depth": (None, None, None),
    "depth/confidence": (None, None, None),
    "hand_mocap/left_joints_3d": (None, 21, 3),
    "hand_mocap/right_joints_3d": (None, 21, 3),
    "full_body_mocap/keypoints": (None, 52, 3),
    "full_body_mocap/contacts": (None, 21),
    "video/device_timestamp": (None,),
}
"""The arrays with one row per frame, and their shapes; None is any size."""

_OTHER_ARRAYS: dict[str, _Shape] = {
    "calibration/cam01/T_c0_b": (4, 4),
    "imu/device_timestamp_ns": (None,),
    "imu/accel_xyz": (None, 3),
    "imu/gyro_xyz": (None, 3),
    "imu/keyframe_indices": (None,),
}


class UnreadableEpisodeError(Exception):
    """An episode's annotation cannot be read."""

    def __init__(self, path: Path, reason: str, what_to_do: str) -> None:
        super().__init__(path, reason, what_to_do)
        self.path = path
        self.reason = reason
        self.what_to_do = what_to_do

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.what_to_do}"


class AnnotationFile:
    """An ``annotation.hdf5``, opened for reading; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            UnreadableEpisodeError: it is absent, empty, cut short, or no HDF5.
        """
        self.path = path
        if not path.is_file():
            raise UnreadableEpisodeError(path, "there is no such file", "download the episode's annotation")
        with self._readable():
            # Data sets lie on read-only and network disks, where HDF5's own file locks often fail.
            self._file = h5py.File(path, "r", locking=False)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        with self._readable():
            return isinstance(self._file.get(name), h5py.Dataset)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, without the axis of length 1 in front that older exports have.

        Raises:
            UnreadableEpisodeError: it is not the shape that this array has in every known recording.
        """
        stored = self._stored_shape(name)
        shape = stored[1:] if self._has_sample_axis(name) else stored
        known = _FRAME_ARRAYS.get(name) or _OTHER_ARRAYS.get(name)
        if known is not None and not _matches(shape, known):
            raise UnreadableEpisodeError(
                self.path, f"{name} has the unknown shape {stored}", "leave this episode out"
            )
        return shape

    def array(self, name: str, rows: slice | EllipsisType = ...) -> NDArray[Any]:
        """Read the rows ``rows`` of an array; only they are read from the disk."""
        self.shape(name)
        with self._readable():
            return np.asarray(self._file[name][rows])

    def text(self, name: str) -> str | bytes | None:
        """Read a text that is stored as a scalar, an array of one entry, or raw bytes; None when absent."""
        if name not in self:
            return None
        with self._readable():
            value = self._file[name][()]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(()).item()
        elif isinstance(value, np.void | np.ndarray):
            value = value.tobytes()
        return value if isinstance(value, str | bytes) else str(value)

    @cached_property
    def rows_by_array(self) -> dict[str, int]:
        """Rows of each array with a row per frame that is there; in an intact file all are equal."""
        return {name: self.shape(name)[0] for name in _FRAME_ARRAYS if name in self}

    @property
    def num_frames(self) -> int:
        """Rows of the shortest frame array; the frame count in the caption is one too many. 0: no array."""
        return min(self.rows_by_array.values(), default=0)

    def frames(self, name: str) -> NDArray[Any]:
        """Read one row per frame."""
        if self._has_sample_axis(name):
            self.shape(name)
            with self._readable():
                return np.asarray(self._file[name][0, : self.num_frames])
        return self.array(name, slice(self.num_frames))

    def floats(self, name: str) -> NDArray[np.float64]:
        with self._readable():
            return self.frames(name).astype(np.float64)

    def texts(self, name: str) -> tuple[str, ...]:
        """Read one text per frame; numbers are written out."""
        return tuple(_as_text(value) for value in self.frames(name).tolist())

    def joints(self, name: str, num_joints: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read joints, shape (num_frames, num_joints, 3), and which rows are valid.

        A row with a non-finite number, or of zeros only, is invalid and becomes NaN; so does every row when
        the array is absent.
        """
        joints = np.full((self.num_frames, num_joints, 3), np.nan, dtype=np.float32)
        if name in self:
            joints = self.floats(name).astype(np.float32)
        valid: NDArray[np.bool_] = np.isfinite(joints).all(axis=(1, 2)) & (joints != 0).any(axis=(1, 2))
        joints[~valid] = np.nan
        return joints, valid

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        with self._readable():
            shape: tuple[int, ...] = self._file[name].shape
        return shape

    def _has_sample_axis(self, name: str) -> bool:
        stored = self._stored_shape(name)
        return name in _FRAME_ARRAYS and len(stored) == len(_FRAME_ARRAYS[name]) + 1 and stored[0] == 1

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            reason = f"it cannot be read as HDF5: {error}"
            raise UnreadableEpisodeError(
                self.path, reason, "the copy is incomplete or damaged, download it again"
            ) from error


def _matches(shape: tuple[int, ...], known: _Shape) -> bool:
    return len(shape) == len(known) and all(
        size in (None, found) for size, found in zip(known, shape, strict=True)
    )


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip("\0")
    return str(int(value)) if isinstance(value, int | float) else str(value)
