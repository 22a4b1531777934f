"""Parts of a page that is one file: nothing is loaded from outside, nothing runs, every value is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from omni_mlflow.reporting import wording
from omni_mlflow.reporting.style import STYLE
from omni_mlflow.reporting.tables import Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_CELL_CLASSES = {
    wording.BEATS: "good",
    wording.DOES_NOT_BEAT: "bad",
    wording.DIFFERS: "bad",
    wording.BLOCKS: "bad",
}
_NARROW_COLUMNS = 5


def document(title: str, body: Iterable[str]) -> str:
    """Return the page around ``body``, whose empty parts are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def block(title: str, *parts: str) -> Iterable[str]:
    """Return a heading with its parts; nothing where there are none."""
    return (f"<h2>{escape(title)}</h2>", *parts) if any(parts) else ()


def table(content: Table) -> str:
    head = "".join(_cell("th", text, column in content.numeric) for column, text in enumerate(content.header))
    rows = [
        "<tr>"
        + "".join(_cell("td", text, column in content.numeric) for column, text in enumerate(row))
        + "</tr>"
        for row in content.rows
    ]
    lines = [
        f'<div class="scroll"><table{" class=wide" if len(content.header) > _NARROW_COLUMNS else ""}>',
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


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def bullets(sentences: Sequence[str]) -> str:
    if len(sentences) == 1:
        return f"<p>{escape(sentences[0])}</p>"
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""
