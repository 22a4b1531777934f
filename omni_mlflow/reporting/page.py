"""``report.html``: the facts of ``RUN_REPORT.md`` with figures and contact sheets, in one file.

Nothing is loaded from outside and nothing runs: styles are inline, images are data, every value is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from omni_mlflow.reporting import parts, tables, wording
from omni_mlflow.reporting.contact_sheets import ContactSheet, strip
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.figures import ReportFigure
from omni_mlflow.reporting.tables import Table

_MARKS = {True: "equal", False: wording.DIFFERS, None: "not annotated"}
_LONGEST_QUESTION = 1_200


def render_page(
    facts: RunFacts, *, figures: Sequence[ReportFigure], contact_sheets: Sequence[ContactSheet]
) -> str:
    """Return the page. Same facts, figures and sheets: same bytes."""
    title = wording.title(facts)
    body = [
        f'<p class="class {facts.evidence.value}">{escape(wording.run_class(facts))}</p>',
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(_lede(facts))}</p>',
        *parts.block("Findings", parts.bullets(wording.findings(facts))),
        *parts.block(
            "Metrics", parts.table(tables.results_table(facts)), parts.note(wording.how_to_read(facts))
        ),
        parts.bullets(wording.remarks(facts)),
        *(_figure(figure) for figure in figures),
        *_tabled("Controls", tables.controls_table(facts), note=wording.HOW_TO_READ_CONTROLS),
        *_tabled("Floors", tables.floors_table(facts)),
        *(
            _tabled("Actions seen and not seen in training", tables.seen_table(facts))
            if facts.questions
            else ()
        ),
        *_tabled("What the samples are worth", tables.clusters_table(facts)),
        *parts.block("Windows to look at", *(map(_sheet, contact_sheets))),
        *_tabled("What was evaluated", tables.identity_table(facts)),
        *_tabled("In, out and skipped", tables.flows_table(facts)),
        *_tabled("Skipped, by reason", tables.skips_table(facts)),
        *_tabled("Files", tables.files_table(facts)),
    ]
    return parts.document(title, body)


def _lede(facts: RunFacts) -> str:
    return (
        f"{facts.base_model}, checkpoint {facts.checkpoint_digest[:12]}, on {facts.answered_samples} samples "
        f"of {facts.answered_episodes} held-out episodes"
    )


def _tabled(title: str, table: Table, *, note: str = "") -> Iterable[str]:
    if not table.rows:
        return parts.block(title, parts.note("None."))
    return parts.block(title, parts.table(table), parts.note(note) if note else "")


def _figure(figure: ReportFigure) -> str:
    return (
        f"<h2>{escape(figure.title)}</h2>\n<figure>{parts.image(figure.png, figure.caption)}"
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _sheet(sheet: ContactSheet) -> str:
    image = parts.image(strip(sheet.frames), f"Frames of {sheet.sample_id}") if len(sheet.frames) else ""
    question = sheet.question
    if len(question) > _LONGEST_QUESTION:
        question = question[:_LONGEST_QUESTION] + f" … ({len(question) - _LONGEST_QUESTION} characters more)"
    return (
        f'<section class="sheet"><h3>{escape(sheet.sample_id)}</h3>\n{image}\n'
        f"{parts.note(sheet.frames_are)}\n"
        f"<pre>{escape(question)}</pre>\n{_said(sheet)}</section>"
    )


def _said(sheet: ContactSheet) -> str:
    """The labels of a reply beside the true ones; where none was asked for, what the row says."""
    if sheet.raw is None:
        return parts.table(Table(("Column", "Value"), tuple(sheet.told()))) if sheet.columns else ""
    compared = Table(
        ("Key", "Answer", "Truth", ""),
        tuple((key, said, true, _MARKS[same]) for key, said, true, same in sheet.compared()),
    )
    reply = (
        "" if sheet.answer else f"{parts.note('The reply is no JSON object:')}<pre>{escape(sheet.raw)}</pre>"
    )
    return reply + parts.table(compared)
