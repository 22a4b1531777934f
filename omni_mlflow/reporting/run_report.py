"""``RUN_REPORT.md``: one evaluation, told to a stranger. Same facts, same bytes."""

from __future__ import annotations

from omni_mlflow.reporting import markdown, tables, wording
from omni_mlflow.reporting.facts import RunFacts


def render_run_report(facts: RunFacts) -> str:
    """Return the report as Markdown; its first line states the run class."""
    blocks = [
        wording.run_class(facts),
        f"# {markdown.text(wording.title(facts))}",
        "## What was evaluated",
        markdown.table(tables.identity_table(facts)),
        "## Findings",
        markdown.bullets(wording.findings(facts)),
        "## Metrics",
        markdown.table(tables.results_table(facts)),
        wording.how_to_read(facts),
        markdown.bullets(wording.remarks(facts)),
        *markdown.section("Floors", tables.floors_table(facts)),
        *markdown.section("Controls", tables.controls_table(facts), after=wording.HOW_TO_READ_CONTROLS),
        *(
            markdown.section("Actions seen and not seen in training", tables.seen_table(facts))
            if facts.questions
            else ()
        ),
        *markdown.section("What the samples are worth", tables.clusters_table(facts)),
        *markdown.section("In, out and skipped", tables.flows_table(facts)),
        *markdown.section("Skipped, by reason", tables.skips_table(facts)),
        *markdown.section("Files", tables.files_table(facts)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"
