"""One reader and one writer for every JSON and JSONL file.

A bad row stops the run with its file and line. A finished file appears all at once, so a file that
exists is complete.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from omni_mlflow.spine.strict_json import storable_json
from omni_mlflow.spine.types import SCHEMA_VERSION

RowT = TypeVar("RowT", bound=BaseModel)


class BadRowError(Exception):
    """A line of a file is not what the file must hold."""


class NewerSchemaError(Exception):
    """A file was written by a newer version of this project."""


class NotFiniteError(ValueError):
    """A document or a row holds NaN or infinity, for which JSON has no number."""


UNREADABLE = (OSError, BadRowError, NewerSchemaError)
"""What reading a file that may be damaged can raise; who judges files turns it into a broken rule."""


def read_rows(path: Path, row_type: type[RowT]) -> Iterator[RowT]:
    """Yield each line of a JSONL file as ``row_type``, in constant memory.

    Raises:
        BadRowError: naming file and line of the first line that does not parse.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield row_type.model_validate_json(line)
            except ValidationError as error:
                raise BadRowError(f"{path}:{number}: not a {row_type.__name__}: {error}") from error


def write_rows(path: Path, rows: Iterable[BaseModel]) -> int:
    """Write ``rows`` as JSONL, atomically, and return how many there were."""
    count = 0
    with writing_rows(path) as write:
        for row in rows:
            write(row)
            count += 1
    return count


@contextmanager
def writing_rows(path: Path) -> Iterator[Callable[[BaseModel], None]]:
    """Give a function that appends one row to a JSONL file, which appears when the block succeeds."""
    with appearing_at_once(path) as temporary, temporary.open("w", encoding="utf-8") as out:

        def write(row: BaseModel) -> None:
            out.write(row.model_dump_json(by_alias=True) + "\n")

        yield write
        out.flush()
        os.fsync(out.fileno())


def join_files(path: Path, parts: Iterable[Path]) -> None:
    """Write the bytes of ``parts`` one after the other, atomically, in constant memory."""
    with appearing_at_once(path) as temporary, temporary.open("wb") as out:
        for part in parts:
            with part.open("rb") as data:
                shutil.copyfileobj(data, out)
        out.flush()
        os.fsync(out.fileno())


def read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each line of a JSONL file as a plain object.

    Raises:
        BadRowError: naming file and line of the first line that is no JSON object.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadRowError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadRowError(f"{path}:{number}: not a JSON object")
        yield row


def read_lines(path: Path) -> Iterator[str]:
    """Yield lines that end with a line feed only: a model's answer may hold any other separator."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield line.removesuffix("\n")


@contextmanager
def writing_json_rows(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that appends one object to a JSONL file, which appears when the block succeeds.

    Raises:
        NotFiniteError: a row holds NaN or infinity.
    """
    spelled = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    number = 0
    with appearing_at_once(path) as temporary, temporary.open("w", encoding="utf-8") as out:

        def write(row: Mapping[str, Any]) -> None:
            nonlocal number
            number += 1
            with _naming_no_number(f"{path}:{number}", row):
                out.write(spelled(row) + "\n")

        yield write
        out.flush()
        os.fsync(out.fileno())


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that share their keys as CSV with a header, atomically; an empty table is an empty file."""
    with writing_table(path) as write:
        for row in rows:
            write(row)


@contextmanager
def writing_table(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that appends one row to a CSV file, which appears when the block succeeds.

    The first row names the columns; ValueError where another has more, KeyError where it lacks one.
    """
    with appearing_at_once(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        columns: list[str] = []

        def write(row: Mapping[str, Any]) -> None:
            if not columns:
                columns.extend(row)
                table.writerow(columns)
            cells = [row[name] for name in columns]
            if len(row) > len(cells):
                raise ValueError(f"{path.name} has no column for {sorted(row.keys() - columns)}")
            table.writerow(cells)

        yield write
        out.flush()
        os.fsync(out.fileno())


def read_document(path: Path, document_type: type[RowT]) -> RowT:
    """Read one JSON file as ``document_type``.

    Raises:
        NewerSchemaError: the file names a newer ``schema_version`` than this code knows.
        BadRowError: the file is not a ``document_type``.
    """
    try:
        raw = storable_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRowError(f"{path}: not JSON: {error}") from error
    check_schema_version(raw, path)
    try:
        return document_type.model_validate(raw)
    except ValidationError as error:
        raise BadRowError(f"{path}: not a {document_type.__name__}: {error}") from error


def check_schema_version(document: Any, name: Path | str) -> None:
    """Raise NewerSchemaError when the document says that it is of a newer schema than this code knows."""
    version = document.get("schema_version", SCHEMA_VERSION) if isinstance(document, dict) else SCHEMA_VERSION
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{name} has schema_version {version}, this omni-mlflow reads up to {SCHEMA_VERSION}; "
            "install the version that wrote it, or use another workspace"
        )


def write_document(path: Path, document: BaseModel | dict[str, Any]) -> None:
    """Write one JSON file, indented and with sorted keys, atomically.

    Raises:
        NotFiniteError: the document holds NaN or infinity.
    """
    plain = _plain(document)
    with _naming_no_number(str(path), plain):
        text = document_text(plain)
    write_text(path, text)


def document_text(document: BaseModel | dict[str, Any]) -> str:
    """Return what :func:`write_document` writes."""
    return json.dumps(_plain(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(document: BaseModel | dict[str, Any]) -> dict[str, Any]:
    return document.model_dump(mode="json", by_alias=True) if isinstance(document, BaseModel) else document


@contextmanager
def _naming_no_number(name: str, document: Any) -> Iterator[None]:
    """Have the encoder's complaint about a number say which one it is."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Out of range float"):
            raise
        place = next(_no_numbers(document, ""))
        raise NotFiniteError(
            f"{name} cannot be written: {place}, for which JSON has no number; null says that there is none"
        ) from error


def _no_numbers(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _no_numbers(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _no_numbers(part, f"{place}[{number}]")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old file or the whole new one."""
    with appearing_at_once(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


class appearing_at_once:  # noqa: N801 - used as a context manager, reads as a verb phrase
    """Give a temporary name beside ``path`` and rename it when the block succeeds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two machines that share a disk may write the same file at once, under the same process id.
        self._temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._temporary

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """Return the sha256 of ``value`` as canonical JSON (sorted keys, no spaces)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
