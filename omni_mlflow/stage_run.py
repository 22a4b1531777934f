"""What happens once around every stage.

Lock the stage, verify its inputs, reuse it when nothing changed, otherwise run it, show its evidence,
seal its outputs and end its run. A stage writes only to its journal; a separate process projects the
journals to MLflow, so a tracker that is away neither slows nor stops the work.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.context import (
    Context,
    OuterRun,
    check_lineage,
    contract_of,
    fingerprint_of,
    flat,
    folder_of,
    judged_inputs,
    settings_of,
    tags_of,
)
from omni_mlflow.events import JOURNAL_NAME, Ended, RunOutcome, Started, read_events
from omni_mlflow.interruption import name_of
from omni_mlflow.leftovers import FAILURE_NAME, key_of, make_room, put_away
from omni_mlflow.loaded_code import LOADED
from omni_mlflow.locks import exclusive, shared
from omni_mlflow.logged_files import log_files
from omni_mlflow.record import RunRecord
from omni_mlflow.spine.rows import write_text
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stage_report import ConservationError, RulesBrokenError, check, inherited_tags, show
from omni_mlflow.stages import STAGES
from omni_mlflow.stages.base import Ground, Report, Run, Stage
from omni_mlflow.workspace import Seal, StageFolder, Workspace


class StageFailedError(Exception):
    """A stage failed for a reason nobody planned; the traceback is kept beside its journal."""


@dataclass(frozen=True)
class Finished:
    """A stage whose outputs are sealed.

    Attributes:
        key: key of the run that made the outputs.
        reused: nothing was done; an earlier run had made exactly this.
    """

    stage: str
    key: str
    folder: Path
    seal: Seal
    reused: bool


def run_stage(stage: Stage, context: Context) -> Finished:
    """Run or reuse one stage; its run always ends with an honest status.

    Raises:
        RulesBrokenError, ConservationError: the stage refuses; its evidence is in the tracker.
        StageFailedError: anything nobody planned.
        Exception: user mistakes keep their own type (missing input, stale input, contract ...).
    """
    folder = folder_of(stage, context)
    try:
        with exclusive(_lock_of(folder, context)), ExitStack() as readers:
            inputs = {name: folder_of(STAGES[name], context) for name in stage.needed(context.options)}
            for each in inputs.values():
                readers.enter_context(shared(_lock_of(each, context)))
            seals, findings = _look_at(inputs, stage, context)
            stage.check_data(context.options, inputs)
            ground = ground_for(stage, context, inputs)
            _admit(stage, folder, ground)
            fingerprint = fingerprint_of(stage.work, context, seals)
            make_room(stage, folder, fingerprint)
            if folder.seal() is not None and (broken(findings or ()) or stage.looks_again(ground)):
                put_away(folder)
            if folder.seal() is not None:
                return _reuse(stage, context, folder, folder.verify())
            settings = settings_of(stage.work, context)
            return _execute(stage, context, _Attempt(folder, inputs, seals, findings, fingerprint, settings))
    except _Recorded as recorded:
        raise recorded.error from recorded.error.__cause__
    except Exception as error:
        refuse(context.workspace, stage.name, error, parent=context.parent, outer=context.outer)
        raise


def look_only(stage: Stage, context: Context) -> tuple[Ground, list[Check]]:
    """Return what a stage stands on that judges its inputs, and what is wrong with them. Writes nothing."""
    inputs = {name: folder_of(STAGES[name], context) for name in stage.needed(context.options)}
    _, findings = judged_inputs(context, inputs)
    return ground_for(stage, context, inputs), findings


def ground_for(stage: Stage, context: Context, inputs: Mapping[str, StageFolder]) -> Ground:
    """What a stage stands on in this workspace."""
    return Ground(
        stage=stage.name,
        workspace=context.workspace,
        contract=contract_of(stage, context),
        backbone=context.bound.backbone if stage.per_backbone else None,
        settings=context.bound.settings if stage.per_backbone else None,
        options=context.options,
        inputs=inputs,
        readable=stage.inputs,
    )


def _look_at(
    inputs: Mapping[str, StageFolder], stage: Stage, context: Context
) -> tuple[dict[str, Seal], list[Check] | None]:
    """Verify the inputs; a stage that judges them itself gets what is wrong with them instead."""
    if stage.judges_inputs:
        return judged_inputs(context, inputs)
    seals = {name: each.verify() for name, each in inputs.items()}
    check_lineage(context, seals)
    return seals, None


def _admit(stage: Stage, folder: StageFolder, ground: Ground) -> None:
    if failures := stage.admits(ground):
        raise RulesBrokenError(folder.title, list(failures))


def refuse(
    workspace: Workspace, name: str, error: Exception, *, parent: str | None, outer: OuterRun | None
) -> None:
    """Leave a FAILED run for a command that could not even start its work."""
    with (
        suppress(OSError),  # what cannot be written on a full disk is still told on the terminal
        _loose_record(workspace, name, parent=parent, outer=outer) as record,
    ):
        record.ended("FAILED", RunOutcome.REFUSED, str(error))


class _Recorded(Exception):  # noqa: N818 - carries an error whose run has already ended
    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a stage: where it works, what it reads, and the identity of the work."""

    folder: StageFolder
    inputs: Mapping[str, StageFolder]
    seals: Mapping[str, Seal]
    findings: list[Check] | None
    fingerprint: str
    settings: dict[str, Any]


def _execute(stage: Stage, context: Context, attempt: _Attempt) -> Finished:
    folder = attempt.folder
    record = RunRecord(folder.path)
    try:
        say_torn(record, folder.title, context)
        _announce(record, stage, context, attempt)
        context.say(f"{folder.title}: started")
        report = stage.run(_run(stage, context, attempt, record))
        LOADED.refuse_edited()
        show(record, folder, report, rows=report.rows or stage.rows)
        check(folder, report)
        seal = _seal(stage, attempt, report, record)
        record.ended("FINISHED", RunOutcome.OK)
    except (RulesBrokenError, ConservationError) as error:
        record.ended("FAILED", RunOutcome.REFUSED, str(error))
        raise _Recorded(error) from error
    except (Exception, SystemExit) as error:  # a library that exits must not end the process with its status
        told = _told(error, folder)
        record.ended("FAILED", RunOutcome.FAILED, str(told))
        raise _Recorded(told) from error
    except BaseException as signal:
        if not record.over:
            record.ended("KILLED", RunOutcome.KILLED, f"stopped by {name_of(signal)}")
        raise
    finally:
        context.bar.stop()
        record.close()
    context.say(f"{folder.title}: done")
    return Finished(stage.name, record.key or "", folder.path, seal, reused=False)


def _run(stage: Stage, context: Context, attempt: _Attempt, record: RunRecord) -> Run:
    return Run(
        **vars(ground_for(stage, context, attempt.inputs)),
        folder=attempt.folder.path,
        fingerprint=attempt.fingerprint,
        record=record,
        bar=context.bar,
        suites=context.suites,
        say=lambda line: context.say(f"{attempt.folder.title}: {line}"),
        findings=attempt.findings,
    )


def _reuse(stage: Stage, context: Context, folder: StageFolder, seal: Seal) -> Finished:
    """Say which run is reused; a lone stage under ``mlflow run`` gets a run that points to it."""
    key = key_of(folder.path)
    _say_that_it_finished(folder, context)
    context.say(f"{folder.title}: unchanged, reusing run {key[:12]}")
    if context.parent is None:
        with _loose_record(context.workspace, stage.name, parent=None, outer=context.outer) as record:
            record.tags({**tags_of(stage, context), "omni.reused": "yes"})
            record.tags(seal.tags)
            record.upstream({stage.name: key})
            record.metrics(seal.metrics)
            record.ended("FINISHED", RunOutcome.OK, f"reused run {key}: inputs, settings and code unchanged")
    return Finished(stage.name, key, folder.path, seal, reused=True)


def say_torn(record: RunRecord, title: str, context: Context) -> None:
    """Tell a person what a process that died left unfinished in the journal of a run that goes on."""
    for told in record.torn:
        context.say(f"{title}: {told}")


def _say_that_it_finished(folder: StageFolder, context: Context) -> None:
    """A process that died between its seal and its last row had finished all the same."""
    ends = [event for event in read_events(folder.path / JOURNAL_NAME) if isinstance(event, Started | Ended)]
    if not isinstance(ends[-1], Ended) or ends[-1].status != "FINISHED":
        record = RunRecord(folder.path)
        say_torn(record, folder.title, context)
        record.ended("FINISHED", RunOutcome.OK)
        record.close()


def _announce(record: RunRecord, stage: Stage, context: Context, attempt: _Attempt) -> None:
    _start(record, stage.name, parent=context.parent, outer=context.outer)
    identity = {**context.source, **tags_of(stage, context), **inherited_tags(attempt.seals)}
    record.tags({**identity, "omni.fingerprint": attempt.fingerprint})
    record.params({**attempt.settings, **flat(stage.choices(context.options))})
    record.upstream({name: key_of(attempt.inputs[name].path) for name in attempt.seals})


def _seal(stage: Stage, attempt: _Attempt, report: Report, record: RunRecord) -> Seal:
    folder = attempt.folder
    skipped = [folder.path / f"skipped_{report.rows or stage.rows}.jsonl"] if report.skipped else []
    outputs = folder.files([*report.outputs, *skipped])
    log_files(record, outputs, settings=attempt.settings)
    seal = Seal(
        stage=stage.work.name,
        backbone=folder.backbone,
        fingerprint=attempt.fingerprint,
        settings=attempt.settings,
        inputs={name: seal.digest for name, seal in sorted(attempt.seals.items())},
        outputs=outputs,
        metrics=dict(report.metrics),
        tags={**inherited_tags(attempt.seals), **report.tags},
        taken=report.taken,
        made=report.made,
        skipped=len(report.skipped),
    )
    folder.close(seal)
    return seal


def _told(error: BaseException, folder: StageFolder) -> Exception:
    """Keep the message of errors that explain themselves; keep the traceback of all others as a file."""
    if isinstance(error, Exception) and type(error).__module__.startswith("omni_mlflow"):
        return error
    kept = folder.path / FAILURE_NAME
    try:
        write_text(kept, "".join(traceback.format_exception(error)))
        place = f"The traceback is in {kept}"
    except OSError as full:  # a disk that is full has no room for the traceback either
        place = f"The traceback could not be kept: {full.strerror}"
    return StageFailedError(
        f"{folder.title} failed: {type(error).__name__}: {error}. {place}; "
        "what was finished stays and is reused, so after mending the cause run the same command again"
    )


def _lock_of(folder: StageFolder, context: Context) -> Path:
    return context.workspace.root / ".locks" / folder.title.replace("/", "-")


@contextmanager
def _loose_record(
    workspace: Workspace, name: str, *, parent: str | None, outer: OuterRun | None
) -> Iterator[RunRecord]:
    """A run that has no stage folder of its own."""
    record = RunRecord.new(workspace.run_folder)
    try:
        _start(record, name, parent=parent, outer=outer)
        record.tags({"omni.stage": name})
        yield record
    finally:
        record.close()


def _start(record: RunRecord, name: str, *, parent: str | None, outer: OuterRun | None) -> None:
    mine = outer if parent is None else None
    record.started(
        name,
        parent=parent,
        mlflow_run_id=mine.run_id if mine else None,
        mlflow_experiment_id=outer.experiment_id if outer else None,
    )
