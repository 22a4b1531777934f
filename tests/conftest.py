"""A small set of synthetic episodes, and one finished main job of a backbone that needs no model library."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni_mlflow.spine.synthetic import write_episode_set

PROJECT = Path(__file__).parent.parent
TRIVIAL = Path(__file__).parent / "trivial"


def pytest_configure() -> None:
    """Whoever starts the tests in the background has their children ignore Ctrl-C, and nohup a hang-up."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@dataclass(frozen=True)
class Place:
    """A workspace with its own tracking store, and the command line that works in it."""

    root: Path
    data_root: Path

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def store(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        return {
            **inherited,
            "MLFLOW_TRACKING_URI": self.store,
            "PYTHONPATH": os.pathsep.join([str(PROJECT), str(TRIVIAL), *others]),
            "OMP_NUM_THREADS": "1",
        }

    def arguments(self, verb: str, *options: str) -> list[str]:
        given = {
            "--workspace": str(self.workspace),
            "--backbone": "trivial",
            "--contract": str(TRIVIAL / "trivial.yaml"),
            "--profile": "none",
            "--data-root": str(self.data_root),
        }
        named = [part for pair in given.items() if pair[0] not in options for part in pair]
        return [sys.executable, "-m", "omni_mlflow", verb, *named, *options]

    def run(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.arguments(verb, *options), timeout=300)

    def run_as_typed(self, *typed: str) -> subprocess.CompletedProcess[str]:
        """Run exactly what a person types, for as long as it takes."""
        return self._run([sys.executable, "-m", "omni_mlflow", *typed], timeout=1500)

    def _run(self, command: list[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, name: str) -> dict:
        return json.loads((self.workspace / name).read_text())

    def runs(self) -> list:
        """Every run of the store, oldest first."""
        import mlflow

        client = mlflow.MlflowClient(self.store)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, max_results=1000)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def artifacts(self, run) -> list[Path]:
        """Top level of what the store shows for a run."""
        import mlflow

        listed = mlflow.MlflowClient(self.store).list_artifacts(run.info.run_id)
        return [Path(each.path) for each in listed]

    def copy(self, root: Path) -> Place:
        """Copy a finished job with all it knows: its seals stay fresh, its runs projected."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        for mark in root.glob("workspace/.projected/*"):
            mark.write_text(mark.read_text().replace(str(self.root), str(root)))
        return Place(root, self.data_root)


@pytest.fixture(scope="session")
def episodes(tmp_path_factory) -> Path:
    """Six sessions of one clean episode each, 100 frames."""
    out = tmp_path_factory.mktemp("data") / "episodes"
    write_episode_set(out, sessions=6, frames=100, seed=11, anomalies="none", workers=1)
    return out


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory) -> Path:
    """An SQLite store without a run: making its tables costs seconds, copying it none."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, episodes, blank_store) -> Place:
    """A main job of the trivial backbone that ran to its end. Copy it before changing anything."""
    place = Place(tmp_path_factory.mktemp("finished"), episodes)
    shutil.copy(blank_store, place.root)
    done = place.run("main")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(tmp_path, finished) -> Place:
    """A copy of the finished job, to change as one likes."""
    return finished.copy(tmp_path / "copy")


@pytest.fixture
def empty(tmp_path, episodes, blank_store) -> Place:
    """Nothing but an empty store."""
    root = tmp_path / "empty"
    root.mkdir()
    shutil.copy(blank_store, root)
    return Place(root, episodes)
