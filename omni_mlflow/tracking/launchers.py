"""Processes of this machine that may still start, carry or finish a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil

PROJECTOR = "omni_mlflow.tracking.projector"


def starts_of_mlflow_run() -> list[float]:
    """Return when every ``mlflow run`` of this machine that still lives began, in seconds since 1970."""
    processes = psutil.process_iter(["cmdline", "create_time"])
    return [each.info["create_time"] for each in processes if _is_mlflow_run(each.info["cmdline"] or ())]


def run_ids_of_living_processes() -> set[str]:
    """Return the ``MLFLOW_RUN_ID`` of every process whose environment we may read."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {os.fsdecode(each[14:]) for each in variables if each.startswith(b"MLFLOW_RUN_ID=")}
    return found


def has_projector(pid: int) -> bool:
    """Tell whether the projector of process ``pid`` lives: it outlives that process to end its runs."""
    for each in psutil.process_iter(["pid", "cmdline"]):
        line = each.info["cmdline"] or []
        if each.info["pid"] != os.getpid() and PROJECTOR in line and line[-2:] == ["--parent", str(pid)]:
            return True
    return False


def _is_mlflow_run(command_line: Sequence[str]) -> bool:
    names = [Path(argument).name for argument in command_line]
    return "mlflow" in names and "run" in names[names.index("mlflow") :]
