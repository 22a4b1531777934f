"""``omni-mlflow validate``: every broken rule at once, of a workspace or of a run in the tracking store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from omni_mlflow.command import Request, bind_all, context_of, execute
from omni_mlflow.logged_settings import judge_settings
from omni_mlflow.registry import Bound
from omni_mlflow.shared_contract import shared_contract
from omni_mlflow.shown_values import judge_shown, judge_versions
from omni_mlflow.spine.types import Check, broken
from omni_mlflow.stage_report import RulesBrokenError
from omni_mlflow.stage_run import look_only
from omni_mlflow.stages import FILLS, OF_ONE_BACKBONE, STAGES
from omni_mlflow.stages.base import Bar
from omni_mlflow.stages.run_under_test import RunUnderTest
from omni_mlflow.stages.validate import LEVELS, VALIDATE, judge_workspace, stages_of
from omni_mlflow.stages.validation_rules import judge
from omni_mlflow.tracking import fetch_stages
from omni_mlflow.workspace_trouble import trouble_with


@dataclass(frozen=True)
class Verdict:
    """Every rule that was applied to one backbone's run.

    Attributes:
        run: id of the run in the tracker; None where a workspace was judged.
    """

    backbone: str
    run: str | None
    require_stage: str
    rules: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return not broken(self.rules)


def validate_workspace(request: Request, *, bar: Bar, say: Callable[[str], None]) -> Iterator[Verdict]:
    """Run the stage for each backbone of the request; what it refuses is a verdict, not an error.

    A workspace in which nothing can be written, such as a colleague's, is judged all the same, and no run
    records it.
    """
    if request.workspace.is_dir() and not _may_write(request):
        say(f"nothing can be written to {request.workspace}, so no run records this verdict")
        yield from _judged_in_place(request, bar=bar, say=say)
        return
    for backbone in request.backbones:
        try:
            execute(replace(request, backbones=(backbone,)), bar=bar, say=say)
        except RulesBrokenError:
            say(f"{backbone}/validate: rules are broken")
        written = request.workspace / backbone / "validate" / "validation.json"
        found = json.loads(written.read_text(encoding="utf-8"))
        rules = tuple(Check.model_validate(rule) for rule in found["rules"])
        yield Verdict(backbone, None, found["require_stage"], rules)


def _may_write(request: Request) -> bool:
    """Tell whether the stage could leave its files: parts of a shared workspace may be somebody else's."""
    own = [request.workspace / backbone / VALIDATE.name for backbone in request.backbones]
    return all(trouble_with(folder) is None for folder in (request.workspace, *own))


def _judged_in_place(request: Request, *, bar: Bar, say: Callable[[str], None]) -> Iterator[Verdict]:
    bounds = bind_all(request)
    common = shared_contract([bound.contract for bound in bounds])
    level = request.options.require_stage
    for bound in bounds:
        context = replace(context_of(request, bounds, common, bar=bar, say=say), bound=bound)
        ground, findings = look_only(VALIDATE, context)
        yield Verdict(bound.contract.id, None, level, tuple(judge_workspace(ground, findings)))


def validate_run(request: Request, run_id: str) -> Iterator[Verdict]:
    """Judge a run, for each backbone of the request, by what the store shows; nothing is written anywhere.

    Every file is compared with the digest that its stage logged of it, the settings that shaped it with those
    of the contract, and what runs and registered versions show beside the files with these. What no store
    holds (weights, samples, the training ledger) is judged by that digest alone.
    """
    for bound in bind_all(request):
        rules = _judge_stored(bound, run_id, store=request.store, level=request.options.require_stage)
        yield Verdict(bound.contract.id, run_id, request.options.require_stage, tuple(rules))


def _judge_stored(bound: Bound, run_id: str, *, store: str, level: str) -> list[Check]:
    with TemporaryDirectory(prefix="omni-mlflow-") as folder:
        fetched = fetch_stages(
            store,
            run_id,
            stages=stages_of(level),
            fills=FILLS,
            of_one_backbone=OF_ONE_BACKBONE,
            backbone=bound.contract.id,
            into=Path(folder),
            beside=_beside(level),
        )
        under_test = RunUnderTest(
            fetched.folders, bound.contract, bound.backbone, bound.settings, logged=fetched.logged
        )
        shown = judge_shown(under_test, fetched.shown, level)
        registered = judge_versions(under_test, fetched.versions)
        if not fetched.folders and broken(fetched.checks):
            return fetched.checks  # there is no such run, so nothing to judge
        return [
            *fetched.checks,
            *judge_settings(under_test, level),
            *judge(under_test, level),
            *shown,
            *registered,
        ]


def _beside(level: str) -> list[str]:
    """The stages up to ``level`` of which no rule asks for anything, at the last one also those after it."""
    judged = stages_of(list(LEVELS)[-1])
    names, last = list(STAGES), stages_of(level)[-1]
    upto = names if last == judged[-1] else names[: names.index(last)]
    return [name for name in upto if name not in judged and STAGES[name].fills is None]


def as_document(verdicts: list[Verdict]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "ok": all(verdict.ok for verdict in verdicts),
        "backbones": [
            {
                "id": verdict.backbone,
                "run": verdict.run,
                "require_stage": verdict.require_stage,
                "ok": verdict.ok,
                "rules": [rule.model_dump(mode="json") for rule in verdict.rules],
            }
            for verdict in verdicts
        ],
    }


def as_table(verdict: Verdict) -> Table:
    """Every broken rule as a row; a run that breaks none has only its title."""
    failed = broken(verdict.rules)
    of = f"run {verdict.run} of {verdict.backbone}" if verdict.run else verdict.backbone
    title = f"{of}, up to {verdict.require_stage}: {len(failed)} of {len(verdict.rules)} rules broken"
    table = Table("rule", "subject", "expected", "found", title=title, title_justify="left", box=box.SIMPLE)
    for each in failed:
        table.add_row(
            *(Text(cell, overflow="fold") for cell in (each.rule, each.subject, each.expected, each.found))
        )
    return table
