"""Annotations of which some rows cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

import h5py


def spoil_rows(file: h5py.File, name: str, rows: Iterable[int]) -> None:
    """Store an array compressed row by row, and spoil some of its rows."""
    stored = file[name][()]
    del file[name]
    dataset = file.create_dataset(name, data=stored, chunks=(1, *stored.shape[1:]), compression="gzip")
    for row in rows:
        dataset.id.write_direct_chunk((row, *[0] * (stored.ndim - 1)), b"\xff" * 16)
