"""The label ledger of a dataset: ``export`` writes it, and nothing is scored once it drifted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import read_document, read_rows
from omni_mlflow.spine.types import FittedOnTrain, LabelledSample, Split, Target
from omni_mlflow.stages.base import Run
from omni_mlflow.stages.manifests import LABEL_LEDGER

_MOST_NAMED = 20


class LabelLedgerDriftError(Exception):
    """The labels of a dataset, or those a checkpoint was trained with, are not the declared ones."""


def label_ledger(run: Run, targets: Iterable[Target], fitted: FittedOnTrain) -> LabelLedger:
    """Return the declared labels, if they are those of the samples and of the checkpoint.

    Args:
        targets: all held-out targets, opened through the seal.
        fitted: what the checkpoint learned of the train samples.

    Raises:
        LabelLedgerDriftError: naming the labels that differ.
    """
    declared = read_document(run.open("export", LABEL_LEDGER), LabelLedger)
    counts: dict[Split, Mapping[str, int]] = {Split.TEST: action_counts(targets)}
    for split in (Split.TRAIN, Split.VAL):
        rows = read_rows(run.open("export", f"samples/{split}.jsonl"), LabelledSample)
        counts[split] = action_counts(row.target for row in rows)
    if differing := drift(declared, LabelLedger.of(counts), fitted):
        more = f" and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
        raise LabelLedgerDriftError(
            f"the label ledger {declared.digest[:16]} drifted: {'; '.join(differing[:_MOST_NAMED])}{more}. "
            "Run 'export' again, then 'train' and 'gate': numbers over different classes do not compare"
        )
    return declared


def action_counts(targets: Iterable[Target]) -> Counter[str]:
    return Counter(each.labels.action for each in targets if each.labels.action is not None)


def drift(declared: LabelLedger, found: LabelLedger, fitted: FittedOnTrain) -> list[str]:
    """Say of each label what the dataset or the checkpoint holds otherwise than the ledger.

    A backbone that fits no action counts is held to its dataset by the gate alone.
    """
    differing = [f"{each} samples (train/val/test)" for each in declared.drift_to(found)]
    if isinstance(fitted, TrainPriors):
        trained_with = fitted.action
        in_train = {each.label: each.train for each in declared.labels if each.train}
        differing += [
            f"{label!r}: {declared_count} train samples, the checkpoint saw {seen}"
            for label in sorted({*in_train, *trained_with})
            if (declared_count := in_train.get(label, 0)) != (seen := trained_with.get(label, 0))
        ]
    if declared.digest != found.digest and not differing:
        differing = ["no label, but how labels are normalised"]
    return differing
