"""Where runs are shown: the store's address, what may be said of it aloud, and where its artifacts lie."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from omni_mlflow.tracking.watermark import Watermarks

EXPERIMENT = "omni-mlflow"
_SQLITE = "sqlite:///"
_SECRET = ("password", "passwd", "passfile", "sslpassword")
_OF_SERVER = re.compile(
    r"(?P<scheme>https?://)(?P<user>[^:/?#]*):(?:(?P<password>[^/?#]*)|(?P<odd>(?!\d+([/?#]|$))[^@]*))@"
)
"""Up to the last ``@`` before the path; a password that no request could be made with is one all the same."""
_OF_DATABASE = re.compile(
    r"(?P<scheme>[\w+.-]+://)(?P<user>[^:/]*):(?:(?P<password>[^/?#]*)|(?P<odd>[^@]*))@"
)
"""As SQLAlchemy reads an address, where a password may hold ``/``, ``?`` and ``#``, and a user ``@``."""


class UnsupportedStoreError(Exception):
    """The tracking URI names a kind of store in which runs would not survive."""


def store_uri(project_root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or the SQLite file at the project root.

    A relative SQLite path is made absolute, so that every process means the same file.

    Raises:
        UnsupportedStoreError: the URI is a folder of files, which MLflow no longer maintains, or a Databricks
            workspace.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{_SQLITE}{project_root.resolve()}/mlflow.db"
    if _scheme(uri) == "databricks":
        raise UnsupportedStoreError(
            f"MLFLOW_TRACKING_URI={uri} is a Databricks workspace, which nobody has tried; "
            "give sqlite:///PATH, postgresql://... or http(s)://... of an mlflow server"
        )
    if _scheme(uri) in ("", "file"):
        raise UnsupportedStoreError(
            f"MLFLOW_TRACKING_URI={uri} is a folder of files, a store that MLflow no longer maintains; "
            "unset it to use a SQLite file, or give sqlite:///PATH, postgresql://... or http(s)://..."
        )
    path = sqlite_path(uri)
    return f"{_SQLITE}{path}{''.join(uri.partition('?')[1:])}" if path else uri


def sqlite_path(store: str) -> Path | None:
    """Return the absolute path of a SQLite store's file; None for any other store."""
    plain = store.partition("?")[0]
    return Path(plain.removeprefix(_SQLITE)).resolve() if plain.startswith(_SQLITE) else None


def is_server(store: str) -> bool:
    return _scheme(store) in ("http", "https")


def _scheme(store: str) -> str:
    return "databricks" if store == "databricks" else store.partition(":")[0] if ":" in store else ""


def without_password(store: str) -> str:
    """Return the address as it may appear in files, logs and messages."""
    if found := _credentials(store):
        user = f"{found['user']}@" if found["user"] else ""
        store = f"{found['scheme']}{user}{store[found.end() :]}"
    address, _, query = store.partition("?")
    kept = "&".join(each for each in query.split("&") if not _is_secret(each))
    return f"{address}?{kept}" if kept else address


def secrets_of(store: str) -> list[str]:
    """Return the passwords in an address, as they are written there: before the host, or in the query."""
    found = _credentials(store)
    query = store[found.end() if found else 0 :].partition("?")[2]
    queried = [each.partition("=")[2] for each in query.split("&") if _is_secret(each)]
    named = found.groupdict() if found else {}
    return [each for each in (named.get("password"), named.get("odd"), *queried) if each]


def _credentials(store: str) -> re.Match[str] | None:
    return (_OF_SERVER if is_server(store) else _OF_DATABASE).match(store)


def _is_secret(pair: str) -> bool:
    return pair.partition("=")[0].lower() in _SECRET


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
