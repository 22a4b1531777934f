"""Everything that is asked of one file before it may leave."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from omni_mlflow.contract import PackageFile
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.publication.disclosures import disclosures
from omni_mlflow.publication.documents import NotPublishableError, read_document_text
from omni_mlflow.publication.patterns import fits
from omni_mlflow.spine.types import Check


def allowing(name: str, allowed: Sequence[PackageFile]) -> PackageFile | None:
    """Return the rule that lets ``name`` leave, the one with the smallest size where several do."""
    matching = [rule for rule in allowed if fits(name, rule.pattern)]
    return min(matching, key=lambda rule: rule.max_bytes, default=None)


def unsafe_name(name: str) -> str | None:
    """Say why ``name`` could land outside a package, or mean another file on another system."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        return "leaves the package"
    if path.as_posix() != name or "\\" in name or ":" in name:
        return "is not a plain relative path"
    if not name.isprintable() or unicodedata.normalize("NFC", name) != name:
        return "holds characters that do not show"
    return None


def findings(
    path: Path, name: str, *, forbidden: Sequence[str], private_roots: Sequence[Path]
) -> Iterator[Check]:
    """Yield one broken rule for everything in the file at ``path`` that must not be in a package.

    Args:
        name: its name in the package, which promises a kind.
        forbidden: categories that the contract forbids, each a key of ``DETECTORS``.
    """
    for category in forbidden:
        if evidence := DETECTORS[category](path):
            yield refusal(category, name, expected=f"no {category}", found=evidence)
    try:
        document = read_document_text(path, name)
    except NotPublishableError as error:
        yield refusal(
            "text_of_its_kind", name, expected="UTF-8 text that its name describes", found=str(error)
        )
        return
    for disclosure in disclosures(document, private_roots=private_roots):
        yield refusal(disclosure.rule, name, expected=f"no {disclosure.rule}", found=disclosure.evidence)


def refusal(rule: str, subject: str, *, expected: str, found: str) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=False)
