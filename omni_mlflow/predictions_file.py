"""Reads a predictions file that somebody else may have written: each row, and all that is wrong, by line."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.metrics.answers import (
    LABEL_QUESTIONS,
    PredictionRow,
    frames_of,
    read_reply,
    true_answer,
)
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import Outcome, Split

REQUIRED = (
    "id",
    "episode_id",
    "split",
    "center_window",
    "true_json",
    "pred_json",
    "raw_prediction",
    "true_label",
    "predicted_label",
    "true_label_seen_in_train",
)
"""The published columns that a metric reads; ``correct`` is computed again, others are ignored.

An ``outcome`` is read where it is one of ours.
"""

_UNREAD = 0
_NO_WINDOW = "no window: start_frame and end_frame, whole numbers from 0 in this order"


class PredictionsFile:
    """One pass over a predictions file, in eight bytes of memory per row, and its labels.

    Attributes:
        problems: line numbers by what is wrong with them; complete once :meth:`rows` is exhausted.
        sha256: of the bytes that were read.
        num_rows: lines that could be scored.
        num_answers_not_in_reply: rows whose ``pred_json`` is not what ``raw_prediction`` says. Published
            definitions grade ``pred_json``.
        num_labels_not_in_answer: rows whose ``predicted_label`` is not the action of ``pred_json``. Published
            definitions grade ``predicted_label``.
        num_empty: rows without any reply.
        num_foreign_outcomes: rows whose ``outcome`` is none of ours, a column of the engine's own.
        foreign_outcome: the first of those, as text.
        num_answers_with: rows by question that they answer at all, be it wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: dict[str, list[int]] = {}
        self.sha256 = ""
        self.num_rows = 0
        self.num_answers_not_in_reply = 0
        self.num_labels_not_in_answer = 0
        self.num_empty = 0
        self.num_foreign_outcomes = 0
        self.foreign_outcome = ""
        self.num_answers_with: Counter[str] = Counter()
        self._ids = array("Q")
        self._first_of: dict[str, tuple[bool, int]] = {}  # by true label: whether train shows it; the line

    def rows(self) -> Iterator[PredictionRow]:
        """Yield each row that can be scored; ids that occur twice are found at the end."""
        digest = hashlib.sha256()
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                digest.update(line)
                row, wrong = read_row(line)
                if row is not None and not wrong:
                    wrong = list(self._contradicted(row, number))
                for what in wrong:
                    self.problems.setdefault(what, []).append(number)
                self._ids.append(_key(row["id"]) if row is not None else _UNREAD)
                if row is not None and not wrong:
                    self._count(row)
                    yield self._with_our_outcome(row)
        self.sha256 = digest.hexdigest()
        for what, numbers in self._doubled():
            self.problems[what] = numbers
        if not self._ids:
            self.problems["the file holds no row"] = [1]

    def _count(self, row: PredictionRow) -> None:
        """What is graded all the same, and a reader of the numbers has to know."""
        reply, answer, label = row["raw_prediction"], row["pred_json"], row["predicted_label"]
        action = answer.get("action")
        # What stands as label of an answer without an action grades nothing, unless it is the truth.
        said = action if isinstance(action, str) else (None if label == row["true_label"] else label)
        self.num_rows += 1
        self.num_answers_not_in_reply += answer != (read_reply(reply).answer or {})
        self.num_labels_not_in_answer += said != label
        self.num_empty += not reply.strip()
        self.num_answers_with.update(name for name, value in answer.items() if value is not None)
        self.num_answers_with["action"] += label is not None and "action" not in answer

    def _with_our_outcome(self, row: PredictionRow) -> PredictionRow:
        """The row without an outcome that is none of ours: an engine's own word for how a request ended."""
        outcome = row.get("outcome")
        if outcome in tuple(Outcome):
            return row
        if outcome is not None:
            self.num_foreign_outcomes += 1
            self.foreign_outcome = self.foreign_outcome or f"{outcome!r:.40}"
        return {name: value for name, value in row.items() if name != "outcome"}

    def _contradicted(self, row: PredictionRow, number: int) -> Iterator[str]:
        """Train shows a label or does not: each row of it says the same."""
        label, seen = row["true_label"], bool(row["true_label_seen_in_train"])
        first, line = self._first_of.setdefault(label, (seen, number))
        if first is not seen:
            yield f"true_label_seen_in_train of {label!r} is another than in line {line}"

    def _doubled(self) -> Iterator[tuple[str, list[int]]]:
        """Ids that occur again. Equal keys only say where to look; the ids themselves are compared."""
        keys = np.frombuffer(self._ids, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]) & (keys[order[1:]] != _UNREAD))
        suspects = {int(order[place]) + 1 for place in (*again, *(again + 1))}
        lines_of: dict[str, list[int]] = {}
        if suspects:
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if number in suspects:
                        lines_of.setdefault(strict_json(line.decode())["id"], []).append(number)
        for sample, numbers in lines_of.items():
            if len(numbers) > 1:
                yield f"id {sample!r} is there already, in line {numbers[0]}", numbers[1:]


def read_row(line: bytes) -> tuple[PredictionRow | None, list[str]]:
    """Return the row of one line and all that is wrong with it; no row where its id cannot be read.

    An answer that cannot be read is an answer, and a wrong one; a line that cannot be read is a problem.
    """
    try:
        row = strict_json(line.decode("utf-8"))
    except ValueError as error:
        return None, [f"not JSON: {error}"]
    if not isinstance(row, dict):
        return None, [f"a JSON {type(row).__name__}, not an object"]
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        return (row if _is_text(row.get("id")) else None), [f"no {', '.join(missing)}"]
    wrong = list(_wrong_truth(row))
    if not _is_text(row["id"]):
        return None, wrong
    if wrong:
        return row, wrong
    row = _with_readable_answer(row)
    return row, list(_untrue_outcome(row))


def _untrue_outcome(row: PredictionRow) -> Iterator[str]:
    """An outcome counts what was graded, so it says what the row holds."""
    holds_an_answer = bool(row["pred_json"] or row["predicted_label"])
    outcome = row.get("outcome")
    if outcome == Outcome.MODEL_INVALID and holds_an_answer:
        yield "model_invalid, yet pred_json or predicted_label holds an answer; call it answered or empty it"
    if outcome == Outcome.ANSWERED and not holds_an_answer:
        yield "answered, yet neither pred_json nor predicted_label holds an answer; call it model_invalid"


def _wrong_truth(row: dict[str, Any]) -> Iterator[str]:
    for name in ("id", "episode_id", "true_label"):
        if not _is_text(row[name]):
            yield f"{name} is no text"
    if row["split"] != Split.TEST:
        yield f"of split {row['split']!r}, not of {Split.TEST.value!r}"
    if row["true_label_seen_in_train"] not in (0, 1):
        yield "true_label_seen_in_train is neither 0 nor 1"
    if row.get("outcome") == Outcome.INFRASTRUCTURE_FAILED:
        yield "infrastructure_failed: nobody answered; ask this sample again"
    if frames_of(row["center_window"]) is None:
        yield f"center_window is {_NO_WINDOW}"
    if isinstance(row["true_json"], dict):
        yield from _wrong_true_answers(row)
    else:
        yield "true_json is no object"


def _wrong_true_answers(row: dict[str, Any]) -> Iterator[str]:
    truth = row["true_json"]
    for question in LABEL_QUESTIONS:
        if truth.get(question) is not None and not _is_text(truth[question]):
            yield f"true_json.{question} is no text"
    if "objects" in truth and not _is_list_of_texts(truth["objects"]):
        yield "true_json.objects is no list of texts"
    window = true_answer(row, "evidence_window")
    if window is not None and frames_of(window) is None:
        yield f"true_json.evidence_window is {_NO_WINDOW}"
    if truth.get("action", row["true_label"]) != row["true_label"]:
        yield "true_label is not the action of true_json"


def _with_readable_answer(row: dict[str, Any]) -> PredictionRow:
    """The row with empty answers in place of those that are no answer at all."""
    label, raw = row["predicted_label"], row["raw_prediction"]
    return {
        **row,
        "pred_json": row["pred_json"] if isinstance(row["pred_json"], dict) else {},
        "raw_prediction": raw if isinstance(raw, str) else "",
        # half a surrogate pair can be read but not written
        "predicted_label": label.encode(errors="replace").decode() if isinstance(label, str) else None,
    }


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(each) for each in value)


def _key(sample: str) -> int:
    """Eight bytes that two ids hardly ever share; 0 is kept for lines without one."""
    return int.from_bytes(hashlib.blake2b(sample.encode(), digest_size=8).digest()) or 1


def ranges(numbers: Iterable[int]) -> str:
    """Spell ascending line numbers: ``line 3`` or ``lines 3, 5-9``."""
    runs = []
    for _, members in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in members]
        runs.append(f"{found[0]}" if len(found) == 1 else f"{found[0]}-{found[-1]}")
    several = len(runs) > 1 or "-" in runs[0]
    return f"line{'s' if several else ''} {', '.join(runs)}"
