"""Why a store does not take rows, in words: an error of MLflow, SQLAlchemy or requests -> one sentence."""

from __future__ import annotations

from errno import EDQUOT, ENOSPC

from omni_mlflow.tracking.stores import secrets_of, without_password

_ABOUT_ONE_RUN = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


class DeletedExperimentError(Exception):
    """The experiment of this project was deleted in the store."""


def concerns_one_run(error: Exception) -> bool:
    """Tell whether other runs may still be projected after this error."""
    return getattr(error, "error_code", None) in _ABOUT_ONE_RUN


def explain(error: Exception, *, store: str) -> str:
    """Say what is wrong with the store, and what to do about it.

    Args:
        store: the store's address; a password in it is not repeated.
    """
    where = f"the tracking store {without_password(store)}"
    if isinstance(error, OSError) and error.filename is not None and error.errno in (ENOSPC, EDQUOT):
        return f"{error.filename}: {error.strerror}, so nobody can note what {where} holds; free some space"
    if isinstance(error, DeletedExperimentError):
        return f"{where} cannot be used: {error}"
    told = f"{type(error).__name__}: {_first_line(error, store)}"
    text = str(error).lower()
    for signs, meaning in _MEANINGS:
        if _status(error) in signs or any(isinstance(sign, str) and sign in text for sign in signs):
            return f"{where} {meaning} ({told})"
    return f"{where} answered with {told}"


_MEANINGS: tuple[tuple[tuple[str | int, ...], str], ...] = (
    (
        (401, 403, "password authentication failed", "access denied for user"),
        "refuses the credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN, or the user and password in MLFLOW_TRACKING_URI",
    ),
    (
        ("out-of-date database schema", "can't locate revision"),
        "was made by another version of MLflow; install the version that this project pins, or back the "
        "store up and run: mlflow db upgrade URI",
    ),
    (("no module named", "can't load plugin"), "lacks its database driver; pip install it"),
    (
        ("duplicate column name", "sqlite3.operationalerror) table"),
        "was left half made by a process that was killed; move the file away, a new one gets all rows",
    ),
    (
        ("file is not a database", "disk image is malformed"),
        "is not a SQLite database, or a damaged one; move that file away with what is named like it (-wal, "
        "-journal), then bring all runs back from the journals of each workspace: "
        "omni-mlflow sync --workspace DIR",
    ),
    (
        ("mlflow-artifacts uri was supplied",),
        "is the file of an MLflow server that keeps the artifacts; set MLFLOW_TRACKING_URI to the server's "
        "address",
    ),
    (("unable to open database file",), "cannot be opened; check that its folder is yours to write"),
    (
        ("readonly database", "permission denied"),
        "is not writable for this user; check owner and mode, and whether its file was removed while this "
        "command ran: then run omni-mlflow sync",
    ),
    (("disk is full", "no space left"), "has no space left; free some"),
    (("database is locked",), "is locked by another process for too long; close what holds it"),
    (
        (500, "too many 500 error responses", "failed with error code 500"),
        "is there but fails at what it is asked (HTTP 500); why stands in the server's own log: mend it "
        "there, or tell whoever runs it",
    ),
    (
        ("connection refused", "failed to establish", "failed to resolve", "could not connect",
         "could not translate host", "connection reset", "connection aborted", "remote end closed",
         "timed out", "timeout", "server closed the connection", "max retries exceeded", 502, 503, 504),
        "cannot be reached; start it, or check MLFLOW_TRACKING_URI and the network",
    ),
    ((404,), "is no MLflow tracking server; check MLFLOW_TRACKING_URI"),
)  # fmt: skip


def _status(error: Exception) -> int | None:
    """Return the HTTP status that a server answered with, where it tells about the server itself."""
    if concerns_one_run(error):
        return None
    response = getattr(error, "response", None)
    if response is not None:
        return getattr(response, "status_code", None)
    code = getattr(error, "get_http_status_code", None)
    status = code() if callable(code) else None
    return status if status != 500 else None


def _first_line(error: Exception, store: str) -> str:
    """Return the first line of an error; libraries repeat the whole address in it, password and all."""
    line = str(error).strip().partition("\n")[0]
    for secret in secrets_of(store):
        line = line.replace(f":{secret}@", "@").replace(f"={secret}", "=***")
    return line if len(line) <= 300 else f"{line[:300]}..."
