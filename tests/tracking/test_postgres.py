"""PostgreSQL as the store: a real local server, where its programs and a driver are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from omni_mlflow.tracking import sync

pytestmark = pytest.mark.slow


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture
def as_owner():
    """PostgreSQL refuses to run as root: say as whom instead, if there is such a user."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("running as root, and there is no user postgres to start PostgreSQL as")
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture
def postgres(as_owner):
    """Address of an empty database whose user needs a password."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver (psycopg) is installed")
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("no PostgreSQL server (initdb, pg_ctl) is installed")
    with tempfile.TemporaryDirectory() as name, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        folder = Path(name)
        (folder / "password").write_text("s3cret\n")
        if as_owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres")
        data = folder / "data"
        make = ["initdb", "-D", data, "-U", "ann", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        start = ["pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start"]
        stop = ["pg_ctl", "-D", data, "-m", "immediate", "stop"]
        for command in (make, start):
            subprocess.run(
                [*as_owner, bin_folder / command[0], *command[1:]], check=True, capture_output=True
            )
        try:
            yield f"postgresql://ann:s3cret@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*as_owner, bin_folder / stop[0], *stop[1:]], check=True, capture_output=True)


def test_postgres_shows_what_sqlite_shows(postgres, pipeline, workspace, tracker, store):
    report = sync(workspace, store=postgres)
    assert report.sentence.startswith("the tracking store shows everything")
    shown = tracker.dump(postgres)
    tracker.forget()
    assert sync(workspace, store=postgres).complete
    assert tracker.dump(postgres) == shown
    tracker.project(store)
    assert shown == tracker.dump(store)
    assert (workspace.parent / "mlartifacts" / "omni-mlflow").is_dir()


def test_a_wrong_password_is_called_by_its_name_and_not_repeated(postgres, pipeline, workspace):
    report = sync(workspace, store=postgres.replace("s3cret", "gu3ss"))
    assert "refuses the credentials" in report.sentence
    assert "gu3ss" not in report.sentence
    assert report.left > 0
