"""Ways to spoil one dataset of an annotation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from omni_mlflow.spine.layout import DATASETS

HUGE = 10**12


def is_text(name: str) -> bool:
    return DATASETS[name].content.startswith("text") or name in ("slam/frame_names", "video/device_timestamp")


def missing(file: h5py.File, name: str) -> None:
    del file[name]


def a_group(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_group(name)


def wrong_kind(file: h5py.File, name: str) -> None:
    """Text for a number, and a number for a text."""
    shape = file[name].shape
    del file[name]
    file[name] = np.full(shape, 0.5) if is_text(name) else np.full(shape, b"abc", dtype="S3")


def wrong_precision(file: h5py.File, name: str) -> None:
    """Fractions for whole numbers, and whole numbers for fractions; bytes for a text of one value."""
    stored = file[name][()]
    del file[name]
    if is_text(name):
        file[name] = np.void(stored) if isinstance(stored, bytes) else np.arange(len(stored)) + 0.5
    else:
        integral = np.issubdtype(stored.dtype, np.integer)
        file[name] = stored + 0.5 if integral else np.nan_to_num(stored).astype(np.int64)


def wrong_rank(file: h5py.File, name: str) -> None:
    stored = file[name][()]
    del file[name]
    file[name] = np.array([[stored, stored]]) if np.ndim(stored) == 0 else stored[..., None, None]


def wrong_length(file: h5py.File, name: str) -> None:
    """Three rows too few, or three values where one belongs."""
    stored = file[name][()]
    del file[name]
    file[name] = np.array([stored] * 3) if np.ndim(stored) == 0 else stored[:-3]


def empty(file: h5py.File, name: str) -> None:
    """No row, or no character."""
    stored = file[name][()]
    del file[name]
    file[name] = b"" if isinstance(stored, bytes) else np.atleast_1d(stored)[:0]


def blank(file: h5py.File, name: str) -> None:
    """NaN everywhere, or rows of empty texts."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file[name] = np.zeros(shape, dtype) if dtype.kind == "S" else np.full(shape, np.nan)


def huge(file: h5py.File, name: str) -> None:
    """A size is declared that the file does not hold."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, (HUGE, *shape[1:]), dtype, chunks=(1024, *shape[1:]))


def corrupt_chunk(file: h5py.File, name: str) -> None:
    """The bytes of a compressed chunk do not decompress."""
    stored = np.atleast_1d(file[name][()])
    del file[name]
    dataset = file.create_dataset(name, data=stored, chunks=stored.shape, compression="gzip")
    dataset.id.write_direct_chunk((0,) * stored.ndim, b"\xff" * 16)


DAMAGE: tuple[Callable[[h5py.File, str], None], ...] = (
    missing,
    a_group,
    wrong_kind,
    wrong_precision,
    wrong_rank,
    wrong_length,
    empty,
    blank,
    huge,
    corrupt_chunk,
)


def damaged(annotation: bytes, name: str, damage: Callable[[h5py.File, str], None], path: Path) -> None:
    """Write an intact annotation to ``path`` and spoil one of its datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(annotation)
    with h5py.File(path, "a") as file:
        damage(file, name)
