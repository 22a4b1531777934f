"""``omni-mlflow compare``: evaluations of one split held against each other, as a tracked run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omni_mlflow.compared_runs import EvaluatedRun, NotComparableError, open_run
from omni_mlflow.context import OuterRun
from omni_mlflow.contract import ContractError
from omni_mlflow.events import RunOutcome
from omni_mlflow.interruption import Interrupted, name_of
from omni_mlflow.metrics.errors import UnpairedError
from omni_mlflow.metrics.pairing import disagreements
from omni_mlflow.paired_runs import PairedAnswers, facts_of, paired_answers
from omni_mlflow.record import RunRecord
from omni_mlflow.reporting.comparison_facts import ComparisonFacts
from omni_mlflow.reporting.comparison_tables import run_class
from omni_mlflow.source import git_tags
from omni_mlflow.spine.evidence import Evidence
from omni_mlflow.spine.rows import write_document, write_table, write_text
from omni_mlflow.tracking import heal_journals, start_projector
from omni_mlflow.workspace import Workspace

COMPARE = "compare"
_PROJECTION_TIMEOUT_S = 120.0
_REFUSALS = (NotComparableError, UnpairedError, ContractError)


@dataclass(frozen=True)
class Comparing:
    """What the user asked for.

    Attributes:
        runs: run ids of the store, workspaces, or folders of backbones; the first is the reference.
        out: where the files are copied to; None leaves them with the run's journal only.
        outer: the run that ``mlflow run`` has made for this process.
    """

    runs: tuple[str, ...]
    project: Path
    workspace: Path
    store: str
    out: Path | None
    outer: OuterRun | None


def compare(request: Comparing, *, say: Callable[[str], None]) -> ComparisonFacts:
    """Compare, and leave a run whose artifacts are the comparison; it ends with an honest status.

    Raises:
        NotComparableError, UnpairedError: the runs cannot be held against each other.
        ContractError: the contract of a run cannot be bound to the code as it is now.
    """
    projector = start_projector(request.workspace, store=request.store)
    try:
        for healed in heal_journals(request.workspace):
            say(f"{healed.name}: {healed.reason}")
        return _recorded(request, say)
    finally:
        told = projector.finish(timeout_s=_PROJECTION_TIMEOUT_S)
        for line in (*told.notes, told.sentence):
            say(line)


def _recorded(request: Comparing, say: Callable[[str], None]) -> ComparisonFacts:
    record = RunRecord.new(Workspace(request.workspace).run_folder)
    outer = request.outer
    try:
        record.started(
            COMPARE,
            parent=None,
            mlflow_run_id=outer.run_id if outer else None,
            mlflow_experiment_id=outer.experiment_id if outer else None,
        )
        record.tags({**git_tags(request.project), "omni.stage": COMPARE})
        record.params({"runs": ",".join(request.runs)})
        facts = _compared(request, record, say)
        record.ended("FINISHED", RunOutcome.OK, run_class(facts))
        return facts
    except _REFUSALS as error:
        record.ended("FAILED", RunOutcome.REFUSED, str(error))
        raise
    except Exception as error:
        record.ended("FAILED", RunOutcome.FAILED, f"{type(error).__name__}: {error}")
        raise
    except (Interrupted, KeyboardInterrupt) as stopping:
        record.ended("KILLED", RunOutcome.KILLED, f"stopped by {name_of(stopping)}")
        raise
    finally:
        record.close()


def _compared(request: Comparing, record: RunRecord, say: Callable[[str], None]) -> ComparisonFacts:
    runs: list[EvaluatedRun] = []
    for given in request.runs:
        runs += open_run(given, store=request.store)
        say(f"compare: {given} is validated")
    answers = paired_answers(runs)
    facts = facts_of(answers)
    _point_upstream(record, answers)
    files = _write(facts, disagreements(answers.pairing, answers.questions), record.folder)
    record.tags(_tags(facts))
    record.results(_results(facts))
    record.artifacts(files)
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, request.out)
        say(f"compare: written to {request.out}")
    return facts


def _point_upstream(record: RunRecord, answers: PairedAnswers) -> None:
    """A run of the store is known by its id; one of a workspace gets one when its journal is projected."""
    for name, run in answers.runs.items():
        if run.run_id is not None:
            record.tags({f"omni.upstream.evaluate_{name}": run.run_id})
        else:
            record.upstream({f"evaluate_{name}": run.key})


def _write(facts: ComparisonFacts, differing: list[dict[str, object]], folder: Path) -> list[Path]:
    """Write every file; none holds a clock, so the same runs give the same bytes."""
    from omni_mlflow.reporting.comparison_forest import forest_plot
    from omni_mlflow.reporting.comparison_page import FOREST, render_html, render_markdown
    from omni_mlflow.reporting.comparison_tables import results_rows

    forest = forest_plot(facts)
    write_document(folder / "comparison.json", facts)
    write_table(folder / "comparison.csv", results_rows(facts))
    write_table(folder / "disagreements.csv", differing)
    write_text(folder / "comparison.md", render_markdown(facts))
    write_text(folder / "comparison.html", render_html(facts, forest=forest))
    (folder / FOREST).write_bytes(forest)
    names = ("json", "csv", "md", "html")
    return [*(folder / f"comparison.{name}" for name in names), folder / "disagreements.csv", folder / FOREST]


def _tags(facts: ComparisonFacts) -> dict[str, str]:
    verdicts = {
        metric.question or metric.metric: ", ".join(
            f"{contrast.row} {contrast.verdict}" for contrast in metric.contrasts
        )
        for metric in facts.metrics
        if metric.contrasts and facts.evidence is Evidence.HELD_OUT
    }
    return {
        "omni.evidence": facts.evidence.value,
        "omni.split_digest": facts.split_digest[:16],
        **{f"omni.verdict.{judged}": told for judged, told in verdicts.items()},
    }


def _results(facts: ComparisonFacts) -> dict[str, float]:
    differences = {
        f"compare/{metric.metric}_{contrast.row}": round(contrast.difference, 6)
        for metric in facts.metrics
        for contrast in metric.contrasts
    }
    counts = {"anchors": facts.anchors, "episodes": facts.episodes, "disagreements": facts.disagreements}
    return {**differences, **{f"compare/{name}": count for name, count in counts.items()}}
