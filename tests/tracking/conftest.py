"""Real stores: a SQLite file made once and copied for each test, and a dump of what a store shows."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.events import DatasetInput, ModelVersion, RunOutcome
from omni_mlflow.record import RunRecord
from omni_mlflow.tracking.connection import connect
from omni_mlflow.tracking.follow import Follower
from omni_mlflow.tracking.projection import Projection
from omni_mlflow.tracking.reports import SyncReport

Dump = dict[str, Any]


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Opening a store sets variables for its process; a test leaves none of them behind."""
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with our experiment and no run; making one takes seconds, copying one does not."""
    folder = tmp_path_factory.mktemp("store")
    path = folder / "mlflow.db"
    command = [sys.executable, "-m", "omni_mlflow.tracking.projector", str(folder / "none")]
    command += ["--store", f"sqlite:///{path}"]
    subprocess.run(command, input=b"finish\n", check=True, capture_output=True)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def begin(workspace: Path) -> Iterator[Callable[..., RunRecord]]:
    """Begin (or enter again) the run of a stage folder; journals are closed when the test ends."""
    records: list[RunRecord] = []

    def enter(
        folder: str, *, parent: RunRecord | None = None, outer: str | None = None, name: str | None = None
    ) -> RunRecord:
        record = RunRecord(workspace / folder)
        records.append(record)
        record.started(
            name or folder.rpartition("/")[2],
            parent=parent.key if parent else None,
            mlflow_run_id=outer,
            mlflow_experiment_id=None,
        )
        return record

    yield enter
    for record in records:
        record.close()


@pytest.fixture
def pipeline(begin: Callable[..., RunRecord]) -> tuple[RunRecord, RunRecord]:
    """A finished pipeline run with one training below it, everything a journal can hold in them."""
    main = begin("runs/0a1b", name="main")
    main.tags({"omni.stage": "main", "omni.backbone": "qwen3_omni_lora"})
    train = begin("qwen3_omni_lora/train", parent=main)
    train.tags({"omni.stage": "train", "omni.backbone": "qwen3_omni_lora"})
    train.params({"settings.lora.rank": 8, "settings.base.model": "tiny"})
    train.upstream({"main": main.key or ""})
    progress = train.folder / "progress.jsonl"
    train.live_artifact(progress)
    for step in range(1, 4):
        train.metrics({"train/loss": 1 / step, "train/lr": 0.01}, step=step)
        with progress.open("a") as rows:
            rows.write(f'{{"step":{step}}}\n')
    train.dataset(a_dataset())
    (train.folder / "adapter_config.json").write_text('{"r": 8}')
    train.artifacts([train.folder / "adapter_config.json"], folder="checkpoint")
    train.model(a_model("c1"))
    train.ended("FINISHED", RunOutcome.OK)
    main.upstream({"train": train.key or ""})
    main.metrics({"test/action_accuracy": 0.5})
    main.ended("FINISHED", RunOutcome.OK)
    return main, train


def a_dataset() -> DatasetInput:
    return DatasetInput(
        name="episodes-train",
        context="train",
        digest="5ad5fbe0f8d7",
        source="samples/train.jsonl",
        profile={"num_episodes": 14},
        columns={"id": "string"},
    )


@pytest.fixture
def request_of() -> Callable[[str], ModelVersion]:
    """Return a function that words the request to register the checkpoint of a digest."""
    return a_model


def a_model(checkpoint_digest: str) -> ModelVersion:
    return ModelVersion(
        at_ms=1_700_000_000_000,
        registered_name="qwen3_omni_lora",
        model_name=f"qwen3_omni_lora-{checkpoint_digest}",
        alias="validated-synthetic",
        checkpoint_digest=checkpoint_digest,
        files=("adapter_config.json",),
        params={"rank": "8"},
        tags={"omni.evidence": "synthetic"},
        description="Synthetic episodes.",
        dataset_name="episodes-test",
        dataset_digest="77aa",
        metrics={"test/action_accuracy": 0.5},
    )


@pytest.fixture
def killed_stage(workspace):
    """A stage whose process got kill -9 in the middle of its work."""
    program = (
        "import pathlib, time; from omni_mlflow.record import RunRecord\n"
        f"record = RunRecord(pathlib.Path({str(workspace)!r}) / 'train')\n"
        "record.started('train', parent=None, mlflow_run_id=None, mlflow_experiment_id=None)\n"
        "record.metrics({'train/loss': 2.0}, step=1)\n"
        "print(record.key, flush=True); time.sleep(60)\n"
    )
    stage = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    key = stage.stdout.readline().strip()
    yield stage, key
    stage.kill()
    stage.wait()


class Tracker:
    """SQLite stores of one test, and what it does with them."""

    def __init__(self, folder: Path, empty_database: Path, workspace: Path) -> None:
        self._folder = folder
        self._empty_database = empty_database
        self._workspace = workspace

    def new_store(self, name: str) -> str:
        """Make an empty store and return its address."""
        path = self._folder / f"{name}.db"
        shutil.copy(self._empty_database, path)
        return f"sqlite:///{path}"

    def client(self, store: str) -> Any:
        from mlflow import MlflowClient

        os.environ["MLFLOW_TRACKING_URI"] = store
        return MlflowClient(tracking_uri=store, registry_uri=store)

    def project(self, store: str) -> SyncReport:
        """Project the workspace in this process, with nothing remembered but the watermarks."""
        opened = connect(store, workspace=self._workspace)
        projection = Projection(opened, Follower(self._workspace, store=opened.address))
        projection.run_pass()
        return projection.report(failure=None)

    def forget(self) -> None:
        """Delete all watermarks."""
        shutil.rmtree(self._workspace / ".projected", ignore_errors=True)

    def dump(self, store: str) -> Dump:
        """Return everything a store shows, run ids replaced by run keys, model ids by checkpoint digests."""
        client = self.client(store)
        runs = _all_runs(client)
        names = {run.info.run_id: run.data.tags.get("omni.run_key", run.info.run_name) for run in runs}
        models = client.search_logged_models(sorted({run.info.experiment_id for run in runs}) or ["0"])
        names |= {model.model_id: model.tags["omni.checkpoint_digest"] for model in models}
        registered = client.search_registered_models()
        return {
            "runs": {names[run.info.run_id]: _run(client, run, names) for run in runs},
            "models": {names[model.model_id]: _model(client, model, names) for model in models},
            "registry": {each.name: _registered(client, each, names) for each in registered},
        }


@pytest.fixture
def tracker(tmp_path: Path, empty_database: Path, workspace: Path) -> Tracker:
    return Tracker(tmp_path, empty_database, workspace)


@pytest.fixture
def store(tracker: Tracker) -> str:
    return tracker.new_store("mlflow")


def _all_runs(client: Any) -> list[Any]:
    from mlflow.entities import ViewType

    experiments = [each.experiment_id for each in client.search_experiments(view_type=ViewType.ALL)]
    return list(client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=5000))


def _run(client: Any, run: Any, names: dict[str, str]) -> Dump:
    info = run.info
    outputs = run.outputs.model_outputs if run.outputs else []
    return {
        "experiment": client.get_experiment(info.experiment_id).name,
        "name": info.run_name,
        "state": (info.status, info.lifecycle_stage, info.start_time, info.end_time),
        "params": dict(run.data.params),
        "tags": _named(run.data.tags, names),
        "metrics": {
            key: sorted(map(_point, client.get_metric_history(info.run_id, key))) for key in run.data.metrics
        },
        "datasets": sorted(
            (each.dataset.name, each.dataset.digest, each.dataset.profile, each.dataset.schema,
             each.dataset.source, [(tag.key, tag.value) for tag in each.tags])
            for each in run.inputs.dataset_inputs
        ),
        "outputs": sorted(names[each.model_id] for each in outputs),
        "artifacts": _files(lambda folder: client.list_artifacts(info.run_id, folder), info.artifact_uri),
    }  # fmt: skip


def _point(metric: Any) -> tuple[int, int, str]:
    return metric.step, metric.timestamp, repr(metric.value)


def _model(client: Any, model: Any, names: dict[str, str]) -> Dump:
    listing = client.list_logged_model_artifacts
    return {
        "name": model.name,
        "status": model.status,
        "run": _maker(model.source_run_id, model.tags, names),
        "params": dict(model.params),
        "tags": _named(model.tags, names),
        "metrics": sorted((m.key, m.value, m.dataset_name, m.dataset_digest) for m in model.metrics or []),
        "artifacts": _files(lambda folder: listing(model.model_id, folder), model.artifact_location),
    }


def _registered(client: Any, registered: Any, names: dict[str, str]) -> Dump:
    versions = client.search_model_versions(f"name = '{registered.name}'")
    return {
        "aliases": {name: str(n) for name, n in client.get_registered_model(registered.name).aliases.items()},
        "versions": {
            str(each.version): (
                each.description,
                names[each.source.removeprefix("models:/")],
                _maker(each.run_id, each.tags, names),
                _named(each.tags, names),
            )
            for each in versions
        },
    }


def _maker(run_id: str, tags: dict[str, str], names: dict[str, str]) -> str:
    """Return the key of the run that made a model, or of the one made in its place when it was purged."""
    return names.get(run_id) or names.get(tags.get("omni.continued_in", ""), "purged")


def _named(tags: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    own = {"mlflow.user", "mlflow.modelVersions", "omni.heartbeat"}
    return {key: names.get(value, value) for key, value in tags.items() if key not in own}


def _files(listing: Callable[[str | None], Any], uri: str) -> dict[str, str]:
    from mlflow.artifacts import download_artifacts

    found: dict[str, str] = {}
    folders: list[str | None] = [None]
    while folders:
        for entry in listing(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                local = Path(download_artifacts(artifact_uri=f"{uri}/{entry.path}"))
                found[entry.path] = hashlib.sha256(local.read_bytes()).hexdigest()[:12]
    return found
