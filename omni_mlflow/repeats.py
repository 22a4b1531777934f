"""Finds the rows of a table of any length whose values occur more than once."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_UNKNOWN = 0


class Repeats:
    """Rows of a table, added in parts, that share their values in some columns with another row.

    Memory holds eight bytes per row and key, whatever the values are.

    Args:
        keys: lists of columns; rows that agree in all columns of one list repeat each other.
        kept: the columns that :meth:`suspects` returns.
        file: an empty temporary file, for the values of these columns.
    """

    def __init__(self, keys: Sequence[Sequence[str]], *, kept: Sequence[str], file: IO[bytes]) -> None:
        self._keys = [(list(columns), array("q")) for columns in keys]
        self._kept = list(kept)
        self._file = file
        self._part_sizes: list[int] = []

    def add(self, part: Any) -> None:
        """Add the next rows, a DataFrame with all the columns."""
        for columns, keys in self._keys:
            values = part[columns].astype(object).where(part[columns].notna(), None)  # NaN is not itself
            keys.extend(map(_key, values.itertuples(index=False, name=None)))
        pickle.dump(part[self._kept], self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._part_sizes.append(len(part))

    def suspects(self) -> Any:
        """Return the first row and every one that may repeat another, in order, as a DataFrame.

        What is equal in the table is equal there, because equal values have equal keys. Values that only
        share a key are there as well, still to be compared. A table of nothing but repeats comes back whole.
        """
        import pandas as pd

        wanted = np.zeros(sum(self._part_sizes), dtype=bool)
        wanted[:1] = True
        for _, keys in self._keys:
            wanted |= _again(keys)
        self._file.seek(0)
        found, start = [], 0
        for size in self._part_sizes:
            found.append(pickle.load(self._file)[wanted[start : start + size]])
            start += size
        return pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)


def _key(values: tuple[Any, ...]) -> int:
    """Eight bytes that equal values share, and others hardly ever."""
    try:
        return hash(values)
    except TypeError:  # a list or another value that has none
        return _UNKNOWN


def _again(keys: array[int]) -> npt.NDArray[np.bool_]:
    """Which keys occur more than once; an unknown one may."""
    found = np.frombuffer(keys, dtype=np.int64)
    ordered = np.sort(found)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return np.isin(found, np.append(several, _UNKNOWN))
