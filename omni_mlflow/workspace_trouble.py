"""Why a folder cannot be a workspace, told before anything is begun in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from omni_mlflow.terminal import in_words

_ANOTHER = "name another folder with --workspace"


class UnusableWorkspaceError(Exception):
    """Nothing can be written where the workspace should be."""


def no_folder(root: Path) -> str | None:
    """Return why ``root`` is no folder and cannot become one; None when it is or can."""
    place = _nearest(root)
    if place.is_symlink() and not place.exists():
        return f"{place} is a link to {place.readlink()}, which is absent; make that folder, or {_ANOTHER}"
    return None if place.is_dir() else f"{place} is a file; {_ANOTHER}"


def trouble_with(root: Path) -> str | None:
    """Return why no stage could write to the workspace ``root``, and what to do; None when one could.

    Nothing stays behind: an absent folder only needs one above it to be made in.
    """
    try:
        if (told := no_folder(root)) is not None:
            return told
        with tempfile.TemporaryFile(dir=_nearest(root)) as probe:
            probe.write(b"a disk that is full takes no byte")
    except OSError as error:
        told = in_words(OSError(error.errno, error.strerror, str(root)))
        return told if "--workspace" in told else f"{told}; {_ANOTHER}"
    return None


def _nearest(root: Path) -> Path:
    return next(each for each in (root, *root.parents) if each.is_symlink() or each.exists())
