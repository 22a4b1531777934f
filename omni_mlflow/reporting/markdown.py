"""Parts of a Markdown page; every foreign text is made safe inside a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from omni_mlflow.reporting.tables import Table


def section(title: str, content: Table, *, after: str = "") -> Iterable[str]:
    """A heading with its table; a section without rows says so instead of vanishing."""
    return (f"## {title}", table(content) if content.rows else "None.", after if content.rows else "")


def table(content: Table) -> str:
    rule = ["---:" if column in content.numeric else "---" for column in range(len(content.header))]
    lines = [content.header, tuple(rule), *(tuple(map(text, row)) for row in content.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bullets(sentences: Sequence[str]) -> str:
    mark = "- " if len(sentences) > 1 else ""
    return "\n".join(mark + _line(sentence) for sentence in sentences)


def text(foreign: str) -> str:
    """Make foreign text safe inside a Markdown table."""
    return _line(foreign).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())
