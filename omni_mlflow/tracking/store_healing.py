"""RUNNING runs that nobody will end: ended in the store when their process is gone, else listed with why.

A run that ``mlflow run`` ended itself, because its command died before it could write a journal, gets the
outcome and the reason that nobody else will give it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil

from omni_mlflow.events import RunOutcome
from omni_mlflow.spine.processes import Process, is_alive, is_of_earlier_boot
from omni_mlflow.tracking.healing import SILENT_S
from omni_mlflow.tracking.launchers import has_projector, run_ids_of_living_processes, starts_of_mlflow_run
from omni_mlflow.tracking.outer_runs import KEY_TAG, OUTCOME_TAG
from omni_mlflow.tracking.reports import HealedRun, RunningRun
from omni_mlflow.tracking.signs_of_life import HEARTBEAT_TAG, PROCESS_TAG, last_sign_s, process_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

WATCH_S = 45.0
"""What is judged by the clock of another machine is watched for one and a half heartbeats by our own."""

UNENTERED_S = 120
"""A run that no stage entered, when no ``mlflow run`` of this machine is left that could start one."""

_UNENTERED_ELSEWHERE_S = 3600
"""The same, where another machine may be at it: building an environment takes minutes, not an hour."""

_RUNNING = "attributes.status = 'RUNNING'"

_ENDED_BY_MLFLOW_RUN = (
    "attributes.status != 'RUNNING' and attributes.status != 'FINISHED' "
    "and tags.`mlflow.source.type` = 'PROJECT'"
)

_FREED = (
    "it is nobody's any more; how a workspace that went on with it ended shows after: omni-mlflow sync, there"
)

_CLOCK_S = 5
"""By so much the start of a process and the start of a run may be told wrongly."""


@dataclass(frozen=True)
class _Dead:
    reason: str
    end_s: float


class StoreHealer:
    """Ends the runs of one store whose process is gone, and remembers which ones it must watch.

    A run that this project entered names its process. One of this machine is dead when its process and its
    projector are gone; one of an earlier boot, or of a machine that was silent for a day, when it also gives
    no heartbeat while it is watched: so a clock that is wrong kills nobody. A run that ``mlflow run`` made
    and no stage entered is dead when nothing is left that could enter it.

    Attributes:
        healed: runs that were ended.
        left: the runs of this project that were RUNNING at the last look.
        foreign: how many other runs were.
    """

    def __init__(self, client: MlflowClient, *, project: Path, shared: bool) -> None:
        """``shared``: other machines use this store too. ``project``: root of this project."""
        self.healed: list[HealedRun] = []
        self.left: list[RunningRun] = []
        self.foreign = 0
        self._client = client
        self._project = project
        self._patience_s = _UNENTERED_ELSEWHERE_S if shared else UNENTERED_S
        self._signs: dict[str, tuple[float, float]] = {}

    @property
    def watches(self) -> bool:
        """Some run may turn out to be dead ``WATCH_S`` after the last look."""
        return bool(self._signs)

    def look(self, *, entered: Collection[str], now_s: float) -> None:
        """End what is dead.

        Args:
            entered: run ids that journals of this workspace name.
            now_s: seconds on a clock that only goes forward.
        """
        busy = {*entered, *run_ids_of_living_processes()}
        launcher_s = min(starts_of_mlflow_run(), default=math.inf)
        self.left, self.foreign, before = [], 0, self._signs
        self._signs = {}
        for run in self._runs(_RUNNING):
            process = process_of(run.data.tags)
            if process is not None:
                judged = self._judge(run, process, before.get(run.info.run_id), now_s)
            elif is_entered(run) or is_of_project(run, self._project):
                judged = self._judge_unentered(run, busy=busy, launcher_s=launcher_s)
            else:
                self.foreign += 1
                continue
            if isinstance(judged, RunningRun):
                self.left.append(judged)
            elif self._is_still(run):
                self._end(run, judged)
        for run in self._runs(_ENDED_BY_MLFLOW_RUN):
            if self._ended_unentered(run, busy):
                self._explain(run)

    def end(self, run_id: str) -> str | None:
        """End a run because a person says so; return why not, when it cannot be done.

        One that is FINISHED stays so, and is no longer its process's: the copy of the workspace that it was
        finished in is gone, and another one may go on with it.
        """
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            return f"run {run_id}: {error.message}"
        process = process_of(run.data.tags)
        is_finished = run.info.status == "FINISHED" and process is not None
        if run.info.status != "RUNNING" and not is_finished:
            return f"run {run_id} is {run.info.status} already"
        if process is None and not is_entered(run) and not could_be_of_project(run, self._project):
            return f"run {run_id} was not made by this project; end it with the tool that made it"
        if process is not None and is_alive(process):
            return f"run {run_id} is alive: process {process.pid} works on it; stop that process"
        if is_finished:
            self._client.delete_tag(run_id, PROCESS_TAG)
            self.healed.append(HealedRun(name=_name(run), key=None, run_id=run_id, reason=_FREED))
            return None
        last_s = last_sign_s(run.data.tags, start_ms=run.info.start_time)
        self._end(run, _Dead("ended by a person, who said that nobody works on it any more", last_s))
        return None

    def _runs(self, filter_string: str) -> Iterator[Run]:
        experiments = [each.experiment_id for each in self._client.search_experiments()]
        token: str | None = None
        while True:
            page = self._client.search_runs(
                experiments, filter_string=filter_string, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _judge(
        self, run: Run, process: Process, before: tuple[float, float] | None, now_s: float
    ) -> _Dead | RunningRun:
        alive = is_alive(process)
        here = f"process {process.pid} on this machine"
        if alive:
            return _left(run, f"{here} works on it", alive=True)
        sign_s = last_sign_s(run.data.tags, start_ms=run.info.start_time)
        if alive is False and not is_of_earlier_boot(process):
            if has_projector(process.pid):
                return _left(run, f"{here} has ended, and its last rows are being brought over", alive=True)
            return _Dead(_died(process, "is gone"), sign_s)
        if alive is False and sign_s < psutil.boot_time():
            return self._watch(run, _Dead(_died(process, "is of an earlier boot"), sign_s), before, now_s)
        told = f"process {process.pid} on {process.host} cannot be seen from here"
        if time.time() - sign_s > SILENT_S:
            return self._watch(run, _Dead(_died(process, "gave no sign for a day"), sign_s), before, now_s)
        return _left(run, f"{told}; it last gave a sign at {_clock(sign_s)}", acts_s=sign_s + SILENT_S)

    def _watch(
        self, run: Run, dead: _Dead, before: tuple[float, float] | None, now_s: float
    ) -> _Dead | RunningRun:
        """Believe a death only when the run gives no sign while we look, whatever its clock says."""
        first_s = before[1] if before is not None and before[0] == dead.end_s else now_s
        if now_s - first_s >= WATCH_S:
            return dead
        self._signs[run.info.run_id] = dead.end_s, first_s
        left_s = WATCH_S - (now_s - first_s)
        told = f"it is watched for a heartbeat, which comes every 30 s, for {left_s:.0f} s more"
        return _left(run, told, acts_s=time.time() + left_s)

    def _judge_unentered(self, run: Run, *, busy: Collection[str], launcher_s: float) -> _Dead | RunningRun:
        start_s = run.info.start_time / 1000
        if is_entered(run):
            return _left(run, "it does not name the process that works on it")
        if run.info.run_id in busy:
            return _left(run, "a living process of this machine carries its id", alive=True)
        if OUTCOME_TAG in run.data.tags:  # the command left its last words; mlflow run was killed with it
            return _Dead(run.data.tags.get("mlflow.note.content", ""), start_s)
        if launcher_s <= start_s + _CLOCK_S:
            return _left(run, "an mlflow run that lives on this machine may be about to start its stage")
        if time.time() - start_s <= self._patience_s:
            return _left(run, "no stage has entered it yet", acts_s=start_s + self._patience_s)
        reason = (
            "no stage ever entered this run: mlflow run was killed, or failed before it could start the "
            "stage; its output tells why"
        )
        return _Dead(reason, start_s)

    def _ended_unentered(self, run: Run, busy: Collection[str]) -> bool:
        """Whether ``mlflow run`` ended a run of this project that no stage entered or will still show."""
        told = is_entered(run) or OUTCOME_TAG in run.data.tags
        if told or run.info.run_id in busy or not is_of_project(run, self._project):
            return False
        ended_ms: int = run.info.end_time or run.info.start_time
        return time.time() - ended_ms / 1000 > self._patience_s

    def _explain(self, run: Run) -> None:
        reason = (
            "no journal that can be seen from here names this run: its command was stopped while it was "
            "starting, its environment could not be made, or its workspace is another one (then: omni-mlflow "
            "sync there); the output of mlflow run tells which"
        )
        outcome = RunOutcome.KILLED if run.info.status == "KILLED" else RunOutcome.FAILED
        self._client.set_tag(run.info.run_id, OUTCOME_TAG, outcome)
        self._client.set_tag(run.info.run_id, "mlflow.note.content", reason)
        self.healed.append(HealedRun(name=_name(run), key=None, run_id=run.info.run_id, reason=reason))

    def _is_still(self, run: Run) -> bool:
        """Look twice: the run may have been ended or entered again since it was listed."""
        now = self._client.get_run(run.info.run_id)
        same = all(now.data.tags.get(tag) == run.data.tags.get(tag) for tag in (PROCESS_TAG, HEARTBEAT_TAG))
        return same and now.info.status == "RUNNING"

    def _end(self, run: Run, dead: _Dead) -> None:
        run_id = run.info.run_id
        self._client.set_tag(run_id, OUTCOME_TAG, RunOutcome.KILLED)
        self._client.set_tag(run_id, "mlflow.note.content", dead.reason)
        self._client.set_terminated(run_id, "KILLED", end_time=round(1000 * dead.end_s))
        healed = HealedRun(name=_name(run), key=None, run_id=run_id, reason=dead.reason)
        self.healed.append(healed)
        self.left = [each for each in self.left if each.run_id != run_id]


def is_of_project(run: Run, project: Path) -> bool:
    """Whether ``mlflow run`` made a run for ``project``; with a remote address it is not recognised."""
    tags = run.data.tags
    source = unquote(urlsplit(tags.get("mlflow.source.name", "")).path)
    made = tags.get("mlflow.source.type") == "PROJECT"
    return made and bool(source) and Path(source).resolve() == project.resolve()


def is_entered(run: Run) -> bool:
    """Whether a stage has entered a run; last words alone are none."""
    return KEY_TAG in run.data.tags or process_of(run.data.tags) is not None


def could_be_of_project(run: Run, project: Path) -> bool:
    """Whether ``mlflow run`` may have made a run for ``project`` by its address, or for another checkout."""
    if is_of_project(run, project):
        return True
    source = urlsplit(run.data.tags.get("mlflow.source.name", ""))
    if run.data.tags.get("mlflow.source.type") != "PROJECT":
        return False
    described = Path(unquote(source.path)) / "MLproject"
    if source.scheme in ("", "file") and described.parent.exists():
        return described.is_file() and described.read_bytes() == (project / "MLproject").read_bytes()
    return True


def _name(run: Run) -> str:
    return str(run.data.tags.get("mlflow.project.entryPoint") or run.info.run_name)


def _left(run: Run, why: str, *, alive: bool = False, acts_s: float | None = None) -> RunningRun:
    at_ms = None if acts_s is None else round(1000 * acts_s)
    return RunningRun(name=_name(run), run_id=run.info.run_id, why=why, alive=alive, acts_at_ms=at_ms)


def _died(process: Process, how: str) -> str:
    return (
        f"process {process.pid} on {process.host} {how}, and nobody else can end this run (kill -9, out of "
        "memory or power loss); what its journal says later is still shown by: omni-mlflow sync"
    )


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
