"""``report.html``: the facts of ``RUN_REPORT.md`` with figures and contact sheets, in one file.

Nothing is loaded from outside and nothing runs: styles are inline, images are data, every value is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from omni_mlflow.reporting import tables, wording
from omni_mlflow.reporting.contact_sheets import ContactSheet, strip
from omni_mlflow.reporting.facts import RunFacts
from omni_mlflow.reporting.figures import ReportFigure
from omni_mlflow.reporting.style import STYLE
from omni_mlflow.reporting.tables import Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_DIFFERS = "differs"
_MARKS = {True: "equal", False: _DIFFERS, None: "not annotated"}
_CELL_CLASSES = {wording.BEATS: "good", wording.DOES_NOT_BEAT: "bad", _DIFFERS: "bad"}
_LONGEST_QUESTION = 1_200
_NARROW_COLUMNS = 5


def render_page(
    facts: RunFacts, *, figures: Sequence[ReportFigure], contact_sheets: Sequence[ContactSheet]
) -> str:
    """Return the page. Same facts, figures and sheets: same bytes."""
    title = f"{facts.display_name}: held-out evaluation"
    body = [
        f'<p class="class {facts.evidence.value}">{escape(wording.run_class(facts))}</p>',
        f"<h1>{escape(title)}</h1>",
        f'<p class="lede">{escape(_lede(facts))}</p>',
        *_block("Findings", _list(wording.findings(facts))),
        *_block("Metrics", _table(tables.results_table(facts)), _note(wording.HOW_TO_READ)),
        _list(wording.remarks(facts)),
        *(_figure(figure) for figure in figures),
        *_tabled("Controls", tables.controls_table(facts), note=wording.HOW_TO_READ_CONTROLS),
        *_tabled("Floors", tables.floors_table(facts)),
        *_tabled("Actions seen and not seen in training", tables.seen_table(facts)),
        *_tabled("What the samples are worth", tables.clusters_table(facts)),
        *_block("Windows to look at", *(map(_sheet, contact_sheets))),
        *_tabled("What was evaluated", tables.identity_table(facts)),
        *_tabled("In, out and skipped", tables.flows_table(facts)),
        *_tabled("Skipped, by reason", tables.skips_table(facts)),
        *_tabled("Files", tables.files_table(facts)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _lede(facts: RunFacts) -> str:
    return (
        f"{facts.base_model}, checkpoint {facts.checkpoint_digest[:12]}, on {facts.answered_samples} samples "
        f"of {facts.answered_episodes} held-out episodes"
    )


def _block(title: str, *parts: str) -> Iterable[str]:
    return (f"<h2>{escape(title)}</h2>", *parts) if any(parts) else ()


def _tabled(title: str, table: Table, *, note: str = "") -> Iterable[str]:
    if not table.rows:
        return _block(title, _note("None."))
    return _block(title, _table(table), _note(note) if note else "")


def _table(table: Table) -> str:
    head = "".join(_cell("th", text, column in table.numeric) for column, text in enumerate(table.header))
    rows = [
        "<tr>"
        + "".join(_cell("td", text, column in table.numeric) for column, text in enumerate(row))
        + "</tr>"
        for row in table.rows
    ]
    lines = [
        f'<div class="scroll"><table{" class=wide" if len(table.header) > _NARROW_COLUMNS else ""}>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]
    return "\n".join(lines)


def _cell(tag: str, text: str, is_number: bool) -> str:
    kind = "number" if is_number else _CELL_CLASSES.get(text, "code" if _is_digest(text) else "")
    shown = escape(text.replace("-", "−") if is_number and tag == "td" else text)
    return f'<{tag} class="{kind}">{shown}</{tag}>' if kind else f"<{tag}>{shown}</{tag}>"


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _figure(figure: ReportFigure) -> str:
    return (
        f"<h2>{escape(figure.title)}</h2>\n<figure>{_image(figure.png, figure.caption)}"
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _sheet(sheet: ContactSheet) -> str:
    image = _image(strip(sheet.frames), f"Frames of {sheet.sample_id}") if len(sheet.frames) else ""
    question = sheet.question
    if len(question) > _LONGEST_QUESTION:
        question = question[:_LONGEST_QUESTION] + f" … ({len(question) - _LONGEST_QUESTION} characters more)"
    compared = Table(
        ("Key", "Answer", "Truth", ""),
        tuple((key, said, true, _MARKS[same]) for key, said, true, same in sheet.compared()),
    )
    reply = "" if sheet.answer else f"{_note('The reply is no JSON object:')}<pre>{escape(sheet.raw)}</pre>"
    return (
        f'<section class="sheet"><h3>{escape(sheet.sample_id)}</h3>\n{image}\n{_note(sheet.frames_are)}\n'
        f"<pre>{escape(question)}</pre>\n{reply}{_table(compared)}</section>"
    )


def _image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def _list(sentences: Sequence[str]) -> str:
    if len(sentences) == 1:
        return f"<p>{escape(sentences[0])}</p>"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
