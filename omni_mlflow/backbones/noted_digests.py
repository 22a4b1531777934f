"""Digests that take long to compute, noted in the cache of the user until one of their files changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base_weights import cache_folder
from omni_mlflow.locks import in_turn
from omni_mlflow.spine.rows import digest_of, write_text

LARGE = 1 << 26
"""Bytes: less is hashed in a twentieth of a second, so that no note is worth its file."""


def noted(files: Sequence[Path], what: Any, compute: Callable[[], str]) -> str:
    """Return what ``compute`` says of ``files``, computed again only once one of them is another.

    A file is the same while its path, number, size and both its times are; the time of the last change cannot
    be set by hand. Processes that ask at once wait for the first of them.

    Args:
        what: names what is computed, and all that shapes it beside the files.
    """
    stats = [(path.resolve(), path.stat()) for path in files]
    if sum(stat.st_size for _, stat in stats) < LARGE:
        return compute()
    key = digest_of([what, [[str(p), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for p, s in stats]])
    note = cache_folder() / "digests" / key
    with in_turn(note.parent / "digests.lock"):
        if not note.is_file():
            write_text(note, compute())
        return note.read_text(encoding="utf-8")
