"""What a person is told on stderr; rich is read when there is something to say."""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def errors() -> Console:
    from rich.console import Console

    class UntilNobodyReads(Console):
        def on_broken_pipe(self) -> None:
            """Work goes on in silence when whoever read its progress has left; rich would exit."""
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    return UntilNobodyReads(stderr=True, highlight=False, soft_wrap=True)


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
