"""What it costs an evaluation that every answer survives ``kill -9``, as a share of a sample's 7 seconds.

    python -m benchmarks.answer_journal [--samples 4000]

One sample at a time is the worst case: each answer is a row and an fsync of its own, and a row of progress.
A resume reads all of it again, once; that is told beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from omni_mlflow.journal import Journal
from omni_mlflow.spine.types import Answer, Outcome, Sample, Span, Split
from omni_mlflow.stages.answering import AnswerJournal, answer_all

SECONDS_PER_SAMPLE = 7.0
BOUND = 0.001
REPLY = json.dumps(
    {
        "action": "Cut the bread with the long knife",
        "subtask": "Prepare the sandwiches for the guests",
        "objects": ["bread", "knife", "board", "plate"],
        "contact": "yes",
        "transition": "no",
        "next_action": "Lay the slices on the plate",
        "evidence_window": {"start_frame": 1200, "end_frame": 1219},
    }
)


class Instant:
    """Answers at once: all the time that is left is the journal's."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def answer(self, samples: Sequence[Sample]) -> list[Answer]:
        return [
            Answer(
                id=each.id,
                episode_id=each.episode_id,
                anchor=each.anchor,
                outcome=Outcome.ANSWERED,
                raw=REPLY,
            )
            for each in samples
        ]


def held_out(count: int) -> list[Sample]:
    return [
        Sample(
            id=f"kitchen__ep1:20:{number}",
            episode_id="kitchen__ep1",
            split=Split.TEST,
            anchor=number + 20,
            observed=Span(start=number, stop=number + 20),
            inputs={},
        )
        for number in range(count)
    ]


def seconds(folder: Path, samples: Sequence[Sample], *, batch_size: int) -> float:
    """Ask every sample, or read that all are answered, and return the time it took."""
    ids = [sample.id for sample in samples]
    place_of = {each: place for place, each in enumerate(ids)}
    start = time.perf_counter()
    with Journal(folder / "partial.jsonl") as partial, Journal(folder / "progress.jsonl") as progress:
        journal = AnswerJournal(partial, {"checkpoint": "0"}, batch_size=lambda: batch_size)
        answer_all(
            journal,
            "intact",
            ids,
            as_asked=lambda missing: [samples[place_of[each]] for each in missing],
            predictor=lambda: Instant(batch_size),
            batch_size=batch_size,
            on_batch=lambda done: progress.append({"event": "sample", "answered": done}),
        )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    count = parser.parse_args().samples
    samples = held_out(count)
    for batch_size in (1, 8, 32):
        with tempfile.TemporaryDirectory() as folder:
            first = seconds(Path(folder), samples, batch_size=batch_size)
            again = seconds(Path(folder), samples, batch_size=batch_size)
        share = first / count / SECONDS_PER_SAMPLE
        print(
            f"batch {batch_size:>2}: {1000 * first / count:.3f} ms per sample, {share:.4%} of "
            f"{SECONDS_PER_SAMPLE:g} s ({'within' if share <= BOUND else 'ABOVE'} {BOUND:.1%}); "
            f"resume over {count} answers {again:.2f} s"
        )


if __name__ == "__main__":
    main()
