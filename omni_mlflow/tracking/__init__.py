"""MLflow shows what the journals say; it is never asked while a stage works.

A projector process of its own follows all journals of a workspace and projects them to the store, in
batches, while the stages run. Only that process imports mlflow, so this package is light.
"""

from omni_mlflow.tracking.command import ProjectorHandle, heal, start_projector, sync
from omni_mlflow.tracking.connection import store_name, trouble_with
from omni_mlflow.tracking.fetched import ShownRun, fetch_stages, find_run
from omni_mlflow.tracking.healing import heal_journals
from omni_mlflow.tracking.last_words import leave_last_words
from omni_mlflow.tracking.reports import HealedRun, HealReport, SyncReport
from omni_mlflow.tracking.shown_versions import ShownVersion
from omni_mlflow.tracking.stores import UnsupportedStoreError, open_ui_command, run_link, store_uri

__all__ = [
    "HealReport",
    "HealedRun",
    "ProjectorHandle",
    "ShownRun",
    "ShownVersion",
    "SyncReport",
    "UnsupportedStoreError",
    "fetch_stages",
    "find_run",
    "heal",
    "heal_journals",
    "leave_last_words",
    "open_ui_command",
    "run_link",
    "start_projector",
    "store_name",
    "store_uri",
    "sync",
    "trouble_with",
]
