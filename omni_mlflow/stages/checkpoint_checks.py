"""What is asked of every checkpoint, whatever its family, and how the gates of its contract are asked."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ConfigDict

from omni_mlflow.backbones.base import CheckpointUnderTest, Gate
from omni_mlflow.logged_files import digest_in
from omni_mlflow.publication.detectors import DETECTORS
from omni_mlflow.spine.rows import UNREADABLE, file_digest, read_document, read_rows
from omni_mlflow.spine.types import Check, FittedOnTrain, Row, Split
from omni_mlflow.stages.manifests import FITTED, LEDGER, checkpoint_files

MANIFEST = "checkpoint_manifest.json"


class CheckpointManifest(Row):
    """The part of ``checkpoint_manifest.json`` that every checkpoint has.

    Attributes:
        files: sha256 of every file of the checkpoint but this one.
    """

    files: dict[str, str]
    dataset_digest: str
    training_ledger_digest: str


def manifest_checks(checkpoint: Path, *, dataset_digest: str, ledger: Path) -> list[Check]:
    """Read every file again: the manifest is a claim, the bytes are the fact.

    Args:
        dataset_digest: that of the exported dataset.
        ledger: the training ledger that lies beside the checkpoint.
    """
    try:
        manifest = read_document(checkpoint / MANIFEST, CheckpointManifest)
    except UNREADABLE as error:
        return [_check("checkpoint_manifest_is_readable", MANIFEST, "readable", _told(error), ok=False)]
    claimed, found = manifest.files, checkpoint_files(checkpoint)
    checks = [
        _check("checkpoint_files_match_manifest", name, digest, found.get(name, "missing"))
        for name, digest in sorted(claimed.items())
    ]
    strange = sorted({*found} - {*claimed})
    checks.append(_check("checkpoint_has_no_other_file", MANIFEST, "[]", str(strange)))
    links = sorted(
        path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_symlink()
    )
    checks.append(_check("checkpoint_holds_no_link", MANIFEST, "[]", str(links)))
    pickled = sorted(name for name in found if DETECTORS["checkpoints"](checkpoint / name))
    checks.append(_check("checkpoint_holds_no_pickle", MANIFEST, "[]", str(pickled)))
    checks.append(_check("trained_on_this_dataset", MANIFEST, dataset_digest, manifest.dataset_digest))
    here = file_digest(ledger) if ledger.is_file() else "missing"
    checks.append(_check("ledger_is_the_one_of_the_training", LEDGER, manifest.training_ledger_digest, here))
    return checks


def ledger_checks(ledger: Path, split_of: Mapping[str, Split]) -> tuple[dict[str, int], list[Check]]:
    """Every sample that training really consumed must be a train sample of this export.

    Args:
        split_of: the split of every sample that could be learned from, by sample id.

    Returns:
        How often each sample was consumed, by id, and the checks.
    """
    try:
        consumed = _consumed(ledger)
    except (*UNREADABLE, RecursionError, UnicodeDecodeError) as error:
        return {}, [_check("training_ledger_is_readable", LEDGER, "readable", _told(error), ok=False)]
    foreign = sorted(sample for sample in consumed if split_of.get(sample) is not Split.TRAIN)
    told = f"{len(foreign)} other ids: {foreign[:5]}" if foreign else f"{len(consumed)} train ids"
    return consumed, [
        _check(
            "only_train_samples_were_learned_from",
            LEDGER,
            "ids of samples/train.jsonl only",
            told,
            ok=not foreign,
        ),
        _check(
            "training_consumed_samples", LEDGER, "at least one sample", str(len(consumed)), ok=bool(consumed)
        ),
    ]


def fitted_check(checkpoint: Path, fitted: FittedOnTrain) -> tuple[tuple[str, ...], Check]:
    """Whatever the family, what was fitted must name the train episodes and no other.

    Returns:
        The episodes that the checkpoint names, and the check.
    """
    try:
        named = read_document(checkpoint / FITTED, FittedOnTrain)
    except UNREADABLE as error:
        return (), _check("fitted_on_train_episodes", FITTED, fitted.episodes_digest, _told(error), ok=False)
    found = named.episodes_digest
    if named.episode_ids != fitted.episode_ids:
        found = f"{found} of {list(named.episode_ids)}"
    return named.episode_ids, _check("fitted_on_train_episodes", FITTED, fitted.episodes_digest, found)


def ask_gates(gates: Mapping[str, Gate], checkpoint: CheckpointUnderTest) -> list[Check]:
    """Ask every gate, each with a folder of its own below ``checkpoint.out``.

    A gate that raises is a broken rule with its reason, and the others are asked all the same; so is one
    that returns no check, because a gate that looks at nothing passes anything, or that changes a file of
    the checkpoint, because then nobody knows what was checked.
    """
    known = _known_digests(checkpoint.folder)
    checks: list[Check] = []
    for name, gate in gates.items():
        before = _stamps(checkpoint.folder)
        checks += _ask(name, gate, replace(checkpoint, out=checkpoint.out / name))
        if changes := list(_changes(checkpoint.folder, before, known)):
            checks.append(_changed_the_checkpoint(name, changes))
    return checks


def _changed_the_checkpoint(gate: str, changes: Sequence[str]) -> Check:
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    found = (
        f"the gate {', '.join(changes[:5])}{more}; have it write below its folder 'out' alone. Put the "
        "checkpoint back as it was, or remove it, delete train/seal.json and run 'train' again"
    )
    return _check("gate_changes_no_checkpoint", gate, "every file as it was", found, ok=False)


def _known_digests(checkpoint: Path) -> dict[str, str]:
    """What tells a file that was only touched from one that was rewritten, without reading weights first."""
    try:
        claimed = read_document(checkpoint / MANIFEST, CheckpointManifest).files
    except UNREADABLE:  # which is a broken rule of its own
        return {}
    return {**claimed, MANIFEST: file_digest(checkpoint / MANIFEST)}


def _stamps(checkpoint: Path) -> dict[str, tuple[int, int, int]]:
    """Size and times of every file; the time of the last change cannot be set by hand."""
    found = {
        path.relative_to(checkpoint).as_posix(): path.lstat()
        for path in checkpoint.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found.items()}


def _changes(
    checkpoint: Path, before: Mapping[str, tuple[int, int, int]], known: Mapping[str, str]
) -> Iterator[str]:
    """Yield what became of each file since ``before``; other times alone make no other file."""
    now = _stamps(checkpoint)
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"deleted {name}"
        elif name not in before:
            yield f"added {name}"
        elif now[name] != before[name] and digest_in(checkpoint, name) != known.get(name, "unknown"):
            yield f"rewrote {name}"


def _ask(name: str, gate: Gate, checkpoint: CheckpointUnderTest) -> list[Check]:
    try:
        checks = list(gate(checkpoint))
    except (Exception, SystemExit) as error:  # a gate is foreign code; every other rule must still be told
        *_, last = traceback.extract_tb(error.__traceback__)
        found = f"{_told(error)} ({Path(last.filename).name}, line {last.lineno})"
        return [_check("gate_ran_to_its_end", name, "checks", found, ok=False)]
    strange = [each for each in checks if not isinstance(each, Check)]
    if strange or not checks:
        found = f"{type(strange[0]).__name__} among them" if strange else "none"
        return [
            _check("gate_checked_something", name, "at least one check, and only checks", found, ok=False)
        ]
    return checks


class _Consumed(Row):
    """What a row of the training ledger must say; its other keys are the training's own."""

    model_config = ConfigDict(extra="ignore", strict=True)

    ids: list[str]


def _consumed(ledger: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in read_rows(ledger, _Consumed):
        for sample_id in row.ids:
            counts[sample_id] = counts.get(sample_id, 0) + 1
    return counts


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool | None = None) -> Check:
    return Check(
        rule=rule, subject=subject, expected=expected, found=found, ok=expected == found if ok is None else ok
    )
