"""Move a stage's folder as a whole, also from one disk to another; nothing is deleted through a link."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


class CannotMoveError(Exception):
    """A folder cannot be brought to another disk."""


def move_folder(source: Path, target: Path) -> None:
    """Move ``source`` to ``target``, and replace what lies there.

    A link stays a link to the same folder, wherever it is moved. Between two disks, and in the lower layers
    of a container's file system, the folder is copied: ``target`` appears whole before ``source`` goes, so a
    process that dies here loses nothing.

    Raises:
        CannotMoveError: a file could not be copied; what was copied is removed again.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and source.resolve().is_relative_to(target.resolve()):
        source.unlink()  # it leads to what lies there already
        return
    remove_folder(target)
    if source.is_symlink():
        target.symlink_to(source.resolve())
        source.unlink()
        return
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_over(source, target)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds; of a link only the link. One that is absent stays so."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _copy_over(source: Path, target: Path) -> None:
    making, leaving = target.with_name(f".{target.name}.making"), source.with_name(f".{source.name}.leaving")
    remove_folder(making)
    try:
        shutil.copytree(source, making, symlinks=True)
    except shutil.Error as error:
        remove_folder(making)
        _, file, why = error.args[0][0]
        raise CannotMoveError(f"{source} cannot be copied to {target}: {file}: {why}") from error
    os.sync()
    making.rename(target)
    remove_folder(leaving)
    try:
        source.rename(leaving)  # at once: half a folder must not be taken for the work
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for told in source.glob("*.json*"):  # first what says which work this is
            told.unlink()
        leaving = source
    shutil.rmtree(leaving)
