"""Check tables against the Great Expectations suites in ``expectations/``; the only module that imports it.

A suite is one YAML file about one table. Its loader is strict, because the library's own drops what it
cannot build and calls an empty suite a success. So is the verdict: a check that could not run, or that
looked at no row, has failed, whatever severity the suite gives it; unless the suite says that there may be
none. Rules are Python that pandas evaluates: review a suite as code.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, ClassVar, Literal

import yaml
from pydantic import ValidationError

from omni_mlflow.contract.form_problems import explain
from omni_mlflow.repeats import Repeats
from omni_mlflow.spine.rows import write_document, write_text
from omni_mlflow.suite_file import Expectation, Suite, SuiteError, columns_of, parameters_of
from omni_mlflow.suite_result import NO_ROW, SuiteCheck, SuiteResult, merged, suite_page

SHOWN_ROWS = 50
"""Offending rows kept per check: enough to find the cause, small enough to log."""

BATCH_ROWS = 20_000
"""Rows of a long table that are checked at once: few to hold, enough to make the library's own cost small."""

SMALL_FILE = 1 << 20
"""Bytes of a table that need no file."""


def load_suite(path: Path) -> Suite:
    """Read a suite and make sure that each of its checks can be built.

    Raises:
        SuiteError: listing everything that is wrong with the file.
    """
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        raise SuiteError(f"{path}: {explain(error, Suite)}") from error
    if issues := _issues(suite, path):
        raise SuiteError(f"{path}: " + "; ".join(issues))
    return suite


def check_suite(
    suite: Path, rows: Iterable[Mapping[str, Any]], *, parameters: Mapping[str, Any] | None = None
) -> SuiteResult:
    """Check a table against a suite.

    Args:
        suite: the YAML file.
        rows: the table; each row has all columns that the suite documents, others are ignored.
        parameters: a value for each parameter that the suite documents, others are ignored.

    Raises:
        SuiteError: the file is not a usable suite, or a column or parameter is missing.
    """
    loaded = load_suite(suite)
    given = parameters or {}
    if missing := sorted(set(loaded.parameters) - set(given)):
        raise SuiteError(f"{suite}: needs a value for parameters {missing}, got {sorted(given)}")
    used = {name: given[name] for name in sorted(loaded.parameters)}
    num_rows, checks = _checked(loaded, _frames(loaded, rows, where=suite), used)
    return SuiteResult(
        suite=loaded.name,
        notes=loaded.notes.strip(),
        parameters=used,
        id_columns=loaded.id_columns,
        num_rows=num_rows,
        checks=tuple(sorted(checks, key=lambda check: check.code)),
    )


def write_suite_result(result: SuiteResult, folder: Path) -> list[Path]:
    """Write ``<suite>.json`` (for programs) and ``<suite>.html`` (for people) into ``folder``."""
    document = folder / f"{result.suite}.json"
    page = folder / f"{result.suite}.html"
    write_document(document, result)
    write_text(page, suite_page(result))
    return [document, page]


def _issues(suite: Suite, path: Path) -> list[str]:
    issues = [] if suite.name == path.stem else [f"is named {suite.name!r}, must be {path.stem!r}"]
    codes = [check.code for check in suite.expectations]
    issues += [f"code {code} is used twice" for code in sorted({c for c in codes if codes.count(c) > 1})]
    wanted = {column for check in suite.expectations for column in columns_of(check.kwargs)}
    if unknown := sorted((wanted | set(suite.id_columns)) - set(suite.columns)):
        issues.append(f"columns {unknown} are used but not documented under 'columns'")
    used = {name for check in suite.expectations for name in parameters_of(check.kwargs)}
    if used != set(suite.parameters):
        issues.append(f"documents parameters {sorted(suite.parameters)} but uses {sorted(used)}")
    for check in suite.expectations:
        try:
            _build(check)
        except Exception as error:  # pydantic.v1, TypeError or GX's own: all mean a bad entry
            issues.append(f"{check.code} {check.type}: {' '.join(str(error).split())}")
    return issues


def _frames(suite: Suite, rows: Iterable[Mapping[str, Any]], *, where: Path) -> Iterator[Any]:
    """Yield the table in parts of ``BATCH_ROWS``; at least one, which has no row when there is none."""
    import pandas as pd

    columns = list(suite.columns)
    table: list[list[Any]] = []
    for number, row in enumerate(rows):
        if missing := [column for column in columns if column not in row]:
            raise SuiteError(f"{where}: row {number} lacks columns {missing}; see 'columns' in the suite")
        if number and number % BATCH_ROWS == 0:
            yield pd.DataFrame(table, columns=columns)
            table = []
        table.append([row[column] for column in columns])
    yield pd.DataFrame(table, columns=columns)


def _checked(
    suite: Suite, frames: Iterable[Any], parameters: Mapping[str, Any]
) -> tuple[int, list[SuiteCheck]]:
    """Count the rows, and check them: part by part where a check looks at one row at a time.

    Of a table of any length only those rows are seen together that may repeat each other; and, where a check
    is of neither kind, the columns that it compares.
    """
    import pandas as pd

    alone = [check for check in suite.expectations if check.is_row_by_row]
    unique = [check for check in suite.expectations if check.is_of_repeats]
    together = [check for check in suite.expectations if check not in (*alone, *unique)]
    held: list[Any] = []
    found: dict[str, SuiteCheck] = {}
    num_rows = 0
    with SpooledTemporaryFile(max_size=SMALL_FILE) as file:
        keys = [columns_of(check.kwargs) for check in unique]
        repeats = Repeats(keys, kept=_compared(suite, unique), file=file)
        for frame in frames:
            num_rows += len(frame)
            repeats.add(frame)
            held.append(frame[_compared(suite, together)])
            for check in _results(suite, alone, frame, parameters):
                before = [found[check.code]] if check.code in found else []
                found[check.code] = merged([*before, check], shown=SHOWN_ROWS)
        among = _results(suite, unique, repeats.suspects(), parameters)
    rest = [
        each.model_copy(update={"element_count": num_rows}) if each.error is None else each for each in among
    ]
    rest += _results(suite, together, pd.concat(held, ignore_index=True), parameters)
    return num_rows, [*found.values(), *rest]


def _compared(suite: Suite, checks: Sequence[Expectation]) -> list[str]:
    """The columns that ``checks`` and the naming of an offending row need."""
    if not checks:
        return []
    if any("row_condition" in check.kwargs for check in checks):
        return list(suite.columns)  # a condition may speak of any of them
    used = {column for check in checks for column in columns_of(check.kwargs)}
    return [column for column in suite.columns if column in used or column in suite.id_columns]


def _results(
    suite: Suite, checks: Sequence[Expectation], frame: Any, parameters: Mapping[str, Any]
) -> list[SuiteCheck]:
    if not checks:
        return []
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    with _without_deprecations():
        result = batch.validate(
            gx.ExpectationSuite(name=suite.name, expectations=[_build(check) for check in checks]),
            expectation_parameters=dict(parameters),
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
        )
    # Through text: numpy scalars out.
    records = json.loads(json.dumps(result.to_json_dict()))["results"]
    if len(records) != len(checks):
        raise SuiteError(f"{suite.name}: {len(checks)} checks gave {len(records)} results")
    return [_check(record, frame, suite) for record in records]


def _check(record: Mapping[str, Any], frame: Any, suite: Suite) -> SuiteCheck:
    config, found = record["expectation_config"], record["result"]
    code, _, text = config["description"].partition(" ")
    error = _error(record)
    [may_be_empty] = [check.may_be_empty for check in suite.expectations if check.code == code]
    vacuous = error == NO_ROW and may_be_empty
    error = None if vacuous else error
    offending: list[dict[str, Any]] = []
    if error is None and (numbers := found.get("unexpected_index_list")):
        shown = list(dict.fromkeys([*suite.id_columns, *columns_of(config["kwargs"])]))
        offending = json.loads(frame.loc[numbers[:SHOWN_ROWS], shown].to_json(orient="records"))
    return SuiteCheck(
        code=code,
        text=text,
        severity="critical" if error else config["severity"],
        success=vacuous or (record["success"] and error is None),
        error=error,
        observed=_strict(found.get("observed_value")),
        element_count=found.get("element_count"),
        unexpected_count=found.get("unexpected_count"),
        unexpected=tuple(offending),
    )


def _error(record: Mapping[str, Any]) -> str | None:
    """Say why a check gave no answer: it could not run, or it looked at no row and then GX passes it."""
    found = record["result"]
    if not record["success"] and not found:
        info = record["exception_info"]  # flat, or one entry per metric
        entries: Sequence[Any] = [info] if "exception_message" in info else list(info.values())
        return " ".join(str(entries[0]["exception_message"]).split())
    if "element_count" in found:
        return NO_ROW if found["element_count"] == 0 else None
    return NO_ROW if found.get("observed_value") is None else None


def _strict(value: Any) -> Any:
    """NaN and infinity as text: they are not JSON."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _build(check: Expectation) -> Any:
    """Build one expectation or raise, where ``ExpectationSuite(**document)`` would drop it in silence."""
    _great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    with _without_deprecations():
        return ExpectationConfiguration(**check.model_dump(exclude={"may_be_empty"})).to_domain_obj()


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """The library warns of row conditions written as text; its version is pinned and text reads best."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.cache
def _great_expectations() -> Any:
    """Import Great Expectations (seconds), quietly, and register ``expect_rows_to_satisfy``."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # before: hundreds of INFO lines
    with _without_deprecations():
        import great_expectations as gx
        from great_expectations.execution_engine import PandasExecutionEngine
        from great_expectations.expectations.expectation import MulticolumnMapExpectation
        from great_expectations.expectations.metrics import map_metric_provider as metrics
    logging.getLogger("great_expectations.data_context.types.base").setLevel(
        logging.NOTSET
    )  # sets itself INFO

    class RowsSatisfyRule(metrics.MulticolumnMapMetricProvider):  # type: ignore[misc]
        condition_metric_name = "multicolumn_values.satisfy_rule"
        condition_domain_keys = (
            "batch_id",
            "table",
            "column_list",
            "row_condition",
            "condition_parser",
            "ignore_row_if",
        )
        condition_value_keys = ("rule",)

        @metrics.multicolumn_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
        def _pandas(cls, column_list: Any, **kwargs: Any) -> Any:  # noqa: N805 - GX calls it as a classmethod
            return column_list.eval(kwargs["rule"], engine="python").fillna(False).astype(bool)

    class ExpectRowsToSatisfy(MulticolumnMapExpectation):  # type: ignore[misc]
        """Expect every row to satisfy ``rule``, a pandas expression over the columns of ``column_list``."""

        rule: str
        ignore_row_if: Literal["all_values_are_missing", "any_value_is_missing", "never"] = "never"
        map_metric: ClassVar[str] = "multicolumn_values.satisfy_rule"
        success_keys: ClassVar[tuple[str, ...]] = ("rule", "mostly")
        args_keys: ClassVar[tuple[str, ...]] = ("column_list", "rule")

    return gx
