"""``RUN_REPORT.md``: one evaluation, told to a stranger. Same facts, same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omni_mlflow.reporting import tables, wording
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.tables import Table


def render_run_report(facts: RunFacts) -> str:
    """Return the report as Markdown; its first line states the run class."""
    blocks = [
        wording.run_class(facts),
        f"# {_text(facts.display_name)}: held-out evaluation",
        "## What was evaluated",
        _table(tables.identity_table(facts)),
        "## Findings",
        _list(wording.findings(facts)),
        "## Metrics",
        _table(tables.results_table(facts)),
        wording.HOW_TO_READ,
        _list(wording.remarks(facts)),
        *_section("Floors", tables.floors_table(facts)),
        *_section("Controls", tables.controls_table(facts), after=wording.HOW_TO_READ_CONTROLS),
        *_section("Actions seen and not seen in training", tables.seen_table(facts)),
        *_section("What the samples are worth", tables.clusters_table(facts)),
        *_section("In, out and skipped", tables.flows_table(facts)),
        *_section("Skipped, by reason", tables.skips_table(facts)),
        *_section("Files", tables.files_table(facts)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(title: str, table: Table, *, after: str = "") -> Iterable[str]:
    """A heading with its table; a section without rows says so instead of vanishing."""
    return (f"## {title}", _table(table) if table.rows else "None.", after if table.rows else "")


def _table(table: Table) -> str:
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    lines = [table.header, tuple(rule), *(tuple(map(_text, row)) for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(sentences: Sequence[str]) -> str:
    mark = "- " if len(sentences) > 1 else ""
    return "\n".join(mark + _line(sentence) for sentence in sentences)


def _text(text: str) -> str:
    """Make foreign text safe inside a Markdown table."""
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())
