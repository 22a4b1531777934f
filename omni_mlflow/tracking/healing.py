"""Runs whose process died without a word are ended as KILLED, in their journal or in the store.

After ``kill -9``, power loss or an out-of-memory kill nobody is left to end a run; it would be shown as
running for ever.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil

from omni_mlflow.events import Ended, RunOutcome, Started, read_events, run_journals, torn_tags
from omni_mlflow.journal import Journal, JournalBusyError
from omni_mlflow.record import reserve_of
from omni_mlflow.spine.processes import Process, is_alive
from omni_mlflow.spine.rows import BadRowError, NewerSchemaError
from omni_mlflow.tracking.reports import HealedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_SILENT_S = 24 * 3600
"""A run of another machine that wrote nothing for so long counts as dead: nobody here can look."""

_UNENTERED_S = 120
"""A run that no stage entered, when no ``mlflow run`` of this machine is left that could start one."""

_UNENTERED_ELSEWHERE_S = 3600
"""The same, where another machine may be at it: building an environment takes minutes, not an hour."""

_CLOCK_S = 5
"""By so much the start of a process and the start of a run may be told wrongly."""


def heal_journals(workspace: Path) -> list[HealedRun]:
    """End every run of the workspace whose process is gone and whose journal nobody holds."""
    healed = []
    for path in run_journals(workspace):
        try:
            started = _unended(path)
            if started is not None and _is_dead(started.process, path):
                healed += _end(path)
        except (JournalBusyError, BadRowError, NewerSchemaError, OSError):
            continue  # alive after all, or unreadable: the projection reports that by name
    return healed


def _unended(path: Path) -> Started | None:
    marks = [event for event in read_events(path) if isinstance(event, Started | Ended)]
    return marks[-1] if marks and isinstance(marks[-1], Started) else None


def _is_dead(process: Process, journal: Path) -> bool:
    alive = is_alive(process)
    if alive is None:
        return time.time() - journal.stat().st_mtime > _SILENT_S
    return not alive


def _end(path: Path) -> list[HealedRun]:
    last_sign_ms = path.stat().st_mtime_ns // 1_000_000
    with Journal(path) as journal:
        started = _unended(path)
        if started is None:
            return []
        process = started.process
        reason = (
            f"process {process.pid} on {process.host} died without ending this run "
            "(kill -9, out of memory or power loss); what it had finished is kept, run it again to go on"
        )
        torn = journal.quarantined
        reason = f"{reason}; {torn}" if torn else reason
        ended = Ended(
            at_ms=max(started.at_ms, last_sign_ms), status="KILLED", outcome=RunOutcome.KILLED, reason=reason
        )
        reserve_of(path).unlink(missing_ok=True)
        if torn:
            journal.append(torn_tags(torn).model_dump(mode="json"))
        journal.append(ended.model_dump(mode="json"))
    return [HealedRun(name=started.name, key=started.key, run_id=started.mlflow_run_id, reason=reason)]


def heal_store(
    client: MlflowClient, *, project: Path, entered: Collection[str], shared: bool
) -> list[HealedRun]:
    """End the RUNNING runs that ``mlflow run`` made for this project and that no stage ever entered.

    They stay when ``mlflow run`` dies, or fails between making the run and starting the stage. Runs of
    other projects, runs whose id a living process of this machine carries, and runs that a living
    ``mlflow run`` of this machine may have made are left alone. Should a stage enter an ended run after
    all (from a container, which cannot be seen from here), the run is RUNNING again.

    Args:
        project: root of this project; ``mlflow run`` of a remote address is not recognised.
        entered: run ids that journals of this workspace name.
        shared: other machines use this store too, so longer is waited.
    """
    patience_s = _UNENTERED_ELSEWHERE_S if shared else _UNENTERED_S
    experiments = [each.experiment_id for each in client.search_experiments()]
    query = "attributes.status = 'RUNNING' and tags.`mlflow.source.type` = 'PROJECT'"
    alive = {*entered, *_run_ids_of_living_processes()}
    first_launcher_s = min(_starts_of_mlflow_run(), default=math.inf)
    healed = []
    for run in client.search_runs(experiments, filter_string=query, max_results=1000):
        start_s = run.info.start_time / 1000
        abandoned = time.time() - start_s > patience_s and first_launcher_s > start_s + _CLOCK_S
        if abandoned and run.info.run_id not in alive and _is_of_project(run, project):
            healed.append(_end_in_store(client, run))
    return healed


def _is_of_project(run: Run, project: Path) -> bool:
    tags = run.data.tags
    source = unquote(urlsplit(tags.get("mlflow.source.name", "")).path)
    ours = any(key.startswith("omni.") for key in tags)
    return not ours and bool(source) and Path(source).resolve() == project.resolve()


def _end_in_store(client: MlflowClient, run: Run) -> HealedRun:
    run_id = run.info.run_id
    reason = (
        "no stage ever entered this run: mlflow run was killed, or failed before it could start the stage; "
        "its output tells why"
    )
    client.set_tag(run_id, "omni.outcome", RunOutcome.KILLED)
    client.set_tag(run_id, "mlflow.note.content", reason)
    client.set_terminated(run_id, "KILLED", end_time=run.info.start_time)
    name = run.data.tags.get("mlflow.project.entryPoint") or run.info.run_name
    return HealedRun(name=name, key=None, run_id=run_id, reason=reason)


def _starts_of_mlflow_run() -> list[float]:
    """Return when every ``mlflow run`` of this machine that still lives began, in seconds since 1970."""
    processes = psutil.process_iter(["cmdline", "create_time"])
    return [each.info["create_time"] for each in processes if _is_mlflow_run(each.info["cmdline"] or ())]


def _is_mlflow_run(command_line: Sequence[str]) -> bool:
    names = [Path(argument).name for argument in command_line]
    return "mlflow" in names and "run" in names[names.index("mlflow") :]


def _run_ids_of_living_processes() -> set[str]:
    """Return the ``MLFLOW_RUN_ID`` of every process whose environment we may read."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {os.fsdecode(each[14:]) for each in variables if each.startswith(b"MLFLOW_RUN_ID=")}
    return found
