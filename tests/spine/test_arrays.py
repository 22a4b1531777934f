"""Numeric targets lie beside their rows, one file per name, and are read without loading them."""

from __future__ import annotations

import numpy as np
import pytest

from omni_mlflow.spine.arrays import ArrayWriter, UnequalArraysError


def test_rows_come_back_in_order_with_their_shape_and_type(tmp_path):
    writer = ArrayWriter(tmp_path / "train.arrays")
    for number in range(3):
        writer.append({"chunk": np.full((2, 4), number, np.float32), "kind": np.array(number % 2, np.int8)})
    assert sorted(path.name for path in writer.close()) == ["chunk.npy", "kind.npy"]
    chunk = np.load(tmp_path / "train.arrays/chunk.npy", mmap_mode="r")
    kind = np.load(tmp_path / "train.arrays/kind.npy", mmap_mode="r")
    assert (chunk.shape, chunk.dtype, kind.shape, kind.dtype) == ((3, 2, 4), np.float32, (3,), np.int8)
    assert chunk[:, 1, 3].tolist() == [0, 1, 2]
    assert kind.tolist() == [0, 1, 0]


def test_rows_without_arrays_leave_no_folder(tmp_path):
    writer = ArrayWriter(tmp_path / "train.arrays")
    writer.append({})
    assert writer.close() == []
    assert not (tmp_path / "train.arrays").exists()


@pytest.mark.parametrize(
    "second",
    [{"chunk": np.zeros(3)}, {"chunk": np.zeros(2, np.float32)}, {"other": np.zeros(2)}, {}],
    ids=["shape", "type", "name", "none"],
)
def test_a_row_with_other_arrays_than_the_first_is_refused_by_its_number(tmp_path, second):
    writer = ArrayWriter(tmp_path / "train.arrays")
    writer.append({"chunk": np.zeros(2)})
    with pytest.raises(UnequalArraysError, match="row 1 has arrays"):
        writer.append(second)
