"""The main job: all stages in order, as runs nested under one pipeline run per backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from omni_mlflow.context import Context, flat
from omni_mlflow.events import JOURNAL_NAME, Ended, RunOutcome, Started, Tags, read_events
from omni_mlflow.interruption import Interrupted, name_of
from omni_mlflow.locks import exclusive
from omni_mlflow.record import RunRecord
from omni_mlflow.registry import Bound
from omni_mlflow.spine.rows import digest_of
from omni_mlflow.stage_run import Finished, refuse, run_stage, say_torn
from omni_mlflow.stages.base import Stage
from omni_mlflow.workspace import Workspace


def run_main(bounds: Sequence[Bound], context: Context, stages: Sequence[Stage]) -> list[Finished]:
    """Run every stage for every backbone; shared stages run once and are reused.

    An interrupted main job that is started again enters its old pipeline run and goes on.

    Raises:
        JournalBusyError: another main job is at work in this workspace.
        NewerSchemaError, BadRowError: a journal of this workspace cannot be read.
        Exception: what the failing stage raised; the pipeline run ends FAILED with the same reason.
    """
    with ExitStack() as open_here:
        with _refusal_shown(context):
            open_here.enter_context(exclusive(context.workspace.root / ".locks" / "main"))
        context = open_here.enter_context(below_one_run("main", bounds, context))
        return [
            finished for bound in bounds for finished in _run_backbone(replace(context, bound=bound), stages)
        ]


@contextmanager
def below_one_run(command: str, bounds: Sequence[Bound], context: Context) -> Iterator[Context]:
    """Open the run that ``mlflow run`` made, where one backbone cannot be what it is about.

    It stands around the runs of several backbones, and ends as the command does. With one backbone, or
    without ``mlflow run``, nothing is opened.
    """
    if context.outer is None or len(bounds) == 1:
        yield context
        return
    record = RunRecord.new(context.workspace.run_folder)
    with _honest_end(record):
        name = f"{command} {', '.join(bound.contract.id for bound in bounds)}"
        key = _enter(record, name, context)
        record.tags({**context.source, "omni.stage": "backbones"})
        yield replace(context, parent=key, outer=None)


def _run_backbone(context: Context, stages: Sequence[Stage]) -> list[Finished]:
    outer = context.outer
    request = digest_of(
        [context.bound.contract.digest, str(context.options.data_root), outer.run_id if outer else None]
    )
    with _refusal_shown(context):
        record = _open_pipeline(context.workspace, request)
    with _honest_end(record):
        backbone = context.bound.contract.id
        say_torn(record, f"main {backbone}", context)
        key = _enter(record, f"main {backbone}", context)
        record.tags(
            {**context.source, "omni.stage": "main", "omni.backbone": backbone, "omni.request": request}
        )
        record.params(flat({"settings": context.bound.contract.settings}))
        inner = replace(context, parent=key, outer=None)
        done: list[Finished] = []
        for stage in stages:
            done.append(run_stage(stage, inner))
            record.upstream({stage.name: done[-1].key})
            record.tags(done[-1].seal.tags)
        record.metrics(_headline(done))
    return done


def _enter(record: RunRecord, name: str, context: Context) -> str:
    outer = context.outer
    return record.started(
        name,
        parent=context.parent,
        mlflow_run_id=outer.run_id if outer else None,
        mlflow_experiment_id=outer.experiment_id if outer else None,
    )


@contextmanager
def _honest_end(record: RunRecord) -> Iterator[None]:
    """End a run as what is done below it ends."""
    try:
        yield
        record.ended("FINISHED", RunOutcome.OK)
    except Exception as error:
        record.ended("FAILED", RunOutcome.FAILED, str(error))
        raise
    except (Interrupted, KeyboardInterrupt) as signal:
        record.ended("KILLED", RunOutcome.KILLED, f"stopped by {name_of(signal)}")
        raise
    finally:
        record.close()


@contextmanager
def _refusal_shown(context: Context) -> Iterator[None]:
    """What keeps a main job from beginning is shown as a FAILED run."""
    try:
        yield
    except Exception as error:
        refuse(context.workspace, "main", error, parent=context.parent, outer=context.outer)
        raise


def _headline(done: Sequence[Finished]) -> dict[str, float]:
    """The numbers that people compare: those of the evaluation, on the pipeline's own row."""
    return {
        key: value
        for finished in done
        if finished.stage == "evaluate"
        for key, value in finished.seal.metrics.items()
    }


def _open_pipeline(workspace: Workspace, request: str) -> RunRecord:
    """Enter the unfinished pipeline run of the same request, or begin a new one."""
    for journal in sorted(workspace.root.glob(f"runs/*/{JOURNAL_NAME}")):
        if _is_unfinished(journal, request):
            return RunRecord(journal.parent)
    return RunRecord.new(workspace.run_folder)


def _is_unfinished(journal: Path, request: str) -> bool:
    finished = False
    same = False
    for event in read_events(journal):
        if isinstance(event, Tags):
            same = same or event.values.get("omni.request") == request
        elif isinstance(event, Started | Ended):
            finished = isinstance(event, Ended) and event.status == "FINISHED"
    return same and not finished
