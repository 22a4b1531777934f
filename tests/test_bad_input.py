"""What a person reads when something is not as it should be: one clear paragraph each, nothing lost."""

from __future__ import annotations

import dataclasses
import fcntl
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from tests.conftest import Place


@dataclasses.dataclass(frozen=True)
class ElsewherePlace(Place):
    """The same workspace with another tracking store."""

    address: str = ""

    @property
    def store(self) -> str:
        return self.address


def with_store(place, address):
    return ElsewherePlace(place.root, place.data_root, address)


def paragraph(done):
    """The one error of a refused command."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return error


@contextmanager
def nobody():
    """The address of a server that does not run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def server_that_refuses():
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://ann:wrong@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_heal_says_that_the_server_is_unreachable_and_exits_1(place):
    with nobody() as address:
        healed = with_store(place, address).run_as_typed("heal", "--workspace", str(place.workspace))
    assert healed.returncode == 1
    assert healed.stdout == "nothing to heal\n"
    [told] = healed.stderr.splitlines()
    assert f"the tracking store {address} cannot be reached; start it, or check MLFLOW_TRACKING_URI" in told
    assert told.endswith("Nothing is lost, they are in the workspace; bring them over with: omni-mlflow sync")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "meaning"), [(nobody, "cannot be reached"), (server_that_refuses, "refuses the credentials")]
)
def test_a_stage_ends_well_without_the_server_and_sync_brings_its_run_later(place, server, meaning):
    with server() as address:
        done = with_store(place, address).run("train", "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    [told] = [line for line in done.stderr.splitlines() if "tracking store" in line]
    assert meaning in told
    assert "wrong" not in told, "a password is not repeated"
    assert "bring them over with: omni-mlflow sync" in told
    assert place.run_as_typed("sync", "--workspace", str(place.workspace)).returncode == 0
    assert place.runs()[-1].data.tags["omni.stage"] == "train"


def test_a_deleted_upstream_run_is_a_note_and_the_stage_goes_on(place):
    import mlflow

    export = next(run for run in place.runs() if run.data.tags["omni.stage"] == "export")
    mlflow.MlflowClient(place.store).delete_run(export.info.run_id)
    done = place.run("train", "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    [note] = [line for line in done.stderr.splitlines() if "deleted in the tracking store" in line]
    assert f"export ({export.info.run_id})" in note
    assert "still holds in the workspace" in note
    assert "mlflow runs restore --run-id ID, then omni-mlflow sync" in note


def test_a_stage_whose_upstream_folder_was_deleted_says_which_stage_to_run(place):
    shutil.rmtree(place.workspace / "split")
    told = paragraph(place.run("index"))
    assert "'split', which 'guard' was made from, is gone from the workspace; run 'split' again" in told


def test_an_artifact_edited_by_hand_is_refused(place):
    manifest = place.workspace / "guard/episode_manifest.json"
    manifest.write_text(manifest.read_text().replace('"train"', '"test"'))
    told = paragraph(place.run("index"))
    assert f"{manifest} changed after 'guard' sealed it; restore the file, or delete" in told
    assert "and run 'guard' again" in told
    assert (place.workspace / "index/seal.json").exists()


def test_a_sealed_folder_without_its_journal_says_how_to_get_past_it(place):
    folder = place.workspace / "trivial/train"
    (folder / "journal.jsonl").unlink()
    told = paragraph(place.run("train"))
    assert f"{folder}/journal.jsonl is gone or holds no start of a run" in told
    assert f"move {folder} away and run its stage again" in told
    folder.rename(place.root / "away")
    assert place.run("train").returncode == 0


def test_a_seal_of_a_newer_version_is_refused_by_name(place):
    seal = place.workspace / "split/seal.json"
    seal.write_text(seal.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    told = paragraph(place.run("guard"))
    assert f"{seal} has schema_version 99" in told
    assert "install the version that wrote it, or use another workspace" in told


@pytest.mark.parametrize("bytes_of_it", [b"", b"\xff\xfe\x00"])
def test_a_damaged_seal_is_refused_by_name(place, bytes_of_it):
    seal = place.workspace / "split/seal.json"
    seal.write_bytes(bytes_of_it)
    assert f"{seal}: not JSON" in (told := paragraph(place.run("guard")))
    assert "restore the file, or delete it and run 'split' again" in told


def test_a_folder_where_a_journal_belongs_is_named(place):
    folder = place.workspace / "runs/0a1b2c/journal.jsonl"
    folder.mkdir(parents=True)
    told = paragraph(place.run("main"))
    assert f"{folder}: Is a directory; a folder lies where a file belongs; move it away" in told


def test_a_pipeline_run_of_a_newer_version_is_refused_by_name(place):
    [journal] = place.workspace.glob("runs/*/journal.jsonl")
    with journal.open("a") as rows:
        rows.write(json.dumps({"event": "telemetry", "values": {}}) + "\n")
    told = paragraph(place.run("main"))
    assert f"{journal} holds a row 'telemetry' that this omni-mlflow cannot read" in told
    assert "install the version that wrote it, or use another workspace" in told
    refused = place.runs()[-1]
    assert (refused.info.status, refused.data.tags["omni.outcome"]) == ("FAILED", "refused")
    assert refused.data.tags["mlflow.note.content"] in told


@contextmanager
def at_work(locks, *names):
    """A process that holds these locks, as a job does, and the projection with them."""
    program = (
        "import sys, pathlib; from contextlib import ExitStack\n"
        "from omni_mlflow.locks import exclusive, in_turn\n"
        "with ExitStack() as held:\n"
        "    held.enter_context(in_turn(pathlib.Path(sys.argv[1])))\n"
        "    for path in sys.argv[2:]: held.enter_context(exclusive(pathlib.Path(path)))\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    paths = [str(locks / name) for name in ("projection", *names)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "held\n"
        yield job


@pytest.mark.parametrize("verb", ["main", "train"])
def test_a_second_command_on_a_busy_workspace_says_who_is_at_work_and_nothing_else(place, verb):
    with at_work(place.workspace / ".locks", "main", "trivial-train") as job:
        done = place.run(verb, "--set", "training.steps=6")
    told = paragraph(done)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert (
        f"{place.workspace} is in use by process {job.pid} of {os.uname().nodename}, at work since 2" in told
    )
    assert "(main, trivial-train)" in told
    assert "wait for it to end, stop it, or give this one a --workspace of its own" in told


def test_a_lock_that_does_not_say_who_holds_it_is_named(place):
    lock = place.workspace / ".locks/main"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = paragraph(place.run("main"))
    assert f"is in use by another process ({lock} is locked); what it does goes on untouched" in told


@pytest.mark.parametrize("verb", ["main", "select"])
def test_a_workspace_behind_a_link_to_nothing_is_refused_before_anything_is_made(empty, verb):
    empty.workspace.symlink_to(empty.root / "unmounted")
    done = empty.run(verb)
    assert done.returncode == 2
    assert f"{empty.workspace} is a link to {empty.root}/unmounted, which is absent; make that" in done.stderr
    assert not (empty.root / "unmounted").exists()


def test_a_workspace_that_takes_no_file_is_refused_before_anything_is_begun(empty):
    told = paragraph(empty.run("main", "--workspace", "/proc/workspace"))
    assert told.startswith("error: /proc/workspace: ")
    assert told.endswith("name another folder with --workspace")
