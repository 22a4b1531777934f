"""A run as the validator sees it: the files of its stages, in a workspace or as a tracker shows them.

Files are read as they are now, because a damaged one must be told and not only refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import Backbone
from omni_mlflow.contract import Contract
from omni_mlflow.logged_files import LoggedFiles, digest_in
from omni_mlflow.spine.rows import BadRowError, read_json_rows
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import Check, Split
from omni_mlflow.stages.manifests import LEDGER


class UnreadableEvidenceError(Exception):
    """A file that a rule needs is missing or damaged; carries which one."""

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(reason)
        self.subject = subject


@dataclass(frozen=True)
class RunUnderTest:
    """What the rules of the validator read.

    Attributes:
        folders: where the files of each stage lie.
        logged: digests of each stage's files, where a tracking store shows the small ones only and the others
            are judged by them; None where everything that the stages made is there.
    """

    folders: Mapping[str, Path]
    contract: Contract
    backbone: Backbone
    settings: Any
    logged: Mapping[str, LoggedFiles] | None

    @property
    def whole(self) -> bool:
        return self.logged is None

    def withholds(self, stage: str, name: str) -> bool:
        """Tell whether a file was made but is none that a tracking store shows."""
        logged = (self.logged or {}).get(stage)
        return logged is not None and logged.withholds(name)

    def digest(self, stage: str, name: str) -> str | None:
        """Return the sha256 of a file, of a withheld one that which was logged; None where it is gone.

        Raises:
            UnreadableEvidenceError: the stage left nothing.
        """
        folder = self.path(stage, ".")
        if self.logged is not None and self.withholds(stage, name):
            return self.logged[stage].outputs[name]
        return digest_in(folder, name)

    def path(self, stage: str, name: str) -> Path:
        """Where a file of a stage lies, if it is there.

        Raises:
            UnreadableEvidenceError: the stage left nothing.
        """
        if stage not in self.folders:
            raise UnreadableEvidenceError(f"{stage}/{name}", f"{stage!r} has not finished")
        return self.folders[stage] / name

    def json(self, stage: str, name: str) -> dict[str, Any]:
        """Return a JSON object. NaN is read as such: a rule over its values must name the value.

        Raises:
            UnreadableEvidenceError: the file is missing or holds no JSON object.
        """
        path = self.path(stage, name)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UnreadableEvidenceError(f"{stage}/{name}", reason_of(error)) from error
        if not isinstance(document, dict):
            raise UnreadableEvidenceError(f"{stage}/{name}", "not a JSON object")
        return document

    def text(self, stage: str, name: str) -> str:
        """Return a text file.

        Raises:
            UnreadableEvidenceError: the file is missing or is no text.
        """
        try:
            return self.path(stage, name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableEvidenceError(f"{stage}/{name}", reason_of(error)) from error

    def rows(self, stage: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of a JSONL file.

        Raises:
            UnreadableEvidenceError: the file is missing or a line of it is no JSON object.
        """
        path = self.path(stage, name)
        try:
            return list(read_json_rows(path))
        except (OSError, UnicodeDecodeError, RecursionError, BadRowError) as error:
            raise UnreadableEvidenceError(f"{stage}/{name}", reason_of(error)) from error


def damage_of(path: Path) -> str | None:
    """Say what keeps a file from being evidence: missing, empty, or not of the kind that its name says."""
    if not path.is_file():
        return "missing"
    if path.stat().st_size == 0:
        return "empty"
    try:
        if path.suffix == ".json":
            strict_json(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            _read_to_the_last_line(path)
        elif path.suffix in (".md", ".csv", ".txt"):
            path.read_text(encoding="utf-8")
    except (OSError, ValueError, BadRowError) as error:
        return reason_of(error)
    return None


def _read_to_the_last_line(path: Path) -> None:
    with path.open("rb") as content:
        content.seek(-1, 2)
        torn = content.read() != b"\n"
    if torn:
        raise BadRowError("the last line is torn")
    for _ in read_json_rows(path):
        pass


def reason_of(error: Exception) -> str:
    """What went wrong with a file, without the folder of this machine that it lies in."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error.strerror}"
    text = str(error)
    return text.rpartition("/")[2] if isinstance(error, BadRowError) else f"{type(error).__name__}: {text}"


def check(rule: str, subject: str, expected: object, found: object, *, ok: bool | None = None) -> Check:
    """A rule and what was found; without ``ok`` it holds when both are equal."""
    passed = expected == found if ok is None else ok
    return Check(rule=rule, subject=subject, expected=str(expected), found=str(found), ok=passed)


def as_listed(run: RunUnderTest, rule: str, stage: str, name: str, digest: str) -> Check:
    """A file that another one lists has the digest it is listed with."""
    found = run.digest(stage, name)
    told = by_digest(run, stage, name) if run.withholds(stage, name) else found or "missing"
    return check(rule, f"{stage}/{name}", digest, told, ok=found == digest)


def by_digest(run: RunUnderTest, stage: str, name: str) -> str:
    """Say that a file is no more than a digest here."""
    digest = str(run.digest(stage, name))
    return f"not in the tracking store, which holds no large files: by its logged digest {digest[:16]}"


def held_out(run: RunUnderTest) -> set[str]:
    """Ids of the test episodes of the guarded split."""
    episodes = run.json("guard", "episode_manifest.json")["episodes"]
    return {each["episode_id"] for each in episodes if each["split"] == Split.TEST}


def learned_episodes(run: RunUnderTest) -> set[str]:
    """The episodes of the samples that training really consumed; a foreign id stands for itself.

    Raises:
        UnreadableEvidenceError: the ledger or the samples are not here.
    """
    episode_of = {
        row["sample"]["id"]: row["sample"]["episode_id"]
        for split in (Split.TRAIN, Split.VAL)
        for row in run.rows("export", f"samples/{split}.jsonl")
    }
    consumed = {sample for row in run.rows("train", LEDGER) for sample in row["ids"]}
    return {episode_of.get(sample, sample.partition(":")[0]) for sample in consumed}
