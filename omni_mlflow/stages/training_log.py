"""What a training says while it goes on, and the points from which it can go on after it was cut off."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from omni_mlflow.journal import Journal, Mark
from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.types import Row
from omni_mlflow.stages.base import Run
from omni_mlflow.stages.manifests import LEDGER


class ResumePoint(Row):
    """What the journals of a training held when the state of a step was saved.

    Attributes:
        journals: by file name.
    """

    step: int
    journals: dict[str, Mark]


class ResumePoints(Row):
    """``resume_points.json``: one point per checkpoint, in the order of steps."""

    points: tuple[ResumePoint, ...] = ()


class RewoundTooLateError(Exception):
    """A backbone's training wrote a row before it asked from where to go on."""


class DivergedError(Exception):
    """A training reported a number that is none."""


class StageTrainingLog:
    """Journals of a training: progress and the ledger of consumed samples."""

    def __init__(self, run: Run) -> None:
        self.checkpoint = run.folder / "checkpoint"
        self.resume = run.folder / "resume"
        for folder in (self.checkpoint, self.resume):
            folder.mkdir(parents=True, exist_ok=True)
        self._points_path = run.folder / "resume_points.json"
        self._progress = Journal(run.folder / "progress.jsonl")
        self._ledger = Journal(run.folder / LEDGER)
        self._journals = {journal.path.name: journal for journal in (self._progress, self._ledger)}
        self._record = run.record
        self._say = run.say
        self._bar = run.bar
        self._advance: Callable[[int], None] | None = None
        self._preparation: Callable[[int], None] | None = None
        self._begun = False
        self.last_step = 0
        run.report_torn(*self._journals.values())
        run.record.live_artifact(self._progress.path)

    def progress(self, event: str, *, step: int, **values: float | int | str) -> None:
        self._begin()
        self._refuse_no_number(event, step, values)
        row = {"event": event, "step": step, **values}
        self._progress.append(row)
        self._show(row)
        if event == "checkpoint":
            self._record.settle()  # a resume shows losses again from progress.jsonl, but times are only there
            self._remember(step)
        self.last_step = step
        if event == "start":
            total = int(values.get("total_steps", 0))
            self._advance = self._bar.start("train", total=total, done=step)
        elif self._advance:
            self._advance(step)

    def preparing(self, what: str, *, done: int, total: int) -> None:
        if self._preparation is None:
            self._preparation = self._bar.start(what, total=total)
        self._preparation(done)

    def consumed(self, sample_ids: Sequence[str], *, step: int) -> None:
        self._begin()
        self._ledger.append({"step": step, "ids": list(sample_ids)})

    def measured(self, values: Mapping[str, float], *, step: int) -> None:
        self._record.metrics({f"time/{key}": value for key, value in values.items()}, step=step)

    def rewind(self, saved: Collection[int]) -> int:
        if self._begun:
            raise RewoundTooLateError("rewind is asked once, before the first row of a training")
        self._begun = True
        points = {point.step: point for point in self._points()}
        whole = [step for step in saved if step in points and self._holds(points[step])]
        step = max(whole, default=0)
        if step < max(saved, default=0):
            goes_on = f"goes on from step {step}" if step else "begins again"
            self._say(
                f"progress.jsonl or {LEDGER} no longer holds the rows that the checkpoint of step "
                f"{max(saved)} builds on; training {goes_on}"
            )
        for name, journal in self._journals.items():
            journal.truncate_after(points[step].journals[name].num_rows if step else 0)
        self._keep([point for point in points.values() if point.step <= step])
        self._show_again()
        self.last_step = step
        return step

    def _begin(self) -> None:
        """Who writes without having asked keeps no state: what was written before is written again."""
        if not self._begun:
            self.rewind(())

    def _refuse_no_number(self, event: str, step: int, values: Mapping[str, float | int | str]) -> None:
        """No row of NaN or infinity is written, and no state is saved after one: both would outlive it."""
        floats = {key: value for key, value in values.items() if isinstance(value, float)}
        told = " and ".join(f"{key} is {value}" for key, value in floats.items() if not math.isfinite(value))
        if not told:
            return
        saved = max((point.step for point in self._points()), default=0)
        goes_on = f"goes on from the state of step {saved}, which is kept," if saved else "begins again"
        raise DivergedError(
            f"training diverged: at step {step} ({event}) {told}. Lower the learning rate, take a precision "
            "of wider range (float32), or look for broken values in the data; with a changed setting it "
            f"begins anew. The same command as before {goes_on} and is likely to end here again"
        )

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()

    def _show(self, row: Mapping[str, Any]) -> None:
        """Record the numbers of a progress row, in place of what an attempt that was cut off recorded."""
        self._record.curve(_numbers_of(row), step=row["step"])

    def _show_again(self) -> None:
        """Record what ``progress.jsonl`` holds and the record lacks; of two rows of a step the last."""
        by_step: dict[int, dict[str, float]] = defaultdict(dict)
        for row in self._progress.rows():
            by_step[row["step"]] |= _numbers_of(row)
        for step, numbers in by_step.items():
            self._record.curve(numbers, step=step)

    def _points(self) -> list[ResumePoint]:
        if not self._points_path.is_file():
            return []
        return list(read_document(self._points_path, ResumePoints).points)

    def _remember(self, step: int) -> None:
        journals = {name: journal.mark() for name, journal in self._journals.items()}
        self._keep([*self._points(), ResumePoint(step=step, journals=journals)])

    def _keep(self, points: Sequence[ResumePoint]) -> None:
        write_document(self._points_path, ResumePoints(points=tuple(points)))

    def _holds(self, point: ResumePoint) -> bool:
        return all(journal.holds(point.journals[name]) for name, journal in self._journals.items())


def last_of_the_curves(progress: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The number that each curve ends with, by its name in the tracker; of two rows of a step the last."""
    rows = sorted(progress, key=lambda row: int(row["step"]))
    return {key: value for row in rows for key, value in _numbers_of(row).items()}


def _numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a row adds to the curves, by their names in the tracker."""
    prefix = {"step": "train", "validation": "val"}.get(row["event"])
    if prefix is None:
        return {}
    return {f"{prefix}/{key}": value for key, value in row.items() if key != "step" and _is_number(value)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
