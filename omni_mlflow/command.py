"""From a request to runs: bind the contracts, follow the journals with a projector, run the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_mlflow.context import Context, OuterRun
from omni_mlflow.contract import Contract, ContractError, SplitCounts
from omni_mlflow.contract.file import parse_changes
from omni_mlflow.loaded_code import LOADED
from omni_mlflow.locks import JournalBusyError
from omni_mlflow.pipeline import below_one_run, run_main
from omni_mlflow.registry import Bound, load_bound
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.source import git_tags
from omni_mlflow.spine.rows import read_rows
from omni_mlflow.spine.types import Skip
from omni_mlflow.stage_run import Finished, refuse, run_stage
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Bar, Options
from omni_mlflow.tracking import heal_journals, start_projector
from omni_mlflow.workspace import Workspace
from omni_mlflow.workspace_trouble import UnusableWorkspaceError, trouble_with

PROJECTION_TIMEOUT_S = 120.0
_LEFT_OUT = "skipped_"  # so the file of the rows that a stage left out begins; then comes what it counts

_UNDER_MLFLOW_RUN = (
    "the work is done and sealed, whatever mlflow run says now: it asks the tracking store once more, waits "
    "for minutes while that does not answer (seconds with MLFLOW_HTTP_REQUEST_MAX_RETRIES=2), and ends with "
    "an error, status 1. Once the store is back, omni-mlflow sync shows how the run ended, and so does the "
    "same command again"
)


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        command: ``main`` or a stage's name.
        contract: a contract file that replaces ``contracts/<backbone>.yaml``.
        changes: single settings, such as ``lora.rank=8,training.steps=50``.
        outer: the run that ``mlflow run`` has made for this process.
    """

    command: str
    project: Path
    workspace: Path
    store: str
    backbones: tuple[str, ...]
    contract: Path | None
    profile: str | None
    sizes: SplitCounts | None
    changes: str | None
    options: Options
    outer: OuterRun | None


def execute(request: Request, *, bar: Bar, say: Callable[[str], None]) -> list[Finished]:
    """Run the request; every run it touches ends with an honest status, in the journal and the store.

    Raises:
        UnusableWorkspaceError: nothing can be written to the workspace.
        JournalBusyError: another process is at work on the same.
        Exception: the first failure, after it was recorded.
    """
    if (trouble := trouble_with(request.workspace)) is not None:
        raise UnusableWorkspaceError(trouble)
    workspace = Workspace(request.workspace)
    projector = start_projector(request.workspace, store=request.store)
    wait, done = True, False
    try:
        for healed in heal_journals(request.workspace):
            say(f"{healed.name}: {healed.reason}")
        finished = _execute(request, workspace, bar=bar, say=say)
        done = True
        return finished
    except JournalBusyError:
        wait = False  # our projector shows the refusal when its turn comes, after this process has ended
        raise
    finally:
        LOADED.release()
        if wait:
            told = projector.finish(timeout_s=PROJECTION_TIMEOUT_S)
            ended = (f"{run.name} (run {run.run_id}): {run.reason}" for run in told.healed)
            for line in (*ended, *told.notes, told.sentence):
                say(line)
            if done and told.failure is not None and request.outer is not None:
                say(_UNDER_MLFLOW_RUN)


def _execute(
    request: Request, workspace: Workspace, *, bar: Bar, say: Callable[[str], None]
) -> list[Finished]:
    try:
        bounds = bind_all(request)
        shared = shared_contract([bound.contract for bound in bounds])
        LOADED.hold()
    except Exception as error:
        refuse(workspace, request.command, error, parent=None, outer=request.outer)
        raise
    own_data = request.options.data_root is None
    context = context_of(request, bounds, shared, bar=bar, say=say)
    if request.command != "main":
        stage = STAGES[request.command]
        with below_one_run(stage.name, bounds, context) as context:
            return [run_stage(stage, replace(context, bound=bound)) for bound in bounds]
    own_work = [stage for stage in STAGES.values() if stage.fills is None]
    stages = [stage for stage in own_work if own_data or stage.name != "synthesize"]
    return run_main(bounds, context, stages)


def context_of(
    request: Request, bounds: Sequence[Bound], shared: Contract, *, bar: Bar, say: Callable[[str], None]
) -> Context:
    """What the stages of a request share; it stands for the first backbone."""
    return Context(
        workspace=Workspace(request.workspace),
        bound=bounds[0],
        shared=shared,
        options=request.options,
        bar=bar,
        say=say,
        suites=request.project / "expectations",
        source=git_tags(request.project),
        outer=request.outer,
    )


def bind_all(request: Request) -> list[Bound]:
    """Read and bind the contract of every backbone that the request names.

    Raises:
        ContractError: a contract is missing, malformed or names something that does not exist.
    """
    if twice := sorted({name for name in request.backbones if request.backbones.count(name) > 1}):
        raise ContractError(f"--backbone names {', '.join(twice)} more than once; name each once")
    if request.contract is not None and len(request.backbones) > 1:
        raise ContractError("--contract names one file; give one --backbone with it")
    changes = parse_changes(request.changes)
    if request.sizes is not None:
        changes["split_policy.default_counts"] = request.sizes.model_dump()
    folder = request.project / "contracts"
    bounds = [
        load_bound(request.contract or folder / f"{backbone}.yaml", profile=request.profile, changes=changes)
        for backbone in request.backbones
    ]
    for bound, backbone in zip(bounds, request.backbones, strict=True):
        if bound.contract.id != backbone:
            raise ContractError(
                f"{request.contract} is the contract of {bound.contract.id!r}, not of {backbone!r}; "
                f"give --backbone {bound.contract.id}"
            )
    return bounds


def facts_of(finished: Finished, workspace: Path) -> dict[str, Any]:
    """What a program is told of a finished stage."""
    seal = finished.seal
    return {
        "stage": finished.stage,
        "run": finished.key,
        "reused": finished.reused,
        "folder": finished.folder.relative_to(workspace).as_posix(),
        "metrics": seal.metrics,
        "rows": {"taken": seal.taken, "made": seal.made, "skipped": seal.skipped},
        "note": _note(finished),
    }


def _note(finished: Finished) -> str | None:
    """What was left out; where that is all there was, the stage's own words for why nothing came of it."""
    seal = finished.seal
    listed = next((name for name in seal.outputs if name.startswith(_LEFT_OUT)), None)
    if listed is None:
        return None
    if (seal.made, seal.skipped) == (0, 1):
        [only] = read_rows(finished.folder / listed, Skip)
        return only.reason
    rows = listed.removeprefix(_LEFT_OUT).removesuffix(".jsonl")
    return f"{seal.made} of {seal.taken} {rows}, {seal.skipped} left out: {listed}"


def line_of(facts: Mapping[str, Any]) -> str:
    """What a person is told of a finished stage."""
    verb = "reused" if facts["reused"] else "done"
    numbers = ", ".join(f"{key} {value:g}" for key, value in sorted(facts["metrics"].items())[:5])
    told = "; ".join(filter(None, (numbers, facts["note"])))
    return f"{facts['stage']:<11}{verb:<8}{facts['folder']:<30}{told}"
