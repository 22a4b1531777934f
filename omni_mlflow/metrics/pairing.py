"""Predictions of several models side by side: the same anchors, the same truth, the questions all answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from omni_mlflow.metrics.answers import PredictionRow, given_answer, true_answer
from omni_mlflow.metrics.errors import UnpairedError
from omni_mlflow.metrics.questions import METRIC_OF, ROW_SCORES

Anchor = tuple[str, int, str]
"""Episode, frame of the anchor, and the window's id where one anchor is asked about several windows."""


@dataclass(frozen=True)
class Pairing:
    """The anchors that every run answers.

    Attributes:
        anchors: ascending.
        rows: by run, one prediction row per anchor, in the order of ``anchors``.
        outside: by run, one row of another run for each anchor that this run does not answer.
    """

    anchors: tuple[Anchor, ...]
    rows: Mapping[str, tuple[PredictionRow, ...]]
    outside: Mapping[str, tuple[PredictionRow, ...]]

    @property
    def num_episodes(self) -> int:
        return len({episode for episode, _, _ in self.anchors})


def pair(runs: Mapping[str, Sequence[PredictionRow]]) -> Pairing:
    """Find the anchors that all runs answer.

    Args:
        runs: prediction rows by name of the run; the order of rows does not matter.

    Raises:
        UnpairedError: a run answers one window twice, or no anchor is answered by all.
    """
    crowded = {place for rows in runs.values() for place in _asked_repeatedly(rows)}
    keyed = {name: _by_anchor(name, rows, crowded) for name, rows in runs.items()}
    everywhere = {anchor: row for rows in keyed.values() for anchor, row in rows.items()}
    common = sorted(anchor for anchor in everywhere if all(anchor in rows for rows in keyed.values()))
    if not common:
        raise UnpairedError("no anchor is answered by every run, so there is nothing to pair")
    return Pairing(
        anchors=tuple(common),
        rows={name: tuple(rows[anchor] for anchor in common) for name, rows in keyed.items()},
        outside={
            name: tuple(everywhere[anchor] for anchor in sorted(everywhere.keys() - rows.keys()))
            for name, rows in keyed.items()
        },
    )


def contradictions(pairing: Pairing, questions: Collection[str]) -> Iterator[str]:
    """Say at which anchors, and on which question, two runs were scored against different truths."""
    (first, rows), *others = pairing.rows.items()
    for name, theirs in others:
        for (episode, frame, _), ours, other in zip(pairing.anchors, rows, theirs, strict=True):
            for question in questions:
                true, told = (_comparable(true_answer(row, question)) for row in (ours, other))
                if true != told:
                    yield f"{episode}, frame {frame}: {question} is {true!r} in {first}, {told!r} in {name}"


def shared_questions(
    asked: Mapping[str, Collection[str]], pairing: Pairing
) -> tuple[list[str], dict[str, str]]:
    """Return the questions to compare, in the order of reports, and why each other one is left out.

    Args:
        asked: by run, what its contract asks.
    """
    everything = dict.fromkeys(chain.from_iterable(asked.values()))
    rows = next(iter(pairing.rows.values()))
    shared, left_out = [], {}
    for question in sorted(everything, key=_in_report_order):
        lacking = [name for name, questions in asked.items() if question not in questions]
        if lacking:
            left_out[question] = f"not asked by {', '.join(lacking)}"
        elif question not in METRIC_OF:
            left_out[question] = "no metric grades it answer by answer"
        elif not num_graded(rows, question):
            left_out[question] = "nobody annotated it at these anchors"
        else:
            shared.append(question)
    return shared, left_out


def num_graded(rows: Iterable[PredictionRow], question: str) -> int:
    """How many rows take part in a question's metric: those whose truth is known."""
    score = ROW_SCORES[METRIC_OF[question]]
    return sum(score(row) is not None for row in rows)


def disagreements(pairing: Pairing, questions: Iterable[str]) -> list[dict[str, Any]]:
    """Return one row for each question and anchor at which two runs answer differently.

    Beside the truth stand the answer of each run and whether it is right: 1 or 0, nothing where nobody
    annotated the truth.
    """
    found = []
    for question in questions:
        for place, (episode, frame, _) in enumerate(pairing.anchors):
            rows = {name: answered[place] for name, answered in pairing.rows.items()}
            answers = {name: _comparable(given_answer(row, question)) for name, row in rows.items()}
            if len(set(answers.values())) == 1:
                continue
            first = next(iter(rows.values()))
            found.append(
                {
                    "episode_id": episode,
                    "anchor": frame,
                    "id": first["id"],
                    "question": question,
                    "truth": _told(_comparable(true_answer(first, question))),
                    **{f"answer_{name}": _told(answer) for name, answer in answers.items()},
                    **{f"right_{name}": _is_right(row, question) for name, row in rows.items()},
                }
            )
    return found


def _asked_repeatedly(rows: Iterable[PredictionRow]) -> set[tuple[str, int]]:
    counts = Counter((str(row["episode_id"]), int(row["anchor"])) for row in rows)
    return {place for place, count in counts.items() if count > 1}


def _by_anchor(
    name: str, rows: Iterable[PredictionRow], crowded: Collection[tuple[str, int]]
) -> dict[Anchor, PredictionRow]:
    found: dict[Anchor, PredictionRow] = {}
    for row in rows:
        episode, frame = str(row["episode_id"]), int(row["anchor"])
        anchor = (episode, frame, str(row["id"]) if (episode, frame) in crowded else "")
        if anchor in found:
            raise UnpairedError(f"{name} answers {row['id']} twice; evaluate it again")
        found[anchor] = row
    return found


def _in_report_order(question: str) -> int:
    order = list(METRIC_OF)
    return order.index(question) if question in order else len(order)


def _comparable(answer: Any) -> Any:
    """An answer that can be compared and hashed; lists are sets of names."""
    if isinstance(answer, Mapping):
        return tuple(sorted((str(key), _comparable(value)) for key, value in answer.items()))
    if isinstance(answer, list | tuple):
        return tuple(sorted({str(each) for each in answer}))
    return answer


def _told(answer: Any) -> str:
    if answer is None:
        return ""
    return ", ".join(map(str, answer)) if isinstance(answer, tuple) else str(answer)


def _is_right(row: PredictionRow, question: str) -> int | None:
    part = ROW_SCORES[METRIC_OF[question]](row)
    return None if part is None else int(part[0] == part[1])
