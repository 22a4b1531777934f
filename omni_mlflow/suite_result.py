"""The outcome of a suite of checks on one table, as a row and as a page for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Literal

from pydantic import computed_field

from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Row

Severity = Literal["critical", "warning", "info"]

NO_ROW = "no row was checked"
"""The error of a check that looked at nothing."""


class SuiteCheck(Row):
    """One check of a suite; passed ones are recorded too.

    Attributes:
        code: stable short name, e.g. ``M10``.
        error: why the check could not give an answer; such a check is critical.
        observed: the number that a check of the whole table saw (a count, a mean).
        element_count, unexpected_count: rows that were looked at, and how many of them broke the check.
        unexpected: the first of those rows, reduced to their ids and the columns of the check.
    """

    code: str
    text: str
    severity: Severity
    success: bool
    error: str | None = None
    observed: Any = None
    element_count: int | None = None
    unexpected_count: int | None = None
    unexpected: tuple[dict[str, Any], ...] = ()

    @property
    def seen(self) -> str:
        """What was found, in a few words."""
        if self.error is not None:
            return self.error
        if self.element_count is None and self.observed is None:
            return "no row"
        if self.unexpected_count is not None:
            share = f"{self.unexpected_count} of " if self.unexpected_count else ""
            return f"{share}{self.element_count} rows"
        return f"{self.observed:.4g}" if isinstance(self.observed, float) else str(self.observed)


def merged(parts: Sequence[SuiteCheck], *, shown: int) -> SuiteCheck:
    """Join what one check found in the parts of a table; a part without a row to look at is silent."""
    spoken = [part for part in parts if part.error != NO_ROW] or parts[:1]
    if len(spoken) == 1:
        return spoken[0]
    for part in spoken:
        if part.error is not None:
            return part
    return spoken[0].model_copy(
        update={
            "success": all(part.success for part in spoken),
            "element_count": sum(part.element_count or 0 for part in spoken),
            "unexpected_count": sum(part.unexpected_count or 0 for part in spoken),
            "unexpected": tuple(row for part in spoken for row in part.unexpected)[:shown],
        }
    )


class SuiteResult(Row):
    """All checks of a suite, by code."""

    schema_version: int = SCHEMA_VERSION
    suite: str
    notes: str
    parameters: dict[str, Any]
    id_columns: tuple[str, ...]
    num_rows: int
    checks: tuple[SuiteCheck, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Literal["pass", "warn", "fail"]:
        """``fail`` for any broken critical check, else ``warn`` for any warning; info never counts."""
        broken = {check.severity for check in self.checks if not check.success}
        return "fail" if "critical" in broken else "warn" if "warning" in broken else "pass"

    def failures(self) -> list[Check]:
        """Return the broken critical checks: what must stop a run."""
        return [
            Check(
                rule=f"{self.suite} {check.code}",
                subject=_first_ids(check, self.id_columns) or self.suite,
                expected=check.text,
                found=check.seen,
                ok=False,
            )
            for check in self.checks
            if check.severity == "critical" and not check.success
        ]


def _first_ids(check: SuiteCheck, id_columns: Iterable[str], *, shown: int = 5) -> str:
    ids = [" / ".join(str(row.get(column)) for column in id_columns) for row in check.unexpected]
    rest = (check.unexpected_count or 0) - shown
    return ", ".join(ids[:shown]) + (f" and {rest} more" if rest > 0 else "")


_ORDER = ("critical", "warning", "info", "pass")

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; font-weight: 600; margin: 0 0 .25rem; }
p { color: #5b6675; margin: .25rem 0 1.25rem; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-size: .8rem; font-weight: 600; color: #5b6675; }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem .45rem 0;
  border-bottom: 1px solid #e6e9ee; overflow-wrap: anywhere; }
td:first-child, table table { font-family: ui-monospace, monospace; font-size: .85rem; }
table table { background: #f7f8fa; border-radius: 6px; }
table table th, table table td { padding: .2rem .75rem; border-bottom: 0; }
b { font-weight: 600; font-size: .8rem; border-radius: 1rem; padding: .1rem .6rem; white-space: nowrap; }
.pass { color: #17613a; background: #e3f4ea; } .info { color: #44505f; background: #eceff3; }
.warn, .warning { color: #7a4d00; background: #fdf0d5; }
.fail, .critical { color: #9b1c1c; background: #fde5e5; }
"""


def suite_page(result: SuiteResult) -> str:
    """Return one self-contained HTML page, worst checks first. It has no script, and escapes every value."""
    checks = sorted(result.checks, key=lambda check: (_ORDER.index(_mark(check)), check.code))
    num_passed = sum(check.success for check in checks)
    facts = [f"{num_passed} of {len(checks)} checks passed", f"{result.num_rows} rows"]
    facts += [f"{name} = {value}" for name, value in sorted(result.parameters.items())]
    title = escape(result.suite.replace("_", " "))
    head = "".join(f"<th>{name}</th>" for name in ("Check", "Result", "What must hold", "Seen"))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{title}: {result.status}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{title} {_badge(result.status)}</h1>\n"
        f"<p>{escape(' · '.join(facts))}<br>{escape(result.notes)}</p>\n"
        f"<table>\n<tr>{head}</tr>\n{''.join(map(_check_rows, checks))}</table>\n</html>\n"
    )


def _check_rows(check: SuiteCheck) -> str:
    rows = (
        f"<tr><td>{escape(check.code)}</td><td>{_badge(_mark(check))}</td>"
        f"<td>{escape(check.text)}</td><td>{escape(check.seen)}</td></tr>\n"
    )
    if check.success or not check.unexpected:
        return rows
    names = list(check.unexpected[0])
    inner = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = [f"<tr>{inner}</tr>"]
    for row in check.unexpected:
        lines.append("<tr>" + "".join(f"<td>{escape(_shown(row[name]))}</td>" for name in names) + "</tr>")
    hidden = (check.unexpected_count or 0) - len(check.unexpected)
    if hidden > 0:
        lines.append(f'<tr><td colspan="{len(names)}">and {hidden} more</td></tr>')
    return rows + f'<tr><td></td><td colspan="3"><table>{"".join(lines)}</table></td></tr>\n'


def _mark(check: SuiteCheck) -> str:
    return "pass" if check.success else check.severity


def _badge(mark: str) -> str:
    return f'<b class="{mark}">{mark}</b>'


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
