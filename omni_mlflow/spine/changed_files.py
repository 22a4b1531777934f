"""Whether the files of an episode are still those that ``select`` found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omni_mlflow.spine.types import Episode


class ChangedEpisodeError(Exception):
    """An episode's files were written again while they were read."""


def changes_of(folder: Path, episode: Episode) -> Iterator[str]:
    """Yield what is different about each file of ``folder`` that has another size or time of change."""
    for name, size in episode.bytes_by_file.items():
        path, shown = folder / name, f"{episode.path}/{name}"
        if not path.is_file():
            yield f"{shown} is gone"
            continue
        stat = path.stat()
        if stat.st_size != size:
            yield f"{shown} has {stat.st_size} bytes, it had {size}"
        elif stat.st_mtime_ns != episode.changed_ns_by_file.get(name, stat.st_mtime_ns):
            yield f"{shown} was written again"


def check_unchanged(folder: Path, episode: Episode) -> None:
    """Check, after an episode was read, that it was what was compared with the other splits.

    Raises:
        ChangedEpisodeError: naming the files that are others, and what to do.
    """
    if changed := list(changes_of(folder, episode)):
        raise ChangedEpisodeError(
            f"{'; '.join(changed)}, while it was read. Put the files back as they were (also their times), "
            "or run 'select', 'split' and 'guard' again: no split vouches for files that were not compared"
        )
