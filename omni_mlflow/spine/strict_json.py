"""JSON as RFC 8259 has it: what other programs can read, too."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any


class NotAJsonObjectError(Exception):
    """A text that should be a JSON object is none, whatever is wrong with it."""


def strict_json(text: str) -> Any:
    """Parse JSON with no NaN, no number beyond a double and no key twice in one object.

    Raises:
        ValueError: naming what is wrong.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def storable_json(text: str) -> Any:
    """Parse strict JSON whose texts can be written again as UTF-8: no half of a surrogate pair.

    Raises:
        ValueError: naming what is wrong.
    """
    content = strict_json(text)
    if _SURROGATE.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except RecursionError as error:
            raise ValueError("nested too deeply to be read") from error
    return content


DEEPEST = 32
"""So many brackets inside one another hold every answer that anybody asks for."""


def made_storable(content: Any, *, depth: int = DEEPEST) -> Any:
    """Return JSON content that can be written, with null for a number that is none and for what lies deeper.

    Half of a surrogate pair becomes a question mark.
    """
    if isinstance(content, str):
        return content.encode(errors="replace").decode()
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if not isinstance(content, dict | list):
        return content
    if not depth:
        return None
    if isinstance(content, list):
        return [made_storable(each, depth=depth - 1) for each in content]
    inner = ((str(key), made_storable(value, depth=depth - 1)) for key, value in content.items())
    return {key.encode(errors="replace").decode(): value for key, value in inner}


def may_not_be_storable(text: str) -> bool:
    """Whether strict JSON may still hold what cannot be written, by a look at its characters."""
    return text.count("[") + text.count("{") > DEEPEST or _SURROGATE.search(text) is not None


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is beyond a double")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        doubled = sorted(key for key, count in counts.items() if count > 1)
        raise ValueError(f"keys {doubled} occur twice in one object")
    return unique


_STRICT = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys
)
