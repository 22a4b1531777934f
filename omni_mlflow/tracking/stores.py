"""Where runs are shown: the store's address, what may be said of it aloud, and where its artifacts lie."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from omni_mlflow.tracking.watermark import Watermarks

EXPERIMENT = "omni-mlflow"
_SQLITE = "sqlite:///"
_SECRET = ("password", "passwd", "passfile", "sslpassword")


class UnsupportedStoreError(Exception):
    """The tracking URI names a kind of store in which runs would not survive."""


def store_uri(project_root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or the SQLite file at the project root.

    A relative SQLite path is made absolute, so that every process means the same file.

    Raises:
        UnsupportedStoreError: the URI is a folder of files, which MLflow no longer maintains.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{_SQLITE}{project_root.resolve()}/mlflow.db"
    if urlsplit(uri).scheme in ("", "file"):
        raise UnsupportedStoreError(
            f"MLFLOW_TRACKING_URI={uri} is a folder of files, a store that MLflow no longer maintains; "
            "unset it to use a SQLite file, or give sqlite:///PATH, postgresql://... or http(s)://..."
        )
    path = sqlite_path(uri)
    return f"{_SQLITE}{path}" if path else uri


def sqlite_path(store: str) -> Path | None:
    """Return the absolute path of a SQLite store's file; None for any other store."""
    return Path(store.removeprefix(_SQLITE)).resolve() if store.startswith(_SQLITE) else None


def is_server(store: str) -> bool:
    return urlsplit(store).scheme in ("http", "https")


def without_password(store: str) -> str:
    """Return the address as it may appear in files, logs and messages."""
    parts = urlsplit(store)
    if not secrets_of(store):
        return store
    user = f"{parts.username}@" if parts.username else ""
    kept = [(key, value) for key, value in parse_qsl(parts.query) if key.lower() not in _SECRET]
    return urlunsplit(
        parts._replace(netloc=f"{user}{parts.netloc.rpartition('@')[2]}", query=urlencode(kept))
    )


def secrets_of(store: str) -> list[str]:
    """Return the passwords in an address, as they are written there: before the host, or in the query."""
    parts = urlsplit(store)
    queried = [each.partition("=") for each in parts.query.split("&")]
    found = [parts.password, *(value for key, _, value in queried if key.lower() in _SECRET)]
    return [each for each in found if each]


def artifact_root(store: str, workspace: Path) -> Path | None:
    """Return the folder for artifacts: beside a SQLite file, else beside the workspace.

    None for a server: it decides itself and is given the files over HTTP.
    """
    if is_server(store):
        return None
    path = sqlite_path(store)
    return (path.parent if path else workspace.resolve().parent) / "mlartifacts"


def open_ui_command(store: str) -> str:
    """Return the shell command that shows this store in a browser; for a server, its address."""
    if is_server(store):
        return without_password(store)
    # Without the job runner's eight processes: nothing here uses them.
    return (
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 "
        f"--backend-store-uri {shlex.quote(without_password(store))}"
    )


def run_link(workspace: Path, *, store: str, key: str) -> str | None:
    """Return the address of a run's page below the UI's own address; None while it is not projected."""
    mark = Watermarks(workspace, store=without_password(store)).read(key)
    if mark is None:
        return None
    base = without_password(store).rstrip("/") if is_server(store) else ""
    return f"{base}/#/experiments/{mark.experiment_id}/runs/{mark.run_id}?workflowType=machine_learning"
