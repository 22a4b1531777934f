"""What a contract's fields may hold: numbers with two ends, texts that say something, no doubles."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

T = TypeVar("T", bound=Hashable)

MOST = 10**9
"""No count of steps, samples, frames or pixels is larger."""


def _once(items: tuple[T, ...]) -> tuple[T, ...]:
    if doubled := sorted({str(item) for item in items if items.count(item) > 1}):
        raise ValueError(f"{doubled} stand there twice")
    return items


def _regular(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Field(strict=True, ge=2, le=8192, multiple_of=2)]
"""Width or height of a picture; the video codec needs it even."""

Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Pattern = Annotated[Text, AfterValidator(_regular)]
"""A regular expression of Python."""

Once = Annotated[tuple[T, ...], AfterValidator(_once), Field(json_schema_extra={"uniqueItems": True})]
"""A list in which nothing stands twice."""
