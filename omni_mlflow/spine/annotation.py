"""The HDF5 file of an episode: every read goes through here, and a damaged file says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from math import isnan
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.layout import DATASETS, FRAME_ARRAYS, possible, what_is_too_large
from omni_mlflow.spine.strict_json import NotAJsonObjectError, strict_json

ANNOTATION = "annotation.hdf5"

# Real recordings lack rows here, and the rows can be found again by time.
_MAY_BE_SHORT = "imu/keyframe_indices"

_OPEN_OTHERWISE = "file locking flag values don't match"  # HDF5's words; the file itself is sound

_LEAVE_OUT = "leave this episode out"


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
    """An ``annotation.hdf5``, opened for reading; nothing is read before it is asked for.

    Datasets are named as in :data:`omni_mlflow.spine.layout.DATASETS`. One without a single element counts
    as absent.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            UnreadableEpisodeError: it is absent, empty, cut short, or no HDF5.
        """
        self.path = path
        self._datasets: dict[str, h5py.Dataset | None] = {}
        self._stored_shapes: dict[str, tuple[int, ...]] = {}
        self._checked: set[str] = set()
        if not path.is_file():
            raise UnreadableEpisodeError(path, "there is no such file", "download the episode's annotation")
        with self._readable("it"):
            # Data sets lie on read-only and network disks, where HDF5's own file locks often fail.
            self._file = h5py.File(path, "r", locking=False)
            # A group whose index is damaged would pass for one without members: look at every member once.
            self._file.visititems(self._keep)

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
        dataset = self._found(name)
        with self._readable(name):
            return dataset is not None and bool(dataset.size)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, without the axis of length 1 in front that older exports have.

        Raises:
            UnreadableEpisodeError: there is no such array, or its shape is not that of every known recording,
                or no recording is that large.
        """
        if not self.has_known_shape(name):
            raise self._refusal(f"{name} has the unknown shape {self._stored_shape(name)}")
        self._check_declaration(name)
        return self._rows_first(name)

    def array(self, name: str, rows: slice | EllipsisType = ...) -> NDArray[Any]:
        """Read the rows ``rows`` of an array, shaped as :meth:`shape` says; only they are read from the disk.

        Texts come as ``S`` of the longest one's width, however they are stored.

        Raises:
            UnreadableEpisodeError: as :meth:`shape`, or its bytes cannot be read.
        """
        self.shape(name)
        dataset = self._dataset(name)
        with self._readable(name):
            stored = np.asarray(dataset[(0, rows) if self.has_sample_axis(name) else rows])
            return stored.astype("S") if stored.dtype.kind == "O" else stored

    def numbers(self, name: str, rows: slice | EllipsisType = ...) -> NDArray[np.float64]:
        """Read the rows ``rows`` of an array of numbers.

        Raises:
            UnreadableEpisodeError: as :meth:`array`, and when it holds no numbers.
        """
        stored = self.array(name, rows)
        if stored.dtype.kind not in "fiub":
            raise self._refusal(f"{name} holds no numbers but {stored.dtype}")
        with self._readable(name):
            return stored.astype(np.float64)

    def number(self, name: str) -> float | None:
        """Read a single number; None when it is absent, not finite, no number or more than one."""
        if name not in self or (dataset := self._dataset(name)).size > 1:
            return None
        self._check_declaration(name)
        with self._readable(name):
            stored = np.asarray(dataset[()]).reshape(-1)[0]
        try:
            value = float(stored)
        except (TypeError, ValueError):
            return None
        return value if np.isfinite(value) else None

    def text(self, name: str) -> str | bytes | None:
        """Read a text that is stored as a scalar, an array of one entry, or raw bytes; None when absent.

        Raises:
            UnreadableEpisodeError: it holds several values, is too large, or its bytes cannot be read.
        """
        if name not in self:
            return None
        dataset = self._dataset(name)
        if dataset.size > 1 and dataset.dtype.itemsize > 1:
            raise self._refusal(f"{name} holds {dataset.size} values where one text belongs")
        self._check_declaration(name)
        with self._readable(name):
            value = dataset[()]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(()).item()
        elif isinstance(value, np.void | np.ndarray):
            value = value.tobytes()
        return value if isinstance(value, str | bytes) else str(value)

    def plain_text(self, name: str) -> str | None:
        """Read a text as UTF-8, trimmed; a byte that is not becomes U+FFFD. None when absent or empty."""
        return plain(self.text(name))

    def document(self, name: str) -> Mapping[str, Any]:
        """Read a text as a JSON object; an empty one when it is absent or empty.

        Raises:
            NotAJsonObjectError: it is no JSON, no object, nested too deeply, or has a number beyond a double.
            UnreadableEpisodeError: as :meth:`text`.
        """
        try:
            found = strict_json(self.plain_text(name) or "{}")
        except ValueError as error:
            raise NotAJsonObjectError(f"{name} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise NotAJsonObjectError(f"{name} is no JSON object but a {type(found).__name__}")
        return found

    @cached_property
    def rows_by_array(self) -> dict[str, int]:
        """Rows of each array with a row per frame that is there; in an intact file all are equal.

        An array of an unknown shape has no rows that anybody could count: reading it fails.
        """
        counted = (name for name in FRAME_ARRAYS if name != _MAY_BE_SHORT and name in self)
        return {name: self._rows_first(name)[0] for name in counted if self.has_known_shape(name)}

    @property
    def num_frames(self) -> int:
        """Rows of the shortest frame array; the frame count in the caption is one too many. 0: no array."""
        return min(self.rows_by_array.values(), default=0)

    def frames(self, name: str) -> NDArray[Any]:
        """Read one row per frame."""
        return self.array(name, slice(self.num_frames))

    def floats(self, name: str) -> NDArray[np.float64]:
        """Read one row of numbers per frame."""
        return self.numbers(name, slice(self.num_frames))

    def texts(self, name: str) -> tuple[str, ...]:
        """Read one text per row, also of rows after the last frame; whole numbers are written out."""
        return tuple(_as_text(value) for value in self.array(name).tolist())

    def joints(self, name: str, num_joints: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read joints, shape (num_frames, num_joints, 3), and which rows are valid.

        A row with an impossible number, or of zeros only, is invalid and becomes NaN; so does every row when
        the array is absent.
        """
        joints = np.full((self.num_frames, num_joints, 3), np.nan)
        if name in self:
            joints = self.floats(name)
        valid: NDArray[np.bool_] = possible(name, joints).all(axis=(1, 2)) & (joints != 0).any(axis=(1, 2))
        joints[~valid] = np.nan
        return joints.astype(np.float32), valid

    def has_known_shape(self, name: str) -> bool:
        """Whether an array has the shape that it has in every known recording."""
        if name not in DATASETS or not (known := DATASETS[name].shape):
            return True  # a single value may also be stored as an array of one
        found = self._rows_first(name)
        return len(found) == len(known) and all(
            isinstance(size, str) or size == stored for size, stored in zip(known, found, strict=True)
        )

    def has_sample_axis(self, name: str) -> bool:
        """Whether an array with a row per frame has the axis of length 1 in front that older exports have."""
        stored = self._stored_shape(name)
        return name in FRAME_ARRAYS and len(stored) == len(DATASETS[name].shape) + 1 and stored[0] == 1

    def _rows_first(self, name: str) -> tuple[int, ...]:
        stored = self._stored_shape(name)
        return stored[1:] if self.has_sample_axis(name) else stored

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        if name not in self._stored_shapes:
            dataset = self._dataset(name)
            with self._readable(name):
                self._stored_shapes[name] = dataset.shape or ()
        return self._stored_shapes[name]

    def _check_declaration(self, name: str) -> None:
        """Refuse what a dataset says that it holds before a byte of it is read."""
        if name in self._checked:
            return
        with self._readable(name):
            dtype = self._dataset(name).dtype
        if dtype.names or dtype.kind == "c" or (dtype.kind == "O" and not h5py.check_string_dtype(dtype)):
            raise self._refusal(f"{name} holds neither numbers nor texts but {dtype}")
        if too_large := what_is_too_large(name, self._rows_first(name), dtype.itemsize):
            raise self._refusal(f"{name} {too_large}")
        self._checked.add(name)

    def _dataset(self, name: str) -> h5py.Dataset:
        if (found := self._found(name)) is None:
            raise self._refusal(f"{name} is no dataset")
        return found

    def _found(self, name: str) -> h5py.Dataset | None:
        if name not in self._datasets:
            with self._readable(name):
                self._keep(name, self._file.get(name))
        return self._datasets[name]

    def _keep(self, name: str, found: object) -> None:
        self._datasets[name] = found if isinstance(found, h5py.Dataset) else None

    def _refusal(self, reason: str) -> UnreadableEpisodeError:
        return UnreadableEpisodeError(self.path, reason, _LEAVE_OUT)

    @contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise self._refusal(f"{what} does not fit into the memory of this machine") from error
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if _OPEN_OTHERWISE in str(error):
                reason = (
                    "this process has it open already, with HDF5's file locks, and here it is read without"
                )
                raise UnreadableEpisodeError(self.path, reason, "close it there first") from error
            reason = f"{what} cannot be read as HDF5: {error}"
            raise UnreadableEpisodeError(
                self.path, reason, "the copy is incomplete or damaged, download it again"
            ) from error


def plain(text: str | bytes | None) -> str | None:
    """Decode, trim, and read an empty text as None."""
    decoded = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text
    return (decoded or "").strip().strip("\0") or None


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float):
        value = int(value) if value.is_integer() else "" if isnan(value) else value
    return str(value).strip("\0 ")
