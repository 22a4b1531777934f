"""One run of ``mlflow run`` for several backbones: it stands around theirs, and ends as the command does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from omni_mlflow import pipeline
from omni_mlflow.console import TerminalBar
from omni_mlflow.context import Context, OuterRun
from omni_mlflow.contract.file import load_contract
from omni_mlflow.events import Ended, Started, read_events
from omni_mlflow.interruption import Interrupted
from omni_mlflow.pipeline import below_one_run, run_main
from omni_mlflow.registry import Bound, bind
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Options
from omni_mlflow.workspace import Workspace
from tests.conftest import PROJECT, TRIVIAL

OUTER = OuterRun(run_id="made-by-mlflow-run", experiment_id="7")


@pytest.fixture
def context(tmp_path, monkeypatch) -> Context:
    monkeypatch.syspath_prepend(str(TRIVIAL))
    contract = load_contract(TRIVIAL / "trivial.yaml")
    return Context(
        workspace=Workspace(tmp_path / "workspace"),
        bound=bind(contract),
        shared=contract,
        options=Options(data_root=tmp_path, synthetic_root=tmp_path),
        bar=TerminalBar(Console(quiet=True)),
        say=lambda _: None,
        suites=PROJECT / "expectations",
        source={},
        outer=OUTER,
    )


@pytest.fixture
def two(context) -> list[Bound]:
    other = context.bound.contract.model_copy(update={"id": "other"})
    return [context.bound, replace(context.bound, contract=other)]


def told(context: Context) -> dict[str, dict]:
    """By the name of a run: its parent, the run of MLflow that it enters, and how it ended."""
    runs = {}
    for journal in context.workspace.root.glob("runs/*/journal.jsonl"):
        events = list(read_events(journal))
        [begun] = [event for event in events if isinstance(event, Started)]
        [ended] = [event for event in events if isinstance(event, Ended)]
        runs[begun.name] = {**begun.model_dump(), "status": ended.status, "reason": ended.reason}
    return runs


def test_the_run_stands_around_the_pipeline_runs_of_all_backbones(context, two):
    run_main(two, context, [])
    runs = told(context)
    assert runs.keys() == {"main trivial, other", "main trivial", "main other"}
    around = runs["main trivial, other"]
    assert (around["mlflow_run_id"], around["mlflow_experiment_id"]) == (OUTER.run_id, "7")
    for name in ("main trivial", "main other"):
        assert (runs[name]["parent"], runs[name]["mlflow_run_id"]) == (around["key"], None)
    assert {run["status"] for run in runs.values()} == {"FINISHED"}


def test_with_one_backbone_it_is_that_backbone_s_own(context):
    run_main([context.bound], context, [])
    [(name, run)] = told(context).items()
    assert (name, run["mlflow_run_id"], run["parent"]) == ("main trivial", OUTER.run_id, None)


def test_without_mlflow_run_nothing_stands_around_them(context, two):
    run_main(two, replace(context, outer=None), [])
    assert told(context).keys() == {"main trivial", "main other"}


@pytest.mark.parametrize(
    ("stopped_by", "end"),
    [
        (ValueError("no room"), ("FAILED", "no room")),
        (Interrupted(15), ("KILLED", "stopped by SIGTERM")),
        (KeyboardInterrupt(), ("KILLED", "stopped by Ctrl-C (SIGINT)")),
    ],
)
def test_what_stops_one_backbone_is_how_the_run_around_them_ends(context, two, monkeypatch, stopped_by, end):
    def stop(*_):
        raise stopped_by

    monkeypatch.setattr(pipeline, "run_stage", stop)
    with pytest.raises(type(stopped_by)):
        run_main(two, context, [STAGES["select"]])
    ends = {name: (run["status"], run["reason"]) for name, run in told(context).items()}
    assert ends == dict.fromkeys(("main trivial, other", "main trivial"), end)


def test_a_single_stage_of_several_backbones_stands_below_it_too(context, two):
    with below_one_run("train", two, context) as below:
        assert below.outer is None
    [(name, run)] = told(context).items()
    assert (name, run["mlflow_run_id"], run["key"]) == ("train trivial, other", OUTER.run_id, below.parent)


def test_a_refusal_of_one_backbone_stands_below_it_too(context, two, monkeypatch):
    def refuse(*_):
        raise ValueError("a row that nobody can read")

    monkeypatch.setattr(pipeline, "_open_pipeline", refuse)
    with pytest.raises(ValueError, match="a row that nobody can read"):
        run_main(two, context, [])
    runs = told(context)
    assert runs["main"]["parent"] == runs["main trivial, other"]["key"]
