"""The label ledger: every action label of a dataset, declared before anything is predicted.

Averages of our own run over these classes, so that neither a model nor a test split can add or drop one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Self

from omni_mlflow.spine.rows import digest_of
from omni_mlflow.spine.types import SCHEMA_VERSION, Row, Split

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]+")


class LabelCounts(Row):
    """How many samples of each split have this action label."""

    label: str
    train: int
    val: int
    test: int


class LabelLedger(Row):
    """``label_ledger.json``.

    Attributes:
        digest: sha256 over all labels with their counts and the aliases.
        labels: every label of the dataset, ascending; labels are compared letter by letter.
        aliases: labels that differ in case, spaces or punctuation only, by their normal form. They are told,
            not merged: published metrics hold them apart.
        unseen_share: share of a split's labelled samples whose label train does not have; None without any.
    """

    schema_version: int = SCHEMA_VERSION
    digest: str
    labels: tuple[LabelCounts, ...]
    aliases: dict[str, tuple[str, ...]]
    unseen_share: dict[Split, float | None]

    @classmethod
    def of(cls, counts: Mapping[Split, Mapping[str, int]]) -> Self:
        """Make the ledger of a dataset from its number of samples by split and label."""
        names = sorted({label for of_split in counts.values() for label in of_split})
        labels = tuple(
            LabelCounts(label=name, **{split.value: counts.get(split, {}).get(name, 0) for split in Split})
            for name in names
        )
        forms: dict[str, list[str]] = {}
        for name in names:
            forms.setdefault(normal_form(name), []).append(name)
        aliases = {form: tuple(found) for form, found in sorted(forms.items()) if len(found) > 1}
        return cls(
            digest=_digest(labels, aliases),
            labels=labels,
            aliases=aliases,
            unseen_share={split: _unseen_share(labels, split) for split in (Split.VAL, Split.TEST)},
        )

    @property
    def is_whole(self) -> bool:
        """Tell whether the labels are those that the digest was taken of."""
        return self.digest == _digest(self.labels, self.aliases)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(each.label for each in self.labels)

    def summary(self) -> dict[str, Any]:
        """What ``metrics.json`` says of it, so that no number is read without the classes behind it."""
        return {
            "digest": self.digest,
            "num_classes": len(self.labels),
            "unseen_share_of_test": self.unseen_share[Split.TEST],
            "spellings_told_apart": sum(len(spellings) for spellings in self.aliases.values()),
        }

    def drift_to(self, other: Self) -> list[str]:
        """Say of every label that differs what this ledger and ``other`` count of it."""
        here, there = ({each.label: each for each in ledger.labels} for ledger in (self, other))
        return [
            f"{label!r}: {_told(here.get(label))}, now {_told(there.get(label))}"
            for label in sorted({*here, *there})
            if here.get(label) != there.get(label)
        ]


def _digest(labels: Iterable[LabelCounts], aliases: Mapping[str, Iterable[str]]) -> str:
    return digest_of([[each.model_dump() for each in labels], aliases, SCHEMA_VERSION])


def normal_form(label: str) -> str:
    """Letters and digits in lower case, with single spaces between words."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    return _NEITHER_LETTER_NOR_DIGIT.sub(" ", folded).strip()


def _unseen_share(labels: tuple[LabelCounts, ...], split: Split) -> float | None:
    of_split = [(getattr(each, split.value), each.train) for each in labels]
    total = sum(count for count, _ in of_split)
    return sum(count for count, in_train in of_split if not in_train) / total if total else None


def _told(counts: LabelCounts | None) -> str:
    return f"{counts.train}/{counts.val}/{counts.test}" if counts else "absent"
