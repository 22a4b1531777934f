"""What a text gives away that must not leave: private paths, secrets, addresses and files in disguise."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_mlflow.publication.detectors import embedded_kind
from omni_mlflow.publication.documents import Document, line_of


@dataclass(frozen=True)
class Disclosure:
    """Something found in a text. Evidence shows where, and of a secret only its first characters."""

    rule: str
    evidence: str


def disclosures(document: Document, *, private_roots: Sequence[Path]) -> list[Disclosure]:
    """Return what ``document`` gives away, each thing once.

    Args:
        private_roots: folders of this machine whose names must not appear, e.g. the workspace.
    """
    roots = _root_pattern(private_roots)
    matches = dict.fromkeys(match for reading in document.readings for match in _matches(reading, roots))
    found = [Disclosure(rule, _evidence(secret, document.text)) for rule, secret in matches]
    blobs = dict.fromkeys(evidence for reading in document.readings for evidence in _embedded(reading))
    found += [Disclosure("embedded_file", evidence) for evidence in blobs]
    for array in document.byte_arrays:
        if kind := embedded_kind(array):
            found.append(Disclosure("embedded_file", f"a list of {len(array)} bytes is {kind}"))
    return found


def _matches(text: str, roots: re.Pattern[str] | None) -> Iterator[tuple[str, str]]:
    for rule, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            yield rule, match[0]
    for match in roots.finditer(text) if roots else ():
        yield "private_path", match[0]
    for match in _ASSIGNED.finditer(text):
        if _is_secret(match["name"].lower(), match["value"]):
            yield "secret", match["value"]


_FOLDERS = r"home|Users|mnt|media|scratch|tmp|var|private|lustre|gpfs|nfs"
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "private_path": re.compile(
        rf"(?<![\w.~-])(?<!:/)/(?:(?:{_FOLDERS})/[\w.~-]|root(?![\w-]))"
        r"|\bfile:///"
        r"|(?i:\b[a-z]:[\\/]+(?:users|home|documents and settings)[\\/])"
    ),
    "secret": re.compile(
        r"\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
        r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
        r"|\b(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"
        r"|\bglpat-[\w-]{16,}"  # GitLab
        r"|\bxox[abeoprs]-[\w-]{10,}"  # Slack
        r"|\bAIza[\w-]{30,}"  # Google
        r"|\bsk-(?=[\w-]*\d)[\w-]{20,}"  # model providers
        r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web token
        r"|-----BEGIN [A-Z ]*PRIVATE KEY"
        r"|\b[Bb]earer\s+[\w.~+/-]{16,}"
        r"|\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]+:[^\s/@]+@"  # password in an address
    ),
    "email": re.compile(r"(?<=[\w+-])@(?:[\w-]{1,63}\.){0,4}[\w-]{0,62}[A-Za-z][\w-]{0,62}\.[A-Za-z]{2,}\b"),
}

_ASSIGNED = re.compile(
    r"""(?ix)
    (?P<name> password | passwd | passphrase
            | (?<![a-z0-9]) secret | (?:api|access|secret|private|encryption)[_-]?key
            | (?:access|auth|api|refresh|session|hf|hub|github|bearer|security)[_-]token
            | (?<![a-z0-9_]) (?: token | key ) )
    ["']? \s* [:=] \s* ["']? (?P<value> [^\s"',;]{6,} )
    """
)


def _is_secret(name: str, value: str) -> bool:
    """Tell a secret from a setting: a password is always one, the others look random."""
    if name.startswith("pass"):
        return True
    has_digit, has_lower, has_upper = (
        any(map(kind, value)) for kind in (str.isdigit, str.islower, str.isupper)
    )
    if name == "key":  # ids are keys, too; they are short, or hexadecimal
        return len(value) >= 20 and has_digit and has_lower and has_upper and _entropy(value.encode()) >= 3.5
    mixed = has_digit and (has_lower or has_upper)
    return len(value) >= 16 and mixed and _entropy(value.encode()) >= 3.0


def _embedded(text: str) -> Iterator[str]:
    """Find base64 and hexadecimal text that hides a file, or is long and looks like noise."""
    for match in _ENCODED.finditer(text):
        lines = match[0].split()
        token = "".join(lines)
        digests = len(lines) > 1 and all(map(_DIGEST.fullmatch, lines))
        for content in _decodings(token):
            kind = embedded_kind(content)
            noise = not digests and len(content) >= _LONG_BLOB and _entropy(content) >= _NOISE_BITS
            if kind or noise:
                yield f"{len(token)} characters from {token[:8]!r} on: {kind or 'noise'}"
                break


_LETTER = "[A-Za-z0-9+/_-]"
_ENCODED = re.compile(
    rf"(?<!{_LETTER}){_LETTER}{{60,}}(?:\s{{1,2}}{_LETTER}{{60,}})*(?:\s{{1,2}}{_LETTER}+)?={{0,2}}"
)
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}")
_LONG_BLOB = 4096
_NOISE_BITS = 6.5
"""Bits per byte: compressed data has 7.9 in 4 kB, English text 4.5."""


def _decodings(token: str) -> Iterator[bytes]:
    """Yield what ``token`` may stand for; identifiers and relative paths stand for nothing."""
    if re.fullmatch(r"[0-9a-fA-F]+", token):
        if not _DIGEST.fullmatch(token):
            yield bytes.fromhex(token[: len(token) // 2 * 2])
        return
    capitals, small = len(re.findall(r"[A-Z]", token)), len(re.findall(r"[a-z]", token))
    if len(token) < 100 or min(capitals, small) < 4:  # base64 of anything has plenty of both
        return
    plain = token.rstrip("=").translate(str.maketrans("-_", "+/"))
    for skipped in range(4):  # a letter may stick to its front
        rest = plain[skipped:]
        whole = rest[:-1] if len(rest) % 4 == 1 else rest
        yield base64.b64decode(whole + "=" * (-len(whole) % 4))


def _entropy(content: bytes) -> float:
    """Shannon entropy in bits per byte, from 0 to 8."""
    counts = Counter(content).values()
    return -sum(count / len(content) * math.log2(count / len(content)) for count in counts)


def _root_pattern(roots: Sequence[Path]) -> re.Pattern[str] | None:
    names = {str(form) for root in roots for form in (root.absolute(), root.resolve()) if form.name}
    if not names:
        return None
    either = "|".join(re.escape(name) for name in sorted(names))
    return re.compile(rf"(?<![\w.-])(?:{either})(?![\w-])")


def _evidence(secret: str, text: str) -> str:
    position = text.find(secret)
    place = f"line {line_of(text, position)}" if position >= 0 else "behind an escape"
    return f"{secret[:8]}… in {place}" if len(secret) > 8 else f"{secret} in {place}"
