"""How far points come back from an action space: measured on train, a bound for every other episode."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine.poses import Floats
from omni_mlflow.spine.rows import appearing_at_once
from omni_mlflow.spine.types import Row

_ROUNDING_MM = 1e-3  # joints are stored as float32, good for 6e-8 of a metre
_PREFIX = "round_trip."


class RoundTrip(Row):
    """How far points come back, in millimetres, the mean over the points of a hand or of a body.

    Attributes:
        mean_mm: over steps and hands.
        max_mm: of the worst one.
    """

    mean_mm: float
    max_mm: float


class Bound(RoundTrip):
    """The same on train episodes, those of a fit left out of it: what another episode may lose.

    Attributes:
        episode_mean_mm: mean of the worst of these episodes.
        tolerance: how much more than the worst of train another episode may lose, as a factor.
    """

    episode_mean_mm: float
    tolerance: float

    def holds(self, found: RoundTrip) -> bool:
        """Tell whether an episode's mean is within that of the worst train episode, and its worst step within
        the worst train step, both times the tolerance."""
        mean_mm = self.tolerance * self.episode_mean_mm + _ROUNDING_MM
        return found.mean_mm <= mean_mm and found.max_mm <= self.tolerance * self.max_mm + _ROUNDING_MM


def bound_of(errors_mm: Floats, groups: NDArray[np.signedinteger], *, tolerance: float) -> Bound:
    """Return the bound that errors set, each of the episode that ``groups`` says; shape (rows,) both."""
    means = [float(errors_mm[groups == group].mean()) for group in np.unique(groups)]
    return Bound(
        mean_mm=float(errors_mm.mean()),
        max_mm=float(errors_mm.max()),
        episode_mean_mm=max(means),
        tolerance=tolerance,
    )


class RetargetingMaps(Row):
    """What an action cannot be written or read without. Every number is an exact float64.

    Attributes:
        round_trip: by action space.
    """

    round_trip: dict[str, Bound]

    @property
    @abstractmethod
    def num_examples(self) -> tuple[int, ...]:
        """How many left and right hands, or bodies, they were fitted on."""


MapsT = TypeVar("MapsT", bound=RetargetingMaps)


def save_maps(path: Path, maps: RetargetingMaps) -> None:
    """Write the maps as float64 tensors, atomically."""
    from safetensors.numpy import save

    arrays = {name: np.array(value) for name, value in maps.model_dump(exclude={"round_trip"}).items()}
    for space, measured in maps.round_trip.items():
        arrays[f"{_PREFIX}{space}"] = np.array(list(measured.model_dump().values()))
    with appearing_at_once(path) as temporary:
        temporary.write_bytes(save(arrays))


def load_maps(path: Path, form: type[MapsT]) -> MapsT:
    """Read what :func:`save_maps` wrote: equal to the last bit.

    Raises:
        pydantic.ValidationError: a tensor is missing or has another shape.
    """
    from safetensors.numpy import load_file

    arrays = load_file(path)
    values: dict[str, Any] = {name: array.tolist() for name, array in arrays.items() if _PREFIX not in name}
    values["round_trip"] = {
        name.removeprefix(_PREFIX): dict(zip(Bound.model_fields, array.tolist(), strict=True))
        for name, array in arrays.items()
        if name.startswith(_PREFIX)
    }
    return form.model_validate(values)
