"""NumPy arrays inside rows: base64 text in JSON, with their type and shape."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer


def _unpacked(value: Any) -> NDArray[Any]:
    if isinstance(value, dict):
        data = base64.b64decode(value["base64"], validate=True)
        return np.frombuffer(data, dtype=value["dtype"]).reshape(value["shape"])
    return np.asarray(value)


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    text = base64.b64encode(little_endian.tobytes()).decode("ascii")
    return {"dtype": little_endian.dtype.str, "shape": list(array.shape), "base64": text}


Packed = Annotated[NDArray[Any], BeforeValidator(_unpacked), PlainSerializer(_packed)]
"""A field of a row; the row needs ``arbitrary_types_allowed``. Rows that hold arrays are not comparable."""
