"""What a projection tells the command that started it."""

from __future__ import annotations

import time
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
class RunningRun:
    """A run that the store shows as RUNNING and that was left so.

    Attributes:
        alive: somebody is at work on it; else nobody here can tell.
        acts_at_ms: when ``heal`` would end it, should nothing change; None for never.
    """

    name: str
    run_id: str
    why: str
    alive: bool
    acts_at_ms: int | None = None

    @property
    def sentence(self) -> str:
        told = f"{self.name} (run {self.run_id}) stays RUNNING: {self.why}"
        if self.alive:
            return told
        clock = time.localtime((self.acts_at_ms or 0) / 1000)
        when = f"from {time.strftime('%Y-%m-%d %H:%M:%S', clock)} on" if self.acts_at_ms else "never"
        return f"{told}; heal ends it {when}; if it is dead: omni-mlflow heal --end {self.run_id}"


@dataclass(frozen=True)
class SyncReport:
    """How far the store shows what the journals say.

    Attributes:
        projected: journal rows brought to the store by this call.
        left: rows that the store does not show yet; they stay in the journals.
        runs: MLflow runs that this call changed.
        unshown: runs that ``notes`` name: somebody deleted them in the store, and they stay so, or they
            belong to another copy of the workspace.
        failure: why rows are left, in words, and what to do about it.
        vanished: which journals are not where they were, in words, and what to do about it: nobody knows how
            many rows they hold.
        notes: what is not as expected though nothing is left, such as an artifact deleted by hand.
        healed: runs of the store that nobody would ever have ended.
        running: the runs of this project that are RUNNING after that.
        foreign: how many other runs are.
        not_ended: why a run that a person wanted ended was not.
    """

    projected: int = 0
    left: int = 0
    runs: int = 0
    unshown: int = 0
    failure: str | None = None
    vanished: str | None = None
    notes: tuple[str, ...] = ()
    healed: tuple[HealedRun, ...] = ()
    running: tuple[RunningRun, ...] = ()
    foreign: int = 0
    not_ended: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return self.left == 0 and self.failure is None and self.vanished is None

    @property
    def sentence(self) -> str:
        if self.complete:
            but = f" but the runs that a note names ({self.unshown})" if self.unshown else ""
            new = f"{self.projected} new rows, {self.runs} runs changed"
            return f"the tracking store shows everything{but}: {new}"
        left = (
            f"{self.left} journal rows are not in the tracking store: {self.failure or 'it was cut short'}. "
            "Nothing is lost, they are in the workspace; bring them over with: omni-mlflow sync"
        )
        if self.vanished is None:
            return left
        return f"{left}. {self.vanished}" if self.left or self.failure else self.vanished


@dataclass(frozen=True)
class HealReport:
    """What ``heal`` did, and what it left.

    Attributes:
        failure: why the store may still show what it showed before.
    """

    healed: tuple[HealedRun, ...]
    running: tuple[RunningRun, ...]
    foreign: int
    not_ended: tuple[str, ...]
    failure: str | None

    @property
    def ok(self) -> bool:
        """Every run was ended, or somebody works on it."""
        return self.failure is None and not self.not_ended and all(run.alive for run in self.running)

    @property
    def lines(self) -> list[str]:
        told = [f"{run.name}: {run.reason}" for run in self.healed]
        told += [run.sentence for run in self.running] + list(self.not_ended)
        if self.foreign:
            told.append(f"{self.foreign} RUNNING runs were not made by this project: left to their owners")
        return told or ["nothing to heal"]


REPORTS = TypeAdapter(SyncReport)
"""Reads and writes a report as the one line that a projector says."""
