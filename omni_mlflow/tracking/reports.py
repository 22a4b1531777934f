"""What a projection tells the command that started it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True)
class HealedRun:
    """A run whose process died without ending it, and which is KILLED from now on.

    Attributes:
        key: our key of the run; None for a run that ``mlflow run`` made and no stage ever entered.
        run_id: its MLflow run, where it is known.
    """

    name: str
    key: str | None
    run_id: str | None
    reason: str


@dataclass(frozen=True)
class SyncReport:
    """How far the store shows what the journals say.

    Attributes:
        projected: journal rows brought to the store by this call.
        left: rows that the store does not show yet; they stay in the journals.
        runs: MLflow runs that this call changed.
        failure: why rows are left, in words, and what to do about it.
        notes: what is not as expected though nothing is left, such as an artifact deleted by hand.
        healed: runs of the store that nobody would ever have ended.
    """

    projected: int = 0
    left: int = 0
    runs: int = 0
    failure: str | None = None
    notes: tuple[str, ...] = ()
    healed: tuple[HealedRun, ...] = ()

    @property
    def complete(self) -> bool:
        return self.left == 0 and self.failure is None

    @property
    def sentence(self) -> str:
        if self.complete:
            return f"the tracking store shows everything: {self.projected} new rows, {self.runs} runs changed"
        return (
            f"{self.left} journal rows are not in the tracking store: {self.failure or 'it was cut short'}. "
            "Nothing is lost, they are in the workspace; bring them over with: omni-mlflow sync"
        )


REPORTS = TypeAdapter(SyncReport)
"""Reads and writes a report as the one line that a projector says."""
