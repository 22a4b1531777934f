"""Open the tracking store. Only the projector process does; it is the one that imports mlflow."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow.locks import in_turn
from omni_mlflow.tracking.failures import DeletedExperimentError, explain
from omni_mlflow.tracking.stores import EXPERIMENT, artifact_root, sqlite_path, without_password
from omni_mlflow.tracking.watermark import Watermarks

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A lost server must be noticed in seconds; the next pass tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        address: without password.
        id: identity of its content; a store that was deleted and made anew has another.
        experiment_id: where runs go that have no other place.
    """

    client: MlflowClient
    address: str
    id: str
    experiment_id: str


def connect(store: str, *, workspace: Path) -> Store:
    """Open ``store``, making the database and our experiment when they are absent.

    A workspace stays with the experiment that its runs are in, whatever people call that now; any other one
    goes to the experiment of our name. Several processes may do this at once: one makes the SQLite file, the
    others wait for it.

    Raises:
        DeletedExperimentError: someone deleted the experiment; MLflow keeps its name reserved.
        Exception: whatever MLflow, SQLAlchemy or requests raise when the store cannot be used.
    """
    path, address = sqlite_path(store), without_password(store)
    with in_turn(path.with_name(f"{path.name}.lock")) if path else nullcontext():
        if path and not path.exists():
            _make_database(path, store)
        client = open_client(store)
        experiment = _experiment_known(client, Watermarks(workspace, store=address).store_ids())
        if experiment is None:
            experiment = _experiment_named(client, artifact_root(store, workspace))
    _check_active(experiment)
    return Store(client, address, _identity(experiment), experiment.experiment_id)


def _make_database(path: Path, store: str) -> None:
    """Make MLflow's tables under another name first: a process that is killed here leaves no half a store.

    Nobody but us takes our turn: where ``mlflow run`` or a UI made the store meanwhile, theirs stays.
    """
    database = _database(store)
    making = path.with_name(f".{path.name}.making")
    for left in path.parent.glob(f"{making.name}*"):  # with SQLite's own files beside it
        left.unlink()
    engine = database.create_sqlalchemy_engine_with_retry(f"sqlite:///{making}")
    database._initialize_tables(engine)
    engine.dispose()
    with suppress(FileExistsError):
        os.link(making, path)
    making.unlink()


def trouble_with(store: str) -> str | None:
    """Return why ``store`` cannot take rows, and what to do about it; None when it can.

    No run, experiment or file is made: a SQLite file that is absent only needs a folder to be made in.
    """
    path = sqlite_path(store)
    if path is not None:
        place = next(place for place in (path, *path.parents) if place.exists())
        if not os.access(place, os.W_OK):
            return explain(PermissionError(f"permission denied: {place}"), store=store)
        if place != path:
            return None
    try:
        if path is not None:
            _check_pages(path)
        found = open_client(store).get_experiment_by_name(EXPERIMENT)
        if found is not None:
            _check_active(found)
    except Exception as error:  # whatever a store, its driver or the network can raise
        return explain(error, store=store)
    return None


def _check_pages(path: Path) -> None:
    """Read a whole SQLite file: a query only meets the damage of the pages that it reads.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    with closing(sqlite3.connect(path)) as database:
        [told] = database.execute("PRAGMA quick_check(1)").fetchone()
    if told != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {told}")


def open_client(store: str) -> MlflowClient:
    """Open a store as it is; nothing is made in it that a client does not make by itself."""
    _database(store)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store, registry_uri=store)


def _database(store: str) -> Any:
    """Return MLflow's module for databases, when all is set that MLflow reads at its import."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # The registry looks models up through the global URI, whatever its client was given.
    os.environ["MLFLOW_TRACKING_URI"] = store
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 3  # an unusable database is retried for 100 s otherwise
    return utils


def _experiment_known(client: MlflowClient, store_ids: Iterable[str]) -> Experiment | None:
    """Return the first experiment of these identities; None where the store has none of them.

    Every store counts its experiments from 1, so one that merely has the number is another one.
    """
    from mlflow.exceptions import MlflowException

    for store_id in store_ids:
        try:
            found = client.get_experiment(store_id.partition("-")[0])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue
        if _identity(found) == store_id:
            return found
    return None


def _experiment_named(client: MlflowClient, artifacts: Path | None) -> Experiment:
    """Return the experiment of our name, made when it is absent."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            # An explicit place: MLflow's own choice depends on the working directory of this process.
            location = (artifacts / EXPERIMENT).as_uri() if artifacts else None
            client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(EXPERIMENT)
    return found


def _identity(experiment: Experiment) -> str:
    """Number and time of creation (ms): what stays when it is renamed, and differs between stores."""
    return f"{experiment.experiment_id}-{experiment.creation_time}"


def _check_active(experiment: Experiment) -> None:
    if experiment.lifecycle_stage != "active":
        raise DeletedExperimentError(
            f"its experiment {experiment.name!r} was deleted; bring it back with: "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )


def store_name(name: str) -> str:
    """Return ``name`` as MLflow takes it for a parameter, metric or tag: at most 250 characters.

    Letters, digits and ``_ - . space : /`` stay; MLflow reads a name like a path, so it must be a plain one.
    """
    plain = re.sub(r"[^\w\-. :/]", "_", name)
    parts = [part if part.strip(".") else "_" for part in plain.split("/") if part]
    return "/".join(parts)[:250] or "_"


def run_if_there(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run of an id, deleted or not; None where the store has none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
