"""Digests of a stage's files, shown in the tracker beside them: what is there can be held against its own.

They are a file of the run too, and the sha256 of that file is a tag of the run: to change a file in the store
unseen, one has to change all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_mlflow.record import RunRecord
from omni_mlflow.spine.rows import UNREADABLE, file_digest, read_document, write_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Row

OUTPUTS_NAME = "outputs.json"
OUTPUTS_TAG = "omni.outputs_digest"
_NOT_READ = (*UNREADABLE, ValueError, RecursionError)


class LoggedFiles(Row):
    """What a finished stage says of its files.

    Attributes:
        shown: sha256 of every file that the tracker shows, by its path there.
        outputs: sha256 of every output, the large ones that no tracker shows too, by its path in the stage's
            folder.
        settings: what of the contract shaped them, by dotted name, as the seal holds it; None where an
            earlier omni-mlflow logged none.
    """

    schema_version: int = SCHEMA_VERSION
    shown: dict[str, str]
    outputs: dict[str, str]
    settings: dict[str, Any] | None = None

    def withholds(self, name: str) -> bool:
        """Tell whether a file was made and never shown, because it is large or sealed."""
        return name in self.outputs and name not in self.shown

    def examine(self, folder: Path, *, stage: str) -> list[Check]:
        """Compare every file that was shown with its digest; one rule that holds stands for all of them."""
        found = {name: digest_in(folder, name) for name in sorted(self.shown)}
        damaged = [
            _check("logged_file_is_unchanged", f"{stage}/{name}", self.shown[name], digest or "missing")
            for name, digest in found.items()
            if digest != self.shown[name]
        ]
        count = f"{len(found)} files as they were logged"
        return damaged or [_check("logged_files_are_unchanged", stage, count, count)]


def log_files(record: RunRecord, outputs: Mapping[str, str], *, settings: Mapping[str, Any]) -> None:
    """Show the digests of the run's files in its folder, those of its outputs and of what it showed so far.

    Args:
        outputs, settings: as they are going to be sealed.
    """
    shown = {
        name: file_digest(record.folder / path)
        for name, path in sorted(record.shown.items())
        if name != OUTPUTS_NAME and (record.folder / path).is_file()
    }
    path = record.folder / OUTPUTS_NAME
    write_document(path, LoggedFiles(shown=shown, outputs=dict(outputs), settings=dict(settings)))
    record.artifacts([path])
    record.tags({OUTPUTS_TAG: file_digest(path)})


def read_logged(folder: Path, *, stage: str, tag: str | None) -> tuple[LoggedFiles | None, list[Check]]:
    """Read the digests of a stage's run and hold its files against them; nothing is raised.

    Args:
        folder: what the tracker shows of the run.
        tag: the run's tag with the digest of the digests; None where it has none.

    Returns:
        The digests, None when there are none that can be read; and every rule that was applied.
    """
    subject, path = f"{stage}/{OUTPUTS_NAME}", folder / OUTPUTS_NAME
    found = digest_in(folder, OUTPUTS_NAME)
    rule = "digests_of_its_files_were_logged"
    if tag is None:
        wanted = f"digests of its files, and their own in the tag {OUTPUTS_TAG}"
        told = "no such tag" if found else "none, as an earlier omni-mlflow left it: no file can be judged"
        checks = [_check(rule, subject, wanted, f"{told}; judge the workspace it was made in instead")]
    else:
        checks = [_check(rule, subject, tag, found or "missing")]
    try:
        logged = read_document(path, LoggedFiles) if found else None
    except _NOT_READ as error:
        told = type(error).__name__
        return None, [*checks, _check("digests_can_be_read", subject, "a readable outputs.json", told)]
    return logged, [*checks, *(logged.examine(folder, stage=stage) if logged else ())]


def shown_files(folder: Path) -> list[str]:
    """Return the files that a stage says it has shown, as far as that can be read; none lies elsewhere."""
    try:
        shown = sorted(read_document(folder / OUTPUTS_NAME, LoggedFiles).shown)
    except _NOT_READ:
        return []
    return [name for name in shown if (folder / name).resolve().is_relative_to(folder.resolve())]


def digest_in(folder: Path, name: str) -> str | None:
    """Return the sha256 of a file below ``folder``; None where it is gone or cannot be read."""
    path = folder / name
    try:
        return file_digest(path) if path.is_file() else None
    except OSError:
        return None


def _check(rule: str, subject: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=expected == found)
