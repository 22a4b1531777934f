"""What a number is called, and whether more of it is better."""

from __future__ import annotations

from typing import Literal

from omni_mlflow.spine.types import Row


class Metric(Row):
    """One metric of ``metrics.json``.

    Attributes:
        title: as a report calls it.
        unit: of its value; None for a share between 0 and 1.
    """

    title: str
    better: Literal["higher", "lower"] = "higher"
    unit: str | None = None
