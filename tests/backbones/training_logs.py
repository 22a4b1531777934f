"""A training log in memory, for trainings without a workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ListLog:
    """A training log in memory; state and checkpoint lie below ``root``.

    Attributes:
        lost: steps up to which the rows are said not to be whole.
    """

    root: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    stop_after: int | None = None
    lost: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for folder in (self.checkpoint, self.resume):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def resume(self) -> Path:
        return self.root / "resume"

    def progress(self, event: str, *, step: int, **values: float | int | str) -> None:
        self.rows.append({"event": event, "step": step, **values})
        if event == "step" and step == self.stop_after:
            raise KeyboardInterrupt

    def preparing(self, what: str, *, done: int, total: int) -> None:
        raise AssertionError("the nano base is a folder: nothing has to be prepared")

    def consumed(self, sample_ids, *, step: int) -> None:
        self.ledger.append((step, tuple(sample_ids)))

    def measured(self, values, *, step: int) -> None:
        assert 0 <= values["data_wait_share"] <= 1

    def rewind(self, saved) -> int:
        step = max((each for each in saved if each not in self.lost), default=0)
        self.rows = [row for row in self.rows if row["step"] <= step] if step else []
        self.ledger = [entry for entry in self.ledger if entry[0] <= step]
        return step

    def losses(self) -> list[Any]:
        return [row["loss"] for row in self.rows if row["event"] == "step"]
