"""What tracking costs a stage: the same work with and without it, as a share of the stage's time.

    python benchmarks/tracking_cost.py [--rows 10000] [--work-ms 5]

Both stages do ``work-ms`` milliseconds of computation per row and append a row to their own
``progress.jsonl``. One of them also records two metrics per row, while a projector brings them to a SQLite
store. The stages take turns, in blocks, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from omni_mlflow.events import RunOutcome
from omni_mlflow.journal import Journal
from omni_mlflow.record import RunRecord
from omni_mlflow.tracking import start_projector

BLOCKS = 10


@dataclass
class Cost:
    """Seconds a stage took: on the clock, and of the processor in its own process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


def work_units(milliseconds: float) -> int:
    """Return how many rounds of :func:`compute` take so long on this machine."""
    rounds = 200_000
    start = time.process_time()
    compute(rounds)
    return round(rounds * milliseconds / 1000 / (time.process_time() - start))


def compute(rounds: int) -> float:
    total = 0.0
    for number in range(rounds):
        total += number * 0.5
    return total


def run_block(progress: Journal, record: RunRecord | None, steps: range, *, rounds: int, cost: Cost) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    for step in steps:
        loss = 1 / (1 + step) + compute(rounds) * 0
        progress.append({"event": "step", "step": step, "loss": loss})
        if record is not None:
            record.metrics({"train/loss": loss, "train/data_wait": 0.01}, step=step)
    cost.wall_s += time.perf_counter() - wall
    cost.cpu_s += time.process_time() - cpu


def measure(folder: Path, *, rows: int, work_ms: float) -> dict[str, float]:
    rounds = work_units(work_ms)
    projector = start_projector(folder / "workspace", store=f"sqlite:///{folder}/mlflow.db")
    record = RunRecord(folder / "workspace" / "train")
    record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
    without, tracked = Cost(), Cost()
    block = rows // BLOCKS
    with Journal(folder / "plain.jsonl") as plain, Journal(record.folder / "progress.jsonl") as progress:
        record.live_artifact(progress.path)
        for start in range(0, block * BLOCKS, block):
            steps = range(start, start + block)
            run_block(plain, None, steps, rounds=rounds, cost=without)
            run_block(progress, record, steps, rounds=rounds, cost=tracked)
    record.ended("FINISHED", RunOutcome.OK)
    record.close()
    start_s = time.perf_counter()
    report = projector.finish(600)
    assert report.complete, report.sentence
    return {
        "rows": block * BLOCKS,
        "work_ms_per_row": work_ms,
        "without_wall_s": round(without.wall_s, 2),
        "tracked_wall_s": round(tracked.wall_s, 2),
        "wall_ratio": round(tracked.wall_s / without.wall_s, 4),
        "cpu_ratio": round(tracked.cpu_s / without.cpu_s, 4),
        "added_ms_per_row": round(1000 * (tracked.wall_s - without.wall_s) / (block * BLOCKS), 4),
        "final_pass_s": round(time.perf_counter() - start_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--work-ms", type=float, default=5.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), rows=chosen.rows, work_ms=chosen.work_ms), indent=2))


if __name__ == "__main__":
    main()
