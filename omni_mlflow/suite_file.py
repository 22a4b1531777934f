"""A suite as it is written in ``expectations/``: one YAML file about one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from omni_mlflow.contract import Section
from omni_mlflow.suite_result import Severity

ROW_BY_ROW = frozenset(
    {
        "expect_column_pair_values_to_be_equal",
        "expect_column_value_lengths_to_be_between",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_null",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
        "expect_rows_to_satisfy",
    }
)
"""Checks that look at one row at a time."""

OF_REPEATS: Mapping[str, Mapping[str, Any]] = {
    "expect_column_values_to_be_unique": {},
    "expect_compound_columns_to_be_unique": {"ignore_row_if": "never"},
}
"""Checks that only rows with equal values can break, with their arguments beside the columns."""


class SuiteError(Exception):
    """A suite cannot be used as it is written, or not with the rows or parameters it was given."""


class Expectation(Section):
    """One check: a Great Expectations type with its arguments.

    Attributes:
        description: a code that is unique in the suite, then what must hold.
        may_be_empty: the check holds where there is no row to look at.
    """

    type: str
    kwargs: dict[str, Any]
    description: str = Field(pattern=r"^[A-Z]\d\d \S")
    severity: Severity = "critical"
    may_be_empty: bool = False

    @property
    def code(self) -> str:
        return self.description.split()[0]

    @property
    def is_row_by_row(self) -> bool:
        # A rule may call a method of a column, such as groupby, and then it compares rows.
        return (
            self.type in ROW_BY_ROW and "mostly" not in self.kwargs and "." not in self.kwargs.get("rule", "")
        )

    @property
    def is_of_repeats(self) -> bool:
        others = {key: value for key, value in self.kwargs.items() if key not in ("column", "column_list")}
        return self.type in OF_REPEATS and others == OF_REPEATS[self.type]


class Suite(Section):
    """A file of ``expectations/``.

    Attributes:
        parameters: numbers that the caller supplies, named ``{$PARAMETER: name}`` in the checks.
        columns: every column that the table must have, and what it holds.
        id_columns: the columns that name an offending row.
    """

    name: str
    notes: str
    parameters: dict[str, str] = Field(default_factory=dict)
    columns: dict[str, str] = Field(min_length=1)
    id_columns: tuple[str, ...] = Field(min_length=1)
    expectations: tuple[Expectation, ...] = Field(min_length=1)


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*single, *kwargs.get("column_list", ())]


def parameters_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [
            name
            for key, inner in value.items()
            for name in ([inner] if key == "$PARAMETER" else parameters_of(inner))
        ]
    return [name for inner in value for name in parameters_of(inner)] if isinstance(value, list) else []
