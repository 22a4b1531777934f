"""Read a file that may be published: text of a known kind, and nothing that its name does not promise.

A package holds text only. Whatever is not UTF-8 without control characters, or does not parse as what its
name says, is refused without asking what it might be instead.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from omni_mlflow.spine.strict_json import strict_json


class NotPublishableError(Exception):
    """A file is not text of the kind that its name promises."""


@dataclass(frozen=True)
class Document:
    """A text as it is written and as programs read it.

    Attributes:
        readings: the text with every escape undone, so that nothing hides behind ``\\u002f`` or ``%2F``.
        byte_arrays: bytes that were written as a list of numbers.
    """

    text: str
    readings: tuple[str, ...]
    byte_arrays: tuple[bytes, ...] = ()


def read_document_text(path: Path, name: str) -> Document:
    """Read the file at ``path`` as what its ``name`` in the package promises.

    Raises:
        NotPublishableError: saying what is wrong and where.
    """
    kind = PurePosixPath(name).suffix
    if kind not in _KINDS:
        raise NotPublishableError(f"{kind or 'no suffix'} is none of {', '.join(sorted(_KINDS))}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotPublishableError(f"not UTF-8 at byte {error.start}") from error
    if control := _CONTROL.search(text):
        raise NotPublishableError(
            f"control character {control[0]!r} in line {line_of(text, control.start())}"
        )
    return _KINDS[kind](text)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _plain(text: str) -> Document:
    return Document(text, tuple(_decoded(text)))


def _json(text: str) -> Document:
    try:
        return _parsed(text, [strict_json(text)])
    except ValueError as error:
        raise NotPublishableError(f"not JSON: {error}") from error


def _jsonl(text: str) -> Document:
    values = []
    # Only \n ends a row: str.splitlines would also cut at U+2028, which JSON text may hold.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
        try:
            values.append(strict_json(line))
        except ValueError as error:
            raise NotPublishableError(f"line {number} is not JSON: {error}") from error
    return _parsed(text, values)


def _csv(text: str) -> Document:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise NotPublishableError(f"not CSV: {error}") from error
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise NotPublishableError(f"not a table: rows of {sorted(widths)} cells")
    return Document(text, tuple(_decoded("\n".join("\n".join(row) for row in rows))))


def _parsed(text: str, values: list[Any]) -> Document:
    strings: list[str] = []
    arrays: list[bytes] = []
    for value in values:
        _collect(value, strings, arrays)
    return Document(text, tuple(_decoded("\n".join(strings))), tuple(arrays))


def _collect(value: Any, strings: list[str], arrays: list[bytes]) -> None:
    if isinstance(value, str):
        strings.append(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            strings.append(f"{key}={inner}" if isinstance(inner, str) else key)
            if not isinstance(inner, str):
                _collect(inner, strings, arrays)
    elif isinstance(value, list):
        if len(value) >= _SHORTEST_ARRAY and all(type(each) is int and 0 <= each < 256 for each in value):
            arrays.append(bytes(value))
        for inner in value:
            _collect(inner, strings, arrays)


def _decoded(text: str) -> Iterator[str]:
    yield text
    if "%" in text and (unquoted := unquote(text)) != text:
        yield unquoted


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SHORTEST_ARRAY = 32
_KINDS: Mapping[str, Callable[[str], Document]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".md": _plain,
    ".txt": _plain,
}
