"""Build a package that may be published: nothing leaves unless a rule of the contract lets it.

A name that no rule allows is withheld, and the package says so. A file that a rule allows but that is not
what it should be (a link, too large, a video under another name, a private path in its text) refuses the
whole package: what is wrong there needs a person.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_mlflow.contract import SEALED, PackageFile, resolve
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.publication.firewall import allowing, refusal, unsafe_name
from omni_mlflow.publication.verify import (
    MANIFEST_NAME,
    RECORD_NAME,
    Decision,
    PackageRecord,
    render_manifest,
    verify_package,
)
from omni_mlflow.spine.rows import file_digest, write_document, write_text
from omni_mlflow.spine.types import Check, broken


class PackageExistsError(Exception):
    """There is a package already; a new one is never mixed into it."""


class _RefusedError(Exception):
    """One candidate cannot be taken; carries the broken rule."""

    def __init__(self, rule: str, subject: str, *, expected: str, found: str) -> None:
        super().__init__(found)
        self.check = refusal(rule, subject, expected=expected, found=found)


@dataclass(frozen=True)
class PackageReport:
    """What became of the candidates.

    Attributes:
        folder: the finished package; it exists only when there are no findings.
        decisions: one per candidate, by name.
        findings: broken rules; with a single one nothing was published.
    """

    folder: Path
    decisions: tuple[Decision, ...]
    findings: tuple[Check, ...]

    @property
    def num_published(self) -> int:
        return sum(decision.outcome == "published" for decision in self.decisions)

    @property
    def num_withheld(self) -> int:
        return sum(decision.outcome == "withheld" for decision in self.decisions)


def build_package(
    candidates: Mapping[str, Path],
    *,
    allowed: Sequence[PackageFile],
    forbidden: Sequence[str],
    out: Path,
    private_roots: Sequence[Path],
    facts: Mapping[str, str],
) -> PackageReport:
    """Copy the candidates that may leave into the new folder ``out``, or nothing at all.

    The package is built beside ``out``, read back and checked there, and renamed at the end.

    Args:
        candidates: files on offer by their name in the package, e.g. ``evaluate/metrics.json``.
        allowed: the contract's ``public_package_allowed``.
        forbidden: the contract's ``public_package_forbidden``.
        private_roots: folders of this machine whose names must not appear in a file.
        facts: what ``package.json`` says about its origin: backbone, class of evidence, source digests.

    Raises:
        PackageExistsError: ``out`` exists.
        ContractError: a forbidden category has no detector.
    """
    for category in forbidden:
        resolve("forbidden category", category, DETECTORS)
    if out.exists() or out.is_symlink():
        raise PackageExistsError(f"{out} exists; move it away, then publish again")
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
    try:
        decisions, findings = _take(candidates, allowed, building)
        record = PackageRecord(
            facts=dict(facts), allowed=tuple(allowed), forbidden=tuple(forbidden), decisions=tuple(decisions)
        )
        _seal(record, building)
        findings += broken(verify_package(building, private_roots=private_roots))
        if findings:
            return PackageReport(out, _refused(decisions, findings), tuple(findings))
        building.rename(out)
        return PackageReport(out, tuple(decisions), ())
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _take(
    candidates: Mapping[str, Path], allowed: Sequence[PackageFile], building: Path
) -> tuple[list[Decision], list[Check]]:
    decisions: list[Decision] = []
    findings: list[Check] = []
    spelled: dict[str, str] = {RECORD_NAME: RECORD_NAME, MANIFEST_NAME: MANIFEST_NAME}
    for name, source in sorted(candidates.items()):
        try:
            decisions.append(_decide(name, source, allowed, building, spelled))
        except _RefusedError as refused:
            findings.append(refused.check)
            decisions.append(Decision(name=name, outcome="refused", reason=str(refused)))
    return decisions, findings


def _decide(
    name: str, source: Path, allowed: Sequence[PackageFile], building: Path, spelled: dict[str, str]
) -> Decision:
    if problem := unsafe_name(name):
        raise _RefusedError("name", name, expected="a plain relative path", found=problem)
    rule = allowing(name, allowed)
    if rule is None:
        return Decision(name=name, outcome="withheld", reason="no rule of the contract allows this name")
    if SEALED in Path(name).parts:  # a pattern with a star may reach them
        raise _RefusedError("held_out_answers", name, expected="sealed", found=f"allowed by {rule.pattern}")
    other = spelled.setdefault(name.casefold(), name)
    if other != name or name in (RECORD_NAME, MANIFEST_NAME):
        raise _RefusedError("name", name, expected="a name of its own", found=f"{other} has it")
    content = _read_regular_file(source, name, max_bytes=rule.max_bytes)
    copy = building / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(content)
    return Decision(
        name=name,
        outcome="published",
        category=rule.category,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def _read_regular_file(source: Path, name: str, *, max_bytes: int) -> bytes:
    """Read through one descriptor, so that what was checked is what is read; links are not followed."""
    if source.is_symlink():
        raise _RefusedError("regular_file", name, expected="a regular file", found="a symbolic link")
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _RefusedError("readable", name, expected="readable", found=str(error.strerror)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _RefusedError("regular_file", name, expected="a regular file", found="a folder or device")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        size = max(status.st_size, len(content))
        raise _RefusedError("size", name, expected=f"at most {max_bytes} bytes", found=f"{size} bytes")
    return content


def _seal(record: PackageRecord, building: Path) -> None:
    write_document(building / RECORD_NAME, record)
    digests = {name: file_digest(building / name) for name in [*record.published(), RECORD_NAME]}
    write_text(building / MANIFEST_NAME, render_manifest(digests))


def _refused(decisions: Sequence[Decision], findings: Sequence[Check]) -> tuple[Decision, ...]:
    """Nothing was published after all: say of each file whether it was at fault."""
    reasons = {finding.subject: f"{finding.rule}: {finding.found}" for finding in reversed(findings)}
    return tuple(
        decision.model_copy(
            update={
                "outcome": "refused" if decision.name in reasons else "withheld",
                "reason": reasons.get(decision.name, "another file refused the package"),
            }
        )
        if decision.outcome == "published"
        else decision
        for decision in decisions
    )
