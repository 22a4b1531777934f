"""Which store is meant, and what is said about it aloud."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from omni_mlflow.tracking import (
    UnsupportedStoreError,
    open_ui_command,
    run_link,
    store_uri,
    trouble_with,
)
from omni_mlflow.tracking.connection import connect, open_client
from omni_mlflow.tracking.failures import explain
from omni_mlflow.tracking.stores import artifact_root, sqlite_path, without_password


def test_runs_go_to_a_sqlite_file_at_the_project_root_unless_someone_says_otherwise(tmp_path):
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    os.environ["MLFLOW_TRACKING_URI"] = "http://tracker:5000"
    assert store_uri(tmp_path) == "http://tracker:5000"


def test_every_process_means_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///runs.db"
    assert store_uri(tmp_path / "elsewhere") == f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.parametrize("folder", ["./mlruns", "file:///data/mlruns"])
def test_the_store_of_files_is_refused(tmp_path, folder):
    os.environ["MLFLOW_TRACKING_URI"] = folder
    with pytest.raises(UnsupportedStoreError, match="unset it to use a SQLite file"):
        store_uri(tmp_path)


def test_a_password_is_never_shown():
    store = "postgresql://ann:s3cret@db:5432/runs?sslmode=require"
    assert without_password(store) == "postgresql://ann@db:5432/runs?sslmode=require"
    assert "s3cret" not in open_ui_command(store)


@pytest.mark.parametrize("password", ["s3cr#et", "s3cr/et", "s3cr[et", "s3cr?et", "s3:cr:et", "5432s3cret"])
def test_a_password_that_needs_no_escapes_for_a_database_is_never_shown(password):
    store = f"postgresql://ann:{password}@127.0.0.1:55471/runs?sslmode=require"
    os.environ["MLFLOW_TRACKING_URI"] = store
    assert store_uri(Path()) == store
    assert without_password(store) == "postgresql://ann@127.0.0.1:55471/runs?sslmode=require"
    assert password not in explain(ConnectionError(f"cannot reach {store}"), store=store)


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("http://jane@corp.com:s3cret@127.0.0.1:5599", "http://jane@corp.com@127.0.0.1:5599"),
        ("https://jane:s3@cret@mlflow.corp.com/team@lab", "https://jane@mlflow.corp.com/team@lab"),
        ("https://:s3cret@host:5000", "https://host:5000"),
        ("https://jane:s3c/ret@host:5000", "https://jane@host:5000"),
        ("postgresql://admin@srv:s3cret@srv.azure.com/mlflow", "postgresql://admin@srv@srv.azure.com/mlflow"),
        ("postgresql://ann:s3c@cret@db/runs", "postgresql://ann@db/runs"),
        ("mysql+pymysql://ann:5432/s3cret@db/runs", "mysql+pymysql://ann@db/runs"),
    ],
)
def test_whoever_is_named_in_an_address_the_password_is_never_shown(store, shown):
    assert without_password(store) == shown
    told = explain(ConnectionError(f"cannot reach {store}"), store=store)
    assert not any(part in told for part in ("s3c", "cret"))


@pytest.mark.parametrize(
    "store",
    [
        "http://127.0.0.1:5000",
        "https://host:5000/team@lab",
        "http://host:5000?next=a@b",
        "postgresql://ann@db:5432/runs",
        "sqlite:////data/a:b@c/mlflow.db",
    ],
)
def test_an_address_without_a_password_is_shown_as_it_is(store):
    assert without_password(store) == store


def test_what_a_sqlite_address_says_after_its_path_is_no_part_of_the_path(tmp_path):
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/runs.db?timeout=30"
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/runs.db?timeout=30"
    assert sqlite_path(store_uri(tmp_path)) == tmp_path / "runs.db"
    connect(store_uri(tmp_path), workspace=tmp_path)
    assert (tmp_path / "runs.db").is_file()


def test_a_databricks_workspace_is_refused_by_its_name(tmp_path):
    os.environ["MLFLOW_TRACKING_URI"] = "databricks"
    with pytest.raises(UnsupportedStoreError, match="is a Databricks workspace, which nobody has tried"):
        store_uri(tmp_path)


def test_a_password_in_the_query_is_never_shown():
    store = "postgresql://db:5432/runs?user=ann&password=s3%2Fcret&sslmode=require"
    assert without_password(store) == "postgresql://db:5432/runs?user=ann&sslmode=require"
    told = explain(ConnectionError(f"cannot reach {store}"), store=store)
    assert "s3" not in told


def test_artifacts_lie_beside_a_file_beside_the_workspace_or_with_the_server(tmp_path):
    workspace = tmp_path / "workspace"
    assert artifact_root(f"sqlite:///{tmp_path}/db/mlflow.db", workspace) == tmp_path / "db" / "mlartifacts"
    assert artifact_root("postgresql://db/runs", workspace) == tmp_path / "mlartifacts"
    assert artifact_root("https://tracker", workspace) is None


def test_a_run_has_a_page_once_it_is_projected(pipeline, tracker, store, workspace):
    _, train = pipeline
    assert run_link(workspace, store=store, key=train.key) is None
    tracker.project(store)
    [run] = tracker.client(store).search_runs(["1"], filter_string=f"tags.`omni.run_key` = '{train.key}'")
    page = f"/#/experiments/1/runs/{run.info.run_id}?workflowType=machine_learning"
    assert run_link(workspace, store=store, key=train.key) == page


def test_artifacts_of_our_experiment_never_depend_on_the_working_directory(tracker, empty_database):
    experiment = tracker.client(f"sqlite:///{empty_database}").get_experiment_by_name("omni-mlflow")
    assert experiment.artifact_location == f"file://{empty_database.parent}/mlartifacts/omni-mlflow"


KILLED_WHILE_MAKING = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from omni_mlflow.tracking.connection import connect, open_client
from omni_mlflow.tracking.failures import explain

statements = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global statements
    statements += 1
    if statements == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

connect(sys.argv[1], workspace=Path(sys.argv[1]).parent)
"""


@pytest.mark.parametrize(
    "statement", [120, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 40, 80, 200, 300))]
)
def test_a_store_whose_making_was_killed_is_made_again(tmp_path, statement):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_MAKING, store, str(statement)], check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    made = connect(store, workspace=tmp_path)
    assert made.client.search_runs([made.experiment_id]) == []
    assert not list(tmp_path.glob(".mlflow.db.making*"))


def test_a_store_that_another_client_made_meanwhile_keeps_its_runs(tmp_path, monkeypatch):
    """MLflow's own commands know nothing of our turns."""
    from mlflow.store.db import utils

    path = tmp_path / "mlflow.db"
    initialise = utils._initialize_tables

    def overtaken(engine):
        initialise(engine)
        if not path.exists():
            shutil.copy(tmp_path / ".mlflow.db.making", path)
            open_client(f"sqlite:///{path}").create_experiment("theirs")

    monkeypatch.setattr(utils, "_initialize_tables", overtaken)
    made = connect(f"sqlite:///{path}", workspace=tmp_path)
    assert made.client.get_experiment_by_name("theirs") is not None
    assert not list(tmp_path.glob(".mlflow.db.making*"))


def test_a_store_that_something_else_left_half_made_says_what_to_do(tmp_path):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as half:
        half.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        half.execute("CREATE TABLE span_metrics (x INTEGER)")
    told = trouble_with(f"sqlite:///{tmp_path}/mlflow.db")
    assert "was left half made by a process that was killed; move the file away" in told


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (500, "is there but fails at what it is asked (HTTP 500); why stands in the server's own log"),
        (503, "cannot be reached; start it"),
        (404, "is no MLflow tracking server"),
    ],
)
def test_a_server_that_answers_with_an_error_is_told_from_one_that_is_away(status, told):
    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert f"the tracking store {address} {told}" in trouble_with(address)
        server.shutdown()
