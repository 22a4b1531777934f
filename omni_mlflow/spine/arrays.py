"""Numeric targets beside a file of rows: one ``.npy`` per name, row k belongs to line k."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


class UnequalArraysError(Exception):
    """A row brought other arrays than the row before it."""


class ArrayWriter:
    """Appends one array per name and row, in constant memory; the files are there after :meth:`close`.

    The folder is made with the first array, so rows without any leave none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kinds: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] | None = None
        self._parts: dict[str, BinaryIO] = {}
        self._num_rows = 0

    def append(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Add one row.

        Raises:
            UnequalArraysError: names, shapes or types differ from those of the first row.
        """
        kinds = {name: (array.shape, array.dtype) for name, array in sorted(arrays.items())}
        if self._kinds is None:
            self._kinds = kinds
            self._open(kinds)
        elif kinds != self._kinds:
            raise UnequalArraysError(
                f"row {self._num_rows} has arrays {kinds}, the rows before it {self._kinds}; "
                "every sample of a backbone has the same"
            )
        for name, part in self._parts.items():
            part.write(np.ascontiguousarray(arrays[name]).tobytes())
        self._num_rows += 1

    def close(self) -> list[Path]:
        """Write ``<name>.npy`` of shape (rows, ...) for every name, and return their paths."""
        written = []
        for name, part in self._parts.items():
            shape, dtype = (self._kinds or {})[name]
            path = self._folder / f"{name}.npy"
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (self._num_rows, *shape),
            }
            part.seek(0)
            with path.open("wb") as out:
                np.lib.format.write_array_header_1_0(out, header)
                shutil.copyfileobj(part, out)
            part.close()
            Path(part.name).unlink()
            written.append(path)
        return written

    def _open(self, kinds: Mapping[str, Any]) -> None:
        for name in kinds:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._parts[name] = (self._folder / f"{name}.partial").open("w+b")
