"""One folder per stage. Its outputs are sealed by digest when it ends and opened by digest afterwards.

``WORKSPACE/<stage>/`` holds a stage that all backbones share, ``WORKSPACE/<backbone>/<stage>/`` one of a
backbone. ``seal.json`` appears last, so a folder with a seal is complete. What a rerun replaces moves to
``superseded/`` beside it and is taken back when the same inputs, settings and code ask for it again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from omni_mlflow.events import JOURNAL_NAME, SUPERSEDED
from omni_mlflow.moving import move_folder, remove_folder
from omni_mlflow.spine.rows import (
    UNREADABLE,
    BadRowError,
    digest_of,
    file_digest,
    read_document,
    write_document,
    write_text,
)
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Row

SEAL_NAME = "seal.json"
_STAT_NAME = ".stat.json"
_UNSEALED = {SEAL_NAME, _STAT_NAME, JOURNAL_NAME}


class MissingStageError(Exception):
    """A stage was asked for before the stage that makes its input has run."""


class StaleInputError(Exception):
    """A sealed file is not what its stage sealed."""


class Seal(Row):
    """What a finished stage vouches for. It holds no clock and no run id: same work, same bytes.

    Attributes:
        fingerprint: digest of the stage's inputs, settings and code.
        settings: what of the contract shaped the outputs, by dotted name.
        inputs: digest of the seal of every stage it read.
        outputs: sha256 of every output file, by path relative to the stage folder.
        taken, made, skipped: conservation of rows: ``taken == made + skipped``.
    """

    schema_version: int = SCHEMA_VERSION
    stage: str
    backbone: str | None
    fingerprint: str
    settings: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str]
    outputs: dict[str, str]
    metrics: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    taken: int = 0
    made: int = 0
    skipped: int = 0

    @property
    def digest(self) -> str:
        return digest_of(self)


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage, for all backbones or for one."""

    root: Path
    stage: str
    backbone: str | None

    @property
    def path(self) -> Path:
        return self.root / self.backbone / self.stage if self.backbone else self.root / self.stage

    @property
    def title(self) -> str:
        return f"{self.backbone}/{self.stage}" if self.backbone else self.stage

    def seal(self) -> Seal | None:
        """Return the seal, or None when the stage has not finished."""
        path = self.path / SEAL_NAME
        if not path.is_file():
            self._refuse_absent_disk()
            return None
        try:
            return read_document(path, Seal)
        except (BadRowError, UnicodeDecodeError) as error:
            raise StaleInputError(
                f"{error}; the seal of {self.title} is damaged: restore the file, or delete it and run "
                f"{self.stage!r} again"
            ) from error

    def _refuse_absent_disk(self) -> None:
        for folder in (self.path.parent, self.path):
            if folder.is_symlink() and not folder.exists():
                raise StaleInputError(
                    f"{folder} is a link to {folder.readlink()}, which is not there; mount that disk, or "
                    "remove the link to begin anew"
                )

    def open(self, name: str) -> Path:
        """Return the path of a sealed output after checking that it is what was sealed.

        Raises:
            MissingStageError: the stage has not finished, or made no such file.
            StaleInputError: the file is gone or its bytes changed.
        """
        seal = self.seal()
        if seal is None:
            raise MissingStageError(
                f"{self.path} has no finished {self.stage!r}; "
                f"run it first, with the same options: omni-mlflow {self.stage}"
            )
        if name not in seal.outputs:
            raise MissingStageError(f"{self.title} made no {name!r}; it made {sorted(seal.outputs)[:12]}")
        self._verify(name, seal.outputs[name])
        return self.path / name

    def verify(self) -> Seal:
        """Check every output of the stage and return its seal.

        A file whose size and times of change are those of the sealing is taken as unchanged; any
        other is read again, once.

        Raises:
            MissingStageError, StaleInputError: as :meth:`open`.
        """
        seal = self.seal()
        if seal is None:
            raise MissingStageError(
                f"{self.path} has no finished {self.stage!r}; "
                f"run it first, with the same options: omni-mlflow {self.stage}"
            )
        again = [name for name, digest in seal.outputs.items() if self._verify(name, digest)]
        if again:  # in a copy of a workspace, every file
            with suppress(OSError):  # a workspace that is only read is verified all the same
                self._note_stats(seal)
        return seal

    def examine(self) -> tuple[Seal | None, list[Check]]:
        """Read every output again and say of each whether it is what was sealed; nothing is raised.

        Returns:
            The seal, None when there is none that can be read; and the broken rules, or one that holds.
        """
        finished = partial(
            Check, rule="stage_is_finished", subject=self.title, expected="a readable seal.json"
        )
        try:
            seal = self.seal()
        except (*UNREADABLE, StaleInputError) as error:
            return None, [finished(found=f"{type(error).__name__}: {error}".splitlines()[0], ok=False)]
        if seal is None:
            return None, [finished(found=f"none; run it first: omni-mlflow {self.stage}", ok=False)]
        damaged = []
        for name, digest in seal.outputs.items():
            found = _digest_or_why_not(self.path / name)
            if found != digest:
                subject = f"{self.title}/{name}"
                damaged.append(
                    Check(
                        rule="sealed_file_is_unchanged",
                        subject=subject,
                        expected=digest,
                        found=found,
                        ok=False,
                    )
                )
        return seal, damaged or [finished(found="a readable seal.json", ok=True)]

    def close(self, seal: Seal) -> None:
        """Write the seal: from now on the stage counts as finished."""
        self._note_stats(seal)
        write_document(self.path / SEAL_NAME, seal)

    def set_aside(self, identity: str) -> None:
        """Move the folder to ``superseded/``: nothing that was made is overwritten."""
        shelf = self._shelf(identity)
        if (shelf / SEAL_NAME).exists() and not (self.path / SEAL_NAME).exists():
            remove_folder(self.path)  # what a process that died was still removing, when it had moved it
        else:
            move_folder(self.path, shelf)

    def take_back(self, fingerprint: str) -> bool:
        """Bring back what a run with the same fingerprint made, or had begun, if it was set aside."""
        shelf = self._shelf(fingerprint)
        if os.path.lexists(self.path) or not shelf.is_dir():
            return False
        move_folder(shelf, self.path)
        return True

    def shelved(self) -> list[Path]:
        """Return the folders of this stage, whatever shard of it, that were set aside."""
        return sorted(self._shelf("").parent.glob(f"{self.stage}-*"))

    def clear(self) -> None:
        """Remove what an attempt left but its journal; the seal goes first, for it vouches for the rest."""
        (self.path / SEAL_NAME).unlink(missing_ok=True)
        for child in list(self.path.iterdir()):
            if not child.name.startswith(JOURNAL_NAME):
                _remove(child)

    def clear_half_written(self) -> None:
        """Remove what a killed process was just writing: a file under a temporary name is nobody's."""
        for child in sorted(self.path.rglob(".*.tmp"), reverse=True):
            _remove(child)

    def files(self, outputs: Iterable[Path]) -> dict[str, str]:
        """Return the sha256 of every output file; a folder stands for all files below it."""
        found: dict[str, str] = {}
        for output in outputs:
            paths = [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else [output]
            for path in paths:
                if path.name not in _UNSEALED:
                    found[path.relative_to(self.path).as_posix()] = file_digest(path)
        return dict(sorted(found.items()))

    def _shelf(self, fingerprint: str) -> Path:
        """Beside the stage: where a backbone's folder is a link to a large disk, its old work stays there."""
        return self.path.parent / SUPERSEDED / f"{self.stage}-{fingerprint[:24]}"

    def _note_stats(self, seal: Seal) -> None:
        stats = {name: _stat(self.path / name) for name in seal.outputs}
        write_text(self.path / _STAT_NAME, json.dumps(stats, sort_keys=True))

    def _verify(self, name: str, digest: str) -> bool:
        """Check one file; tell whether it had to be read."""
        path = self.path / name
        if not path.is_file():
            raise StaleInputError(f"{path} is gone; {self._how_to_mend()}")
        if self._stats().get(name) == _stat(path):
            return False
        if file_digest(path) != digest:
            raise StaleInputError(f"{path} changed after {self.stage!r} sealed it; {self._how_to_mend()}")
        return True

    def _how_to_mend(self) -> str:
        return f"restore the file, or delete {self.path / SEAL_NAME} and run {self.stage!r} again"

    def _stats(self) -> Mapping[str, list[int]]:
        """What was noted about the files; where it is lost or damaged, they are read again."""
        try:
            stats = json.loads((self.path / _STAT_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stats if isinstance(stats, dict) else {}


@dataclass(frozen=True)
class Workspace:
    """Where one data set's stages keep their outputs."""

    root: Path

    def stage(self, stage: str, *, backbone: str | None) -> StageFolder:
        return StageFolder(self.root, stage, backbone)

    def run_folder(self, key: str) -> Path:
        """Folder of a run that is no stage of its own: a pipeline run, or one that only reuses."""
        return self.root / "runs" / key


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _digest_or_why_not(path: Path) -> str:
    try:
        return file_digest(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _stat(path: Path) -> list[int]:
    """Size and times; unlike the time of modification, that of the last change cannot be set by hand."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
