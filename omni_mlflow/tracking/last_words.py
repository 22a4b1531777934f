"""The reason of a command under ``mlflow run`` that ended before it could write a journal.

``python -m omni_mlflow.tracking.last_words RUN_ID OUTCOME REASON --project DIR [--end]``, the store's address
in ``MLFLOW_TRACKING_URI``. ``mlflow run`` has made a run for the command and will end it FAILED, unless it
died itself (``--end``); where the workspace is full, unusable or not even named, no journal can say why. A
run that a stage has entered, or that ``mlflow run`` did not make for this project, is left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from omni_mlflow import PARENT_PID
from omni_mlflow.events import RunOutcome
from omni_mlflow.spine.processes import was_adopted
from omni_mlflow.tracking.stores import UnsupportedStoreError, store_uri

PATIENCE_S = 60.0


def leave_last_words(reason: str, *, outcome: RunOutcome, project: Path) -> None:
    """Show ``reason`` in the run of ``MLFLOW_RUN_ID``, and end it where ``mlflow run`` is no longer there to.

    A store that does not take it stops nothing.
    """
    orphaned = os.getppid() != PARENT_PID or was_adopted(PARENT_PID)
    environment = dict(os.environ)
    run_id = environment.pop("MLFLOW_RUN_ID")
    with suppress(UnsupportedStoreError, OSError, subprocess.TimeoutExpired):
        environment["MLFLOW_TRACKING_URI"] = store_uri(project)
        subprocess.run(
            [sys.executable, "-m", __name__, run_id, outcome, reason, "--project", str(project)]
            + ["--end"] * orphaned,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a terminal sends a second Ctrl-C to all of its group
            timeout=PATIENCE_S,
            check=False,
        )


def main() -> None:
    from mlflow import MlflowClient

    from omni_mlflow.tracking.store_healing import could_be_of_project, is_entered

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("outcome", type=RunOutcome)
    parser.add_argument("reason")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--end", action="store_true")
    given = parser.parse_args()
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run = client.get_run(given.run_id)
    unentered = run.info.status == "RUNNING" and not is_entered(run)
    if unentered and could_be_of_project(run, given.project):
        entry_point = run.data.tags.get("mlflow.project.entryPoint", "main")
        client.set_tag(given.run_id, "omni.stage", entry_point)
        client.set_tag(given.run_id, "omni.outcome", given.outcome)
        client.set_tag(given.run_id, "mlflow.note.content", given.reason)
        if given.end:
            client.set_terminated(given.run_id, "KILLED")


if __name__ == "__main__":
    main()
