"""What a person is told on stderr, and how it survives that nobody reads it; rich is read when needed."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class UntilNobodyReads:
    """A standard stream that stops no work: once it takes no more words, they are lost.

    Its reader left, its terminal was closed or its disk is full: none of that is the work's own failure.

    Attributes:
        lost: why, since a first word was lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is buffered would be refused again and again
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hold_streams() -> UntilNobodyReads:
    """Have stdout and stderr stop no work, and return stdout.

    Whoever closes one of them (``>&-``) would have the next file that is opened take its number, and printed
    text end in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of what a terminal cannot show
    held = [
        UntilNobodyReads(stream or open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    ]
    sys.stdout, sys.stderr = (cast("TextIO", each) for each in held)
    return held[0]


@contextmanager
def words_on_stderr() -> Iterator[None]:
    """Whatever is printed in the block goes to stderr: stdout carries the result and nothing else.

    Backbones and gates are the code of others, and so are the libraries below them: a ``print`` in one of
    them, or a child of it that writes to the descriptor itself, would make the JSON none.
    """
    sys.stdout.flush()
    with redirect_stdout(sys.stderr), _descriptor_of_stdout_leads_to_stderr():
        yield


@contextmanager
def _descriptor_of_stdout_leads_to_stderr() -> Iterator[None]:
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@cache
def errors() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def show(found: RenderableType) -> None:
    """Print what was found on stdout, for people."""
    from rich.console import Console

    Console().print(found)


def tell(text: str) -> None:
    """Say one line on stderr, as it stands."""
    errors().print(text, markup=False)


def tell_error(text: str) -> None:
    from rich.text import Text

    errors().print(Text.assemble(("error", "bold red"), f": {text}"))


def in_words(error: Exception) -> str:
    """Say what went wrong and, where the disk is at fault, what to do about it."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    advice = {
        errno.EACCES: "see who may write there, or name another folder with --workspace",
        errno.EROFS: "the disk is mounted read-only; name another folder with --workspace",
        errno.ENOSPC: "free some space, or name another disk with --workspace",
        errno.EDQUOT: "free some space, or name another disk with --workspace",
        errno.EISDIR: "a folder lies where a file belongs; move it away",
        errno.ENOTDIR: "a file lies where a folder belongs; move it away",
    }
    told = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return f"{told}; {advice[error.errno]}" if error.errno in advice else told
