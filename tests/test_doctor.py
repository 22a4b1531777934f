"""What `omni-mlflow doctor` finds on this machine, and what it says where something is wrong."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console

from omni_mlflow import doctor, weights_at_hand
from omni_mlflow.doctor import Finding

PROJECT = Path(__file__).parent.parent
CONTRACT = PROJECT / "contracts" / "qwen3_omni_lora.yaml"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path, blank_store):
    """A store of its own; opening one sets variables for its process, and a test leaves none behind."""
    before = dict(os.environ)
    shutil.copy(blank_store, tmp_path / "mlflow.db")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
    os.environ.pop("MODEL_DIR", None)
    yield
    os.environ.clear()
    os.environ.update(before)


def lock_of(tmp_path: Path, *lines: str) -> Path:
    lock = tmp_path / "requirements.lock"
    lock.write_text("\n".join(["# every package, by exact version", *lines]) + "\n")
    return lock


def test_where_the_tests_pass_nothing_that_a_stage_needs_is_missing(tmp_path):
    findings = doctor.examine(PROJECT, tmp_path / "workspace")
    assert [finding.name for finding in findings][:8] == [
        "python",
        "packages",
        "torch",
        "video and sound",
        "workspace",
        "disk",
        "tracking store",
        "git",
    ]
    assert [finding for finding in findings if finding.required and not finding.ok] == []
    assert doctor.healthy(findings)
    assert not (tmp_path / "workspace").exists()


def test_a_missing_package_and_another_version_are_named(tmp_path):
    lock = lock_of(tmp_path, "click==1.0", "no-such-package==2.0", f"rich=={version('rich')}")
    found = doctor.check_packages(lock)
    assert not found.ok
    assert found.found == f"click {version('click')}, not 1.0, no-such-package missing"
    assert "make setup" in found.what_to_do


def test_many_missing_packages_are_counted(tmp_path):
    found = doctor.check_packages(lock_of(tmp_path, *(f"no-such-package-{i}==1" for i in range(9))))
    assert found.found.endswith("no-such-package-5 missing and 3 more")


def test_a_build_tag_makes_no_other_version(tmp_path):
    public = version("torch").partition("+")[0]
    assert doctor.check_packages(lock_of(tmp_path, f"torch=={public}")).found.startswith("all 1 as ")


def test_h264_and_aac_are_really_written_and_read():
    found = doctor.check_codecs()
    assert found.ok
    assert found.found.endswith("H.264 and AAC written and read back")


def test_a_full_disk_fails_and_says_how_much_the_demo_needs(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10**8))
    found = doctor.check_disk(tmp_path / "workspace")
    assert not found.ok
    assert found.found == f"0.1 GB free for {tmp_path}/workspace; the demo needs 1 GB"
    assert "--workspace" in found.what_to_do


def test_a_workspace_that_is_a_file_or_lies_below_one_fails(tmp_path):
    (tmp_path / "notes").write_text("kept")
    for workspace in (tmp_path / "notes", tmp_path / "notes" / "deeper" / "workspace"):
        found = doctor.check_workspace(workspace)
        assert (found.ok, found.required) == (False, True)
        assert found.found == f"{tmp_path}/notes is a file"
        assert found.what_to_do == "name another folder with --workspace"


def test_a_workspace_behind_a_link_to_nothing_fails(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    found = doctor.check_workspace(tmp_path / "link" / "workspace")
    assert not found.ok
    assert found.found == f"{tmp_path}/link is a link to {tmp_path}/unmounted, which is absent"
    assert not (tmp_path / "unmounted").exists()


def test_a_workspace_that_takes_no_file_fails_also_for_the_superuser():
    found = doctor.check_workspace(Path("/proc/workspace"))
    assert not found.ok
    assert "--workspace" in found.what_to_do


def test_a_workspace_whose_parents_a_stage_would_make_is_fine(tmp_path):
    assert doctor.check_workspace(tmp_path / "new" / "workspace").ok
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_workspace_that_cannot_be_used_ends_doctor_with_exit_status_one(tmp_path):
    (tmp_path / "notes").write_text("kept")
    done = subprocess.run(
        [sys.executable, "-m", "omni_mlflow", "doctor", "--json", "--workspace", "notes"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [check for check in json.loads(done.stdout)["checks"] if check["required"] and not check["ok"]]
    assert (done.returncode, [check["name"] for check in failed]) == (1, ["workspace"])


def test_a_store_that_does_not_exist_yet_is_fine_and_is_not_made(tmp_path):
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/new/mlflow.db"
    assert doctor.check_store(PROJECT).ok
    assert not (tmp_path / "new").exists()


def test_without_an_address_the_store_is_the_file_at_the_project_root(tmp_path):
    del os.environ["MLFLOW_TRACKING_URI"]
    found = doctor.check_store(tmp_path)
    assert (found.ok, found.found) == (True, f"sqlite:///{tmp_path}/mlflow.db")


def test_a_file_that_is_no_database_fails(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database at all, but long enough to be taken for one" * 20)
    found = doctor.check_store(PROJECT)
    assert not found.ok
    assert "is not a SQLite database, or a damaged one; move that file away" in found.found


def test_damage_in_a_page_that_no_first_query_reads_is_found(tmp_path):
    """Every second page of the upper half; the names of the experiments lie lower."""
    path = tmp_path / "mlflow.db"
    pages = bytearray(path.read_bytes())
    for start in range(len(pages) // 2 // 4096 * 4096, len(pages), 8192):
        pages[start : start + 200] = b"\xaa" * 200
    path.write_bytes(pages)
    found = doctor.check_store(PROJECT)
    assert not found.ok
    assert "omni-mlflow sync --workspace DIR" in found.found


def test_a_store_whose_experiment_was_deleted_fails(tmp_path):
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=store)
    client.delete_experiment(client.create_experiment("omni-mlflow", artifact_location=tmp_path.as_uri()))
    os.environ["MLFLOW_TRACKING_URI"] = store
    found = doctor.check_store(PROJECT)
    assert not found.ok
    assert "mlflow experiments restore --experiment-id 1" in found.found


def test_a_folder_of_files_is_no_store(tmp_path):
    os.environ["MLFLOW_TRACKING_URI"] = str(tmp_path / "mlruns")
    found = doctor.check_store(PROJECT)
    assert not found.ok
    assert "give sqlite:///PATH, postgresql://... or http(s)://..." in found.what_to_do


def test_without_git_there_is_only_a_note(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = doctor.check_git()
    assert (found.ok, found.required) == (False, False)
    assert doctor.healthy([found])


def absent_model(tmp_path: Path) -> Path:
    contract = tmp_path / CONTRACT.name
    text = CONTRACT.read_text()
    contract.write_text(text.replace("Qwen/Qwen3-Omni-30B-A3B-Instruct", "nobody/no-such-model"))
    return contract


def test_a_base_model_that_is_not_cached_is_a_note_where_the_hub_is_switched_off(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = doctor.check_base_model(absent_model(tmp_path))
    assert (found.ok, found.required) == (False, False)
    assert "nobody/no-such-model is not in the local cache" in found.found
    assert "hf download nobody/no-such-model" in found.what_to_do
    assert "--profile demo" in found.what_to_do


@pytest.mark.parametrize("answers", [True, False])
def test_weights_that_would_be_fetched_need_a_hub_that_answers(tmp_path, monkeypatch, answers):
    import huggingface_hub

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", endpoint if answers else "http://127.0.0.1:9"
        )
        weights_at_hand.trouble_with_hub.cache_clear()
        found = doctor.check_base_model(absent_model(tmp_path))
        server.shutdown()
    weights_at_hand.trouble_with_hub.cache_clear()
    assert found.ok is answers
    assert ("train would fetch it" in found.found) is answers
    assert answers or "http://127.0.0.1:9 does not answer" in found.found


def test_a_folder_with_the_weights_replaces_the_hub(tmp_path):
    os.environ["MODEL_DIR"] = str(tmp_path)
    assert not doctor.check_base_model(absent_model(tmp_path)).ok
    (tmp_path / "config.json").write_text("{}")
    assert doctor.check_base_model(absent_model(tmp_path)).ok


def test_a_contract_that_cannot_be_read_fails(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("id: broken\ncolour: red\n")
    found = doctor.check_base_model(broken)
    assert (found.ok, found.required) == (False, True)
    assert "unknown key 'colour'" in found.found


def test_the_table_says_what_fails_what_is_only_a_note_and_what_to_do():
    text = io.StringIO()
    findings = [
        Finding(name="torch", ok=True, found="here"),
        Finding(name="disk", ok=False, found="full", what_to_do="free some"),
        Finding(name="git", ok=False, required=False, found="absent", what_to_do="install it"),
    ]
    Console(file=text, width=100).print(doctor.as_table(findings))
    rows = [line.split() for line in text.getvalue().splitlines()]
    assert ["ok", "torch", "here"] in rows
    assert ["FAIL", "disk", "full", "free", "some"] in rows
    assert ["note", "git", "absent", "install", "it"] in rows


def test_broken_libraries_and_a_lost_server_end_in_exit_status_one_with_all_other_checks_made(tmp_path):
    """The machine as it often is: libraries do not load, and nobody started the server."""
    for library in ("torch", "av"):
        (tmp_path / f"{library}.py").write_text("raise ImportError('libcudart.so.13: cannot open it')")
    done = subprocess.run(
        [sys.executable, "-m", "omni_mlflow", "doctor", "--json", "--workspace", str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)]),
            "MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["ok"] is False
    checks = {check["name"]: check for check in result["checks"]}
    assert {name for name, check in checks.items() if check["required"] and not check["ok"]} == {
        "torch",
        "video and sound",
        "tracking store",
    }
    assert checks["torch"]["found"] == "ImportError: libcudart.so.13: cannot open it"
    assert "pip install --force-reinstall" in checks["torch"]["what_to_do"]
    assert "cannot be reached; start it" in checks["tracking store"]["found"]
    assert "omni-mlflow sync" in checks["tracking store"]["what_to_do"]
    assert "secret" not in done.stdout + done.stderr
