"""How long does it take to score a whole test split, and what memory does one thirty times as long take?

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation_scale [--rows 34269 100000 1000000] [--episodes 16 467]

Writes a predictions file of published rows (1,200 actions, every question answered, a tenth of the replies no
JSON), then scores it as ``omni-mlflow score`` does, with every metric, floor and interval, in a process of
its own. Every number of rows is spread over every number of episodes: memory grows with the pairs of an
episode and a label in it, not with rows. Goals: 34,269 rows in 10 seconds; 1,000,000 rows in at most 1.2
times the memory of 100,000; 10,000 paired resamples in 5 seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Labels, Span, Target

ACTIONS = [f"Place the {number}th object on the shelf" for number in range(1200)]
OBJECTS = [f"object {number}" for number in range(40)]
CPU_SECONDS = "seconds of processor"


def labels_of(random: np.random.Generator) -> Labels:
    now, after = (min(int(random.geometric(0.01)), len(ACTIONS)) - 1 for _ in range(2))
    return Labels(
        action=ACTIONS[now],
        subtask=ACTIONS[now // 10],
        objects=tuple(OBJECTS[place] for place in random.choice(len(OBJECTS), 3, replace=False)),
        in_contact=bool(random.random() < 0.7),
        transition=bool(random.random() < 0.03),
        next_action=ACTIONS[after],
    )


def write_predictions(path: Path, rows: int, *, episodes: int, seed: int) -> None:
    """Draw a thousand truths and replies, and combine them anew in each row."""
    random = np.random.default_rng(seed)
    answers = [answer(labels_of(random)) for _ in range(1000)]
    with path.open("w", encoding="utf-8") as out:
        for number in range(rows):
            truth, given = (answers[place] for place in random.integers(0, len(answers), 2))
            window = {"start_frame": 10 * number, "end_frame": 10 * number + 19}
            truth = {**truth, "evidence_window": window}
            given = {**(truth if number % 3 == 0 else given), "evidence_window": window}
            sample = f"session-{number % episodes:04}__ep1:qa:{number}"
            raw = "I cannot tell" if number % 10 == 9 else json.dumps(given)
            out.write(json.dumps(published(sample, window, truth, given, raw)) + "\n")


def answer(labels: Labels) -> dict[str, object]:
    return {
        "action": labels.action,
        "subtask": labels.subtask,
        "objects": list(labels.objects or ()),
        "contact": "yes" if labels.in_contact else "no",
        "transition": "yes" if labels.transition else "no",
        "next_action": labels.next_action,
    }


def published(sample: str, window: dict, truth: dict, given: dict, raw: str) -> dict[str, object]:
    readable = raw.startswith("{")
    said = given["action"] if readable else raw
    return {
        "id": sample,
        "target": "episode_qa",
        "split": "test",
        "episode_id": sample.partition(":")[0],
        "center_window": {**window, "num_frames": 20},
        "true_label": truth["action"],
        "raw_prediction": raw,
        "true_json": truth,
        "pred_json": given if readable else {},
        "predicted_label": said,
        "correct": int(said == truth["action"]),
        "true_label_seen_in_train": int(truth["action"] != ACTIONS[0]),
    }


def score_apart(folder: Path, results: multiprocessing.Queue) -> None:
    """Score in this process; report seconds and the largest memory it ever had, in MiB."""
    from omni_mlflow.score import Request, score

    begin = time.process_time()
    found = score(
        Request(
            predictions=folder / "predictions.jsonl",
            label_options=folder / "options.json",
            train_labels=folder / "fitted.json",
            declared_classes=folder / "options.json",
            engine=None,
            out=folder / "scored",
        )
    )
    assert not found.problems
    seconds = time.process_time() - begin
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measured(folder: Path) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=score_apart, args=(folder, results))
    process.start()
    found = results.get()
    process.join()
    return found


def seconds_of_paired_resamples(episodes: int) -> float:
    """Seconds for the studentised bootstrap of one paired difference."""
    from omni_mlflow.metrics.uncertainty import RESAMPLES, mean_estimate, studentised_bootstrap

    random = np.random.default_rng(5)
    names = [f"episode {place % episodes:02}" for place in range(34_269)]
    one, other = (mean_estimate(random.integers(0, 2, len(names)).tolist(), names) for _ in range(2))
    begin = time.process_time()
    studentised_bootstrap(one - other)
    return (time.process_time() - begin) * 10_000 / RESAMPLES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[34_269, 100_000, 1_000_000])
    parser.add_argument("--episodes", type=int, nargs="+", default=[16, 467])
    given = parser.parse_args()
    random = np.random.default_rng(3)
    targets = [
        Target(
            id=f"t{i}", episode_id="train", anchor=20, span=Span(start=0, stop=20), labels=labels_of(random)
        )
        for i in range(2000)
    ]
    print(f"{'episodes':>10}{'rows':>10}{CPU_SECONDS:>24}{'rows per second':>18}{'peak MiB':>11}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "options.json").write_text(json.dumps(ACTIONS))
        write_document(folder / "fitted.json", TrainPriors.fit(targets))
        for episodes, rows in product(given.episodes, given.rows):
            write_predictions(folder / "predictions.jsonl", rows, episodes=episodes, seed=rows)
            seconds, peak = measured(folder)
            print(f"{episodes:>10}{rows:>10}{seconds:>24.1f}{rows / seconds:>18.0f}{peak:>11.0f}", flush=True)
    for episodes in given.episodes:
        seconds = seconds_of_paired_resamples(episodes)
        print(f"10,000 paired resamples of {episodes} episodes: {seconds:.3f} {CPU_SECONDS}")


if __name__ == "__main__":
    main()
