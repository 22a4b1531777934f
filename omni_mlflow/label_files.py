"""Reads the files of labels that ``score`` is given, each a plain file of JSON, or refuses them in words."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

from omni_mlflow.metrics.answers import UNKNOWN
from omni_mlflow.metrics.label_ledger import LabelLedger
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import read_document

_GZIP = b"\x1f\x8b"


class UnusableFileError(Exception):
    """A file that ``score`` was given, or the folder to write to, cannot be used; nothing was scored."""


def read_label_options(path: Path) -> list[str]:
    """Read a JSON list of strings.

    Raises:
        UnusableFileError: it is something else; a CSV is not read.
    """
    labels = read_json(path)
    if not _is_list_of_labels(labels):
        raise UnusableFileError(
            f'{path} is no list of label options; write them as JSON, ["Cut bread", "Pour water"], in the '
            "order in which the model was offered them"
        )
    return list(labels)


def read_train_labels(path: Path) -> TrainPriors:
    """Read what train says: the action of each train sample, or everything that a checkpoint was fitted on.

    Raises:
        UnusableFileError: it is neither.
    """
    found = read_json(path)
    if isinstance(found, dict) and found.keys() >= TrainPriors.model_fields.keys():
        return read_document(path, TrainPriors)
    if not _labels_in(found):
        raise UnusableFileError(
            f"{path} holds no train labels; give a JSON list with the action of each train sample, repeated "
            "as often as it occurs, or the fitted.json of a checkpoint, which has floors for every question"
        )
    return TrainPriors.of_actions(found)


def read_declared_classes(path: Path) -> tuple[str, ...]:
    """Read the action classes that averages run over: a JSON list of labels, or a dataset's label ledger.

    Raises:
        UnusableFileError: it is neither.
    """
    found = read_json(path)
    if isinstance(found, dict) and found.keys() >= LabelLedger.model_fields.keys():
        ledger = read_document(path, LabelLedger)
        if not ledger.is_whole:
            raise UnusableFileError(
                f"{path} was changed: its labels are not those of its digest {ledger.digest[:16]}; "
                "take the file of the evaluation again, or give a JSON list of labels"
            )
        return ledger.classes
    classes = _labels_in(found)
    if not classes:
        raise UnusableFileError(
            f"{path} declares no classes; give a JSON list with every action label of the dataset, or the "
            "label_ledger.json of an evaluation"
        )
    return tuple(classes)


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where it is none, which no label file and no record of ours is.

    Raises:
        UnusableFileError: see :func:`refuse_what_is_no_plain_file`.
    """
    refuse_what_is_no_plain_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


def refuse_what_is_no_plain_file(path: Path) -> None:
    """Refuse what cannot be read twice, for its digest and to compare ids: a pipe, ``<(…)``, a device."""
    if not path.is_file():
        raise UnusableFileError(
            f"{path} is no regular file but a pipe or a device, which can be read only once; write its "
            "content to a file first, and name that"
        )
    with path.open("rb") as file:
        begins = file.read(3)
    if begins.startswith(_GZIP):
        raise UnusableFileError(f"{path} is compressed; unpack it first, such as with 'gunzip --keep'")
    if begins == BOM_UTF8:
        raise UnusableFileError(
            f"{path} begins with a byte order mark (UTF-8 BOM), which is no part of JSON; save it without one"
        )


def _labels_in(value: Any) -> list[str]:
    """The labels of a list of them, without what stands for none; none where it is something else."""
    return [label for label in value if label != UNKNOWN] if _is_list_of_labels(value) else []


def _is_list_of_labels(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(label, str) and label and not _has_half_a_character(label) for label in value
    )


def _has_half_a_character(text: str) -> bool:
    r"""Tell whether a text holds a lone surrogate, such as ``\ud800``, which no file can be written with."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
