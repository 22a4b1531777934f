"""Check a package with nothing but the package: names, digests, decisions and contents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from omni_mlflow.contract import ContractError, PackageFile, resolve
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.publication.firewall import allowing, findings, refusal, unsafe_name
from omni_mlflow.spine.rows import BadRowError, NewerSchemaError, file_digest, read_document
from omni_mlflow.spine.types import SCHEMA_VERSION, Check, Row

RECORD_NAME = "package.json"
MANIFEST_NAME = "manifest-sha256.txt"


class Decision(Row):
    """What happened to one file that was offered to a package.

    Attributes:
        reason: why it is not in the package.
        sha256, size_bytes: of a published file.
    """

    name: str
    outcome: Literal["published", "withheld", "refused"]
    category: str | None = None
    reason: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None


class PackageRecord(Row):
    """``package.json``: where a package comes from, its rules, and what was decided. No clock, no machine.

    Attributes:
        facts: backbone, class of evidence and the digests of what the files were made from.
    """

    schema_version: int = SCHEMA_VERSION
    facts: dict[str, str]
    allowed: tuple[PackageFile, ...]
    forbidden: tuple[str, ...]
    decisions: tuple[Decision, ...]

    def published(self) -> dict[str, Decision]:
        return {each.name: each for each in self.decisions if each.outcome == "published"}


def render_manifest(digests: Mapping[str, str]) -> str:
    """Return the text of ``manifest-sha256.txt``, as BagIt and ``sha256sum -c`` read it."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def verify_package(folder: Path, *, private_roots: Sequence[Path] = ()) -> list[Check]:
    """Read a package back and return every rule that was asked of it, kept or broken.

    Any changed, missing or additional byte of any file breaks a rule that names the file. A package whose
    record and manifest were both rewritten to agree is another package: compare its digest with a known one.

    Args:
        private_roots: folders of this machine whose names must not appear in it.
    """
    try:
        record = _read_record(folder / RECORD_NAME)
    except (OSError, BadRowError, NewerSchemaError, ContractError) as error:
        return [
            refusal("package_is_readable", RECORD_NAME, expected="the record of a package", found=str(error))
        ]
    present = _present(folder)
    checks = [*_files_are_the_published_ones(present, record)]
    regular = sorted(name for name in present if _is_regular(folder / name))
    digests = {name: file_digest(folder / name) for name in regular if name != MANIFEST_NAME}
    checks += _digests_agree(digests, folder / MANIFEST_NAME, record)
    for name in sorted(present):
        broken = [*_rules_allow(name, folder / name, record)]
        if name in regular:
            broken += findings(folder / name, name, forbidden=record.forbidden, private_roots=private_roots)
        checks += broken or [_kept("may_leave", name)]
    return checks


def _read_record(path: Path) -> PackageRecord:
    record = read_document(path, PackageRecord)
    for category in record.forbidden:
        resolve("forbidden category", category, DETECTORS)
    return record


def _present(folder: Path) -> set[str]:
    """Names of everything but folders; a link counts as what it is, not as what it points to."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _files_are_the_published_ones(present: set[str], record: PackageRecord) -> Iterator[Check]:
    wanted = {*record.published(), RECORD_NAME, MANIFEST_NAME}
    for name in sorted(present - wanted):
        yield refusal("no_other_file", name, expected="only published files", found="not in package.json")
    for name in sorted(wanted - present):
        yield refusal("no_file_missing", name, expected="present", found="missing")
    if present == wanted:
        yield _kept("only_published_files", RECORD_NAME)


def _digests_agree(digests: Mapping[str, str], manifest: Path, record: PackageRecord) -> Iterator[Check]:
    lines = manifest.read_bytes() if _is_regular(manifest) else b""
    listed = _read_manifest(lines)
    for name, digest in digests.items():
        if listed.get(name) == digest:
            yield _kept("digest", name)
        else:
            yield refusal("digest", name, expected=str(listed.get(name, "an entry")), found=digest)
    for name, decision in record.published().items():
        if decision.sha256 != digests.get(name):
            yield refusal(
                "decision_digest",
                name,
                expected=str(decision.sha256),
                found=str(digests.get(name, "missing")),
            )
    if lines != render_manifest(digests).encode():
        yield refusal(
            "manifest", MANIFEST_NAME, expected="one sorted line per file", found="other lines or other order"
        )


def _read_manifest(manifest: bytes) -> dict[str, str]:
    lines = manifest.decode("utf-8", errors="replace").split("\n")
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _rules_allow(name: str, path: Path, record: PackageRecord) -> Iterator[Check]:
    if problem := unsafe_name(name):
        yield refusal("name", name, expected="a plain relative path", found=problem)
    if not _is_regular(path):
        yield refusal("regular_file", name, expected="a regular file", found="a link or special file")
    if name in (RECORD_NAME, MANIFEST_NAME):
        return
    rule = allowing(name, record.allowed)
    if rule is None:
        yield refusal(
            "allowed_name", name, expected="a name that the contract allows", found="no pattern matches"
        )
    elif path.lstat().st_size > rule.max_bytes:
        yield refusal(
            "size", name, expected=f"at most {rule.max_bytes} bytes", found=f"{path.lstat().st_size} bytes"
        )


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _kept(rule: str, subject: str) -> Check:
    return Check(rule=rule, subject=subject, expected="holds", found="holds", ok=True)
