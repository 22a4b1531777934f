"""``comparison.md`` and ``comparison.html``: a comparison told to a stranger. Same facts, same bytes."""

from __future__ import annotations

from html import escape

from omni_mlflow.reporting import comparison_tables as told
from omni_mlflow.reporting import markdown, parts
from omni_mlflow.reporting.comparison_facts import ComparisonFacts

FOREST = "forest.png"
_CAPTION = (
    "The difference of each row to the reference, positive in the row's favour, with its 95 % interval over "
    "episodes."
)
_CAPTION_OF_SEEDS = "The mean over seeds with its 95 % interval over episodes; crosses are single seeds."


def render_markdown(facts: ComparisonFacts) -> str:
    """Return the page as Markdown; its first line states the class of the comparison."""
    blocks = [
        told.run_class(facts),
        f"# {markdown.text(told.title(facts))}",
        markdown.table(told.rows_table(facts)),
        "## Findings",
        markdown.bullets(told.findings(facts)),
        markdown.bullets(told.remarks(facts)),
        "## Metrics",
        markdown.table(told.results_table(facts)),
        told.HOW_TO_READ,
        f"![{caption(facts)}]({FOREST})",
        "## Anchors",
        told.common_anchors(facts),
        *markdown.section("Not answered by every run", told.unanswered_table(facts)),
        *markdown.section("What this split can show", told.power_table(facts), after=told.HOW_TO_READ_POWER),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def render_html(facts: ComparisonFacts, *, forest: bytes) -> str:
    """Return the page as one file.

    Args:
        forest: the plot as PNG.
    """
    title, seen = told.title(facts), caption(facts)
    unanswered, power = told.unanswered_table(facts), told.power_table(facts)
    body = [
        f'<p class="class {facts.evidence.value}">{escape(told.run_class(facts))}</p>',
        f"<h1>{escape(title)}</h1>",
        parts.table(told.rows_table(facts)),
        *parts.block("Findings", parts.bullets(told.findings(facts)), parts.bullets(told.remarks(facts))),
        *parts.block("Metrics", parts.table(told.results_table(facts)), parts.note(told.HOW_TO_READ)),
        f"<figure>{parts.image(forest, seen)}<figcaption>{escape(seen)}</figcaption></figure>",
        *parts.block("Anchors", parts.note(told.common_anchors(facts))),
        parts.table(unanswered) if unanswered.rows else "",
        *parts.block(
            "What this split can show",
            parts.table(power) if power.rows else parts.note("No difference has a spread to plan with."),
            parts.note(told.HOW_TO_READ_POWER),
        ),
    ]
    return parts.document(title, body)


def caption(facts: ComparisonFacts) -> str:
    return _CAPTION if len(facts.rows) > 1 else _CAPTION_OF_SEEDS
