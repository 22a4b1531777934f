"""The command line; the only module that prints and exits.

stdout carries the result (pure JSON with ``--json``), stderr progress, logs and errors. Exit status:
0 done, 1 a rule was broken or a stage failed, 2 wrong usage, 128 + number on a signal.

A verb imports what only it needs, and nothing slow is imported before signals are listened to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_mlflow import PARENT_PID
from omni_mlflow.interruption import Interrupted, Stop, end_at_once, listen
from omni_mlflow.terminal import hold_streams, in_words, show, tell, tell_error, words_on_stderr

if TYPE_CHECKING:
    import click

PROJECT = Path(__file__).resolve().parent.parent


def stage_command(name: str, *, as_json: bool, **given: Any) -> None:
    """Run one stage, or ``main``, and show what it made."""
    from omni_mlflow.command import execute, facts_of, line_of
    from omni_mlflow.console import terminal_bar
    from omni_mlflow.stage_options import request_of

    request = request_of(name, given, project=PROJECT)
    with words_on_stderr(), terminal_bar() as bar:
        finished = execute(request, bar=bar, say=tell)
    rows = [facts_of(each, request.workspace) for each in finished]
    print(json.dumps(rows, allow_nan=False) if as_json else "\n".join(map(line_of, rows)))


def validate_command(*, as_json: bool, **given: Any) -> None:
    """Show every rule that a run breaks, of the workspace or of the tracking store; exit 1 on any."""
    from omni_mlflow import validation
    from omni_mlflow.console import terminal_bar
    from omni_mlflow.stage_options import request_of

    request = request_of("validate", given, project=PROJECT)
    with words_on_stderr(), terminal_bar() as bar:
        if given["run_id"] in ("", "none"):
            verdicts = list(validation.validate_workspace(request, bar=bar, say=tell))
        else:
            verdicts = list(validation.validate_run(request, given["run_id"]))
    if as_json:
        print(json.dumps(validation.as_document(verdicts), allow_nan=False))
    else:
        for verdict in verdicts:
            show(validation.as_table(verdict))
    if not all(verdict.ok for verdict in verdicts):
        sys.exit(1)


def compare_command(*, as_json: bool, **given: Any) -> None:
    """Hold evaluations of one split against the first one named, the reference; plan what the split can show.

    Each is judged by the contract it was made with. Only differences to the reference are tested: name
    another run first to hold the others against that one.
    """
    from omni_mlflow import verb_options
    from omni_mlflow.comparison import compare
    from omni_mlflow.console import print_table
    from omni_mlflow.reporting import comparison_tables as told

    with words_on_stderr():
        facts = compare(verb_options.comparing_of(given, project=PROJECT), say=tell)
    if as_json:
        print(facts.model_dump_json())
        return
    print(told.run_class(facts))
    for table in told.tables(facts):
        print_table(table)
    print("\n".join((told.common_anchors(facts), *told.remarks(facts))))


def contracts_command(
    *, validate: bool, schema: bool, backbone: str, contracts_dir: str, as_json: bool
) -> None:
    """List the contracts; with --validate look up every name in them, and exit 1 on any issue."""
    from omni_mlflow import contract_validation
    from omni_mlflow.contract import contract_schema

    if schema:
        print(contract_schema(), end="")
        return
    own = PROJECT / "contracts"
    folder = own if contracts_dir == "none" else Path(contracts_dir)
    with words_on_stderr():
        reports = contract_validation.validate_contracts(
            folder,
            only=None if backbone == "none" else backbone,
            bind_names=validate,
            must_have=contract_validation.contracts_of_the_project() if folder.resolve() == own else {},
        )
    ok = not any(report.issues for report in reports)
    if as_json:
        print(json.dumps({"ok": ok, "backbones": [report.model_dump() for report in reports]}))
    else:
        show(contract_validation.as_table(reports))
    if not ok:
        sys.exit(1)


def scaffold_command(
    *, template_backbone: str, overwrite: bool, dry_run: bool, as_json: bool, **fields: str
) -> None:
    """Begin a new backbone: its contract and its package, every method still to build."""
    from omni_mlflow.scaffold import NewBackbone, planned_files, write_all

    new = NewBackbone(template=template_backbone, **fields)
    files = planned_files(new, project=PROJECT)
    write_all(files, overwrite=overwrite, dry_run=dry_run)
    names = [path.relative_to(PROJECT).as_posix() for path in files]
    if as_json:
        print(json.dumps({"id": new.id, "status": new.status, "dry_run": dry_run, "files": names}))
    else:
        print("\n".join(f"{'would write' if dry_run else 'wrote'} {name}" for name in names))


def score_command(*, predictions: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Score a predictions file by the published definitions; exit 1, and score nothing, on a bad row."""
    from omni_mlflow.score import CLAIM, Request, score

    found = score(Request(predictions=predictions, out=out, **given))
    for sentence in found.told(predictions):
        tell(sentence)
    if as_json:
        print(json.dumps({"ok": not found.problems, **asdict(found)}))
    elif not found.problems:
        numbers = [f"{name:<36}{value:g}" for name, value in found.headline.items()]
        print("\n".join([*numbers, *found.notes, CLAIM]))
    if found.problems:
        sys.exit(1)


def sync_command(*, workspace: str, as_json: bool) -> None:
    """Bring the store to what the journals say."""
    from omni_mlflow.tracking import store_uri, sync

    folder = Path(workspace).resolve()
    if not folder.is_dir():
        tell(f"there is no workspace at {folder}, so no journal has anything to show")
    report = sync(folder, store=store_uri(PROJECT))
    print(json.dumps(asdict(report)) if as_json else "\n".join((*report.notes, report.sentence)))
    if not report.complete:
        sys.exit(1)


def heal_command(*, workspace: str, end: tuple[str, ...], as_json: bool) -> None:
    """End every run whose process died as KILLED, here and in the store; exit 1 where nobody can tell."""
    from omni_mlflow.tracking import heal, store_uri

    report = heal(Path(workspace).resolve(), store=store_uri(PROJECT), end=end)
    print(json.dumps({"ok": report.ok, **asdict(report)}) if as_json else "\n".join(report.lines))
    if report.failure is not None:  # the journals are healed, but the store still says what it said
        tell(report.failure)
    if not report.ok:
        sys.exit(1)


def doctor_command(*, workspace: str, as_json: bool) -> None:
    """Look at Python, packages, torch, codecs, disk and store; exit 1 where a stage would fail."""
    from omni_mlflow import doctor

    findings = doctor.examine(PROJECT, Path(workspace).absolute())
    result = {"ok": doctor.healthy(findings), "checks": [finding.model_dump() for finding in findings]}
    if as_json:
        print(json.dumps(result))
    else:
        show(doctor.as_table(findings))
    if not result["ok"]:
        sys.exit(1)


def inspect_command(*, episode: str, as_json: bool) -> None:
    """Say what an episode folder holds and what is unusual about it; exit 1 when it cannot be read."""
    from omni_mlflow.inspection import inspect_episode, rendered

    inspection = inspect_episode(Path(episode))
    if as_json:
        print(inspection.model_dump_json())
    else:
        show(rendered(inspection))


def build() -> click.Group:
    """The command group: one verb per stage, named as its MLproject entry point."""
    import click

    from omni_mlflow import verb_options
    from omni_mlflow.stage_options import DATA_ROOT, EXTRA_OPTIONS, JSON, OUT, STAGE_OPTIONS, WORKSPACE
    from omni_mlflow.stages import STAGES

    group = click.Group(
        "omni-mlflow", help="Fine-tune multimodal backbones on egocentric episodes and compare them honestly."
    )
    summaries = {name: (sys.modules[stage.run.__module__].__doc__ or "") for name, stage in STAGES.items()}
    for name, summary in {**summaries, "main": "main: every stage in order, as one pipeline run."}.items():
        options = [*STAGE_OPTIONS, *EXTRA_OPTIONS.get(name, ())]
        if name == "synthesize":
            options[options.index(DATA_ROOT)] = OUT
        text = summary.partition(": ")[2]
        does = validate_command if name == "validate" else partial(stage_command, name)
        group.add_command(click.Command(name, params=list(options), callback=does, help=text))
    others: dict[str, tuple[Callable[..., None], list[click.Parameter]]] = {
        "contracts": (contracts_command, [*verb_options.CONTRACTS_OPTIONS]),
        "compare": (compare_command, [*verb_options.COMPARE_OPTIONS]),
        "scaffold": (scaffold_command, [*verb_options.SCAFFOLD_OPTIONS]),
        "score": (score_command, [*verb_options.SCORE_OPTIONS]),
        "sync": (sync_command, [WORKSPACE, JSON]),
        "heal": (heal_command, [*verb_options.HEAL_OPTIONS]),
        "doctor": (doctor_command, [WORKSPACE, JSON]),
        "inspect": (inspect_command, [click.Argument(["episode"]), JSON]),
    }
    for name, (callback, params) in others.items():
        group.add_command(click.Command(name, params=params, callback=callback, help=callback.__doc__))
    return group


def main() -> None:
    """Entry point of the console script and of ``python -m omni_mlflow``."""
    listen(end_at_once)
    result = hold_streams()
    group = build()
    listen(Stop())
    _run(group)
    result.flush()
    if result.lost is not None:
        if not isinstance(result.lost, BrokenPipeError):  # `| head` has read enough
            tell(f"stdout took no more of the result ({result.lost.strerror}); the work itself is done")
        if "MLFLOW_RUN_ID" not in os.environ:  # mlflow run would show the work as failed
            sys.exit(1)


def _run(group: click.Group) -> None:
    """Do what was typed, and say in words how it ended."""
    import click

    from omni_mlflow.spine.processes import die_with_parent, was_adopted

    try:
        if "MLFLOW_RUN_ID" in os.environ:  # `mlflow run` may be killed without telling its child
            die_with_parent(PARENT_PID, signal.SIGTERM)
            if was_adopted(PARENT_PID):
                os.kill(os.getpid(), signal.SIGTERM)
        group.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        _leave_last_words(error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        tell("stopped by Ctrl-C; what was finished stays, the same command goes on from there")
        _leave_last_words("stopped by Ctrl-C (SIGINT) before any stage began", stopped=True)
        sys.exit(130)
    except Interrupted as stopped:
        if isinstance(stopped.__context__, Exception):  # the signal came while a failure was being told
            tell_error(str(stopped.__context__))
        tell(f"stopped by {stopped.name}; what was finished stays, the same command goes on from there")
        _leave_last_words(f"stopped by {stopped.name} before any stage began", stopped=True)
        sys.exit(128 + stopped.number)
    except Exception as error:  # the one place that turns an error into words for a person
        tell_error(in_words(error))
        _leave_last_words(in_words(error))
        sys.exit(1)


def _leave_last_words(reason: str, *, stopped: bool = False) -> None:
    """Under ``mlflow run``, show the reason in the run that it made, where no stage has entered it."""
    if "MLFLOW_RUN_ID" in os.environ:
        from omni_mlflow.events import RunOutcome
        from omni_mlflow.tracking import leave_last_words

        outcome = RunOutcome.KILLED if stopped else RunOutcome.REFUSED
        with suppress(KeyboardInterrupt, Interrupted):  # a second signal is in a hurry
            leave_last_words(reason, outcome=outcome, project=PROJECT)


if __name__ == "__main__":
    main()
