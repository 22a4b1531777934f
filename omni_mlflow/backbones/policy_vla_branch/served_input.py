"""What a served policy is given: its schema, an example, and checks that refuse what must not be answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.backbones.policy_vla_branch.data import Image
from omni_mlflow.backbones.policy_vla_branch.hands import SIDES
from omni_mlflow.backbones.policy_vla_branch.inputs import STATE_NAMES
from omni_mlflow.backbones.policy_vla_branch.observations import Observations

if TYPE_CHECKING:
    import pandas as pd

EXAMPLE_NAME = "input_example.json"

_STRING, _NUMBERS = {"type": "string"}, {"type": "array", "items": {"type": "double"}}
_COLUMNS: dict[str, dict[str, Any]] = {
    "id": _STRING,
    "image": {"type": "any"},  # mlflow takes seconds to look at every number of one; here it is looked at
    "instruction": _STRING,
    "state": _NUMBERS,
}
_ANSWERS: dict[str, dict[str, Any]] = {
    "id": _STRING,
    "actions": {"type": "array", "items": _NUMBERS},
    "labels": _STRING,
}
_LEVELS = 255
_FARTHEST_M, _FASTEST = 10.0, 100.0
"""No hand is so far from the head that bears its camera or so fast (m/s), but in another unit it would be."""
_ROTATION_SLACK = 0.01


class BadInputError(ValueError):
    """A row is not what the policy was trained on, so an answer to it would mean nothing."""


def signature() -> dict[str, str]:
    """Return the ``signature`` of an ``MLmodel`` file."""
    return {
        name: json.dumps([{**kind, "name": column, "required": True} for column, kind in columns.items()])
        for name, columns in (("inputs", _COLUMNS), ("outputs", _ANSWERS))
    }


def example() -> dict[str, Any]:
    """Return one made-up row as a pandas frame in split form: a ramp of grey, two flat hands that rest."""
    ramp = np.linspace(0, _LEVELS, 16, dtype=np.uint8)
    image = np.broadcast_to(ramp[:, None, None], (16, 16, 3))
    unturned, aperture, at_rest, both_known = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 0.08, [0.0] * 6, [1.0, 1.0]
    left, right = ([x, 0.15, 0.45, *unturned, aperture] for x in (-0.15, 0.15))
    state = [*left, *right, *at_rest, *both_known]
    row = ["example", image.tolist(), "Sorting blocks at the workbench", state]
    return {"columns": list(_COLUMNS), "data": [row]}


def observations(rows: pd.DataFrame) -> tuple[list[str], Observations]:
    """Return the ids of rows and what the policy may see of them.

    Raises:
        BadInputError: a column is missing or there is no row; an id or instruction is no text; an image is
            not (height, width, 3) whole numbers from 0 to 255; a state is not 28 finite numbers, or not
            those of two hands in metres.
    """
    if missing := sorted(set(_COLUMNS) - set(rows.columns)):
        raise BadInputError(f"columns {missing} are missing; a row needs {list(_COLUMNS)}")
    if rows.empty:
        raise BadInputError("there is no row to answer")
    ids = _texts("id", rows["id"])
    return ids, Observations(
        images=[_image(row, value) for row, value in enumerate(rows["image"])],
        instructions=_texts("instruction", rows["instruction"]),
        states=np.stack([_state(row, value) for row, value in enumerate(rows["state"])]),
    )


def _texts(column: str, values: Iterable[Any]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BadInputError(f"row {row}: {column} is {value!r}; give a text")
        texts.append(value)
    return texts


def _image(row: int, value: Any) -> Image:
    image = _array(row, "image", value)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadInputError(f"row {row}: image has shape {image.shape}; give RGB as (height, width, 3)")
    if image.dtype.kind not in "iu":
        raise BadInputError(
            f"row {row}: image holds {image.dtype} numbers; give whole numbers from 0 to {_LEVELS} "
            f"(a picture of 0 to 1: (255 * image).round().astype('uint8'))"
        )
    low, high = image.min(), image.max()
    if low < 0 or high > _LEVELS:
        raise BadInputError(
            f"row {row}: image goes from {low} to {high}; give whole numbers from 0 to {_LEVELS}"
        )
    return image.astype(np.uint8)


def _state(row: int, value: Any) -> NDArray[np.float32]:
    state = _array(row, "state", value)
    if state.shape != (len(STATE_NAMES),) or state.dtype.kind not in "iuf":
        raise BadInputError(
            f"row {row}: state is {state.dtype} of shape {state.shape}; give {len(STATE_NAMES)} numbers: "
            f"{', '.join(STATE_NAMES)}"
        )
    state = state.astype(np.float32)
    if wrong := [name for name, each in zip(STATE_NAMES, state, strict=True) if not np.isfinite(each)]:
        raise BadInputError(
            f"row {row}: state is not finite at {wrong}; of a hand that is not known give zeros, its flag too"
        )
    flags = state[-2:]
    if not np.isin(flags, (0, 1)).all():
        raise BadInputError(f"row {row}: left_valid and right_valid are {flags.tolist()}; give 0 or 1")
    poses, velocities = state[:20].reshape(2, 10), state[20:26].reshape(2, 3)
    for side, pose, velocity, flag in zip(SIDES, poses, velocities, flags, strict=True):
        if why := _no_hand(pose, velocity, known=bool(flag)):
            raise BadInputError(f"row {row}: the {side} hand of the state {why}")
    return state


def _no_hand(pose: NDArray[np.float32], velocity: NDArray[np.float32], *, known: bool) -> str | None:
    """Say why numbers of a pose (10,) and velocity (3,) are not those of a hand that is (not) known."""
    if not known:
        told = bool(pose.any() or velocity.any())
        return "has numbers and a flag of 0; a hand that is not known has zeros" if told else None
    first, second = pose[3:6], pose[6:9]
    squares = np.array([first @ first - 1, second @ second - 1, first @ second])
    if np.abs(squares).max() > _ROTATION_SLACK:
        return "has a rotation whose two columns are not at right angles with length 1"
    if (farthest := max(np.linalg.norm(pose[:3]), abs(pose[9]))) > _FARTHEST_M:
        return f"is {farthest:.0f} m away or open; give metres"
    if (speed := np.linalg.norm(velocity)) > _FASTEST:
        return f"moves {speed:.0f} m in a second; give metres per second"
    return None


def _array(row: int, column: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise BadInputError(f"row {row}: {column} is no array of numbers: {error}") from error
