"""What tracking costs a stage: the same stage with and without it, taking turns; medians of the pairs.

    python benchmarks/tracking_cost.py [--rows 10000] [--work-ms 10] [--pairs 5]

A stage does ``work-ms`` milliseconds of computation per row and appends each row to its ``progress.jsonl``,
without waiting for the disk. Without tracking there is nothing else: no journal of its run, no projector
process. With tracking it also records two metrics per row in the run's journal, while a projector brings them
to a SQLite store. The stage's time begins before the projector is started and ends when the stage has written
its last row; the final pass, which the command waits for after that, is the same for a long stage and a
short one, and stands beside it. Each stage is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from omni_mlflow.events import RunOutcome
from omni_mlflow.journal import Journal
from omni_mlflow.record import RunRecord
from omni_mlflow.tracking import start_projector
from omni_mlflow.tracking.connection import connect


def work_units(milliseconds: float) -> int:
    """Return how many rounds of :func:`compute` take so long on this machine."""
    rounds = 200_000
    times = []
    for _ in range(7):
        start = time.process_time()
        compute(rounds)
        times.append(time.process_time() - start)
    return round(rounds * milliseconds / 1000 / min(times))


def compute(rounds: int) -> float:
    total = 0.0
    for number in range(rounds):
        total += number * 0.5
    return total


def work(progress: Journal, record: RunRecord | None, *, rows: int, rounds: int) -> None:
    for step in range(rows):
        loss = 1 / (1 + step) + compute(rounds) * 0
        progress.note({"event": "step", "step": step, "loss": loss})
        if record is not None:
            record.metrics({"train/loss": loss, "train/data_wait": 0.01}, step=step)


def plain_stage(folder: Path, *, rows: int, rounds: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    with Journal(folder / "progress.jsonl") as progress:
        work(progress, None, rows=rows, rounds=rounds)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def tracked_stage(folder: Path, *, rows: int, rounds: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    projector = start_projector(folder / "workspace", store=f"sqlite:///{folder}/mlflow.db")
    record = RunRecord(folder / "workspace" / "train")
    record.started("train", parent=None, mlflow_run_id=None, mlflow_experiment_id=None)
    started = time.perf_counter() - wall
    with Journal(record.folder / "progress.jsonl") as progress:
        record.live_artifact(progress.path)
        work(progress, record, rows=rows, rounds=rounds)
    record.ended("FINISHED", RunOutcome.OK)
    record.close()
    worked, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    report = projector.finish(600)
    assert report.complete, report.sentence
    return {
        "wall_s": worked,
        "cpu_s": cpu_s,
        "start_s": started,
        "final_pass_s": time.perf_counter() - wall - worked,
        "projector_cpu_s": _cpu_of_ended_children(),
    }


def _cpu_of_ended_children() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


STAGES = {"plain": plain_stage, "tracked": tracked_stage}


def run_alone(kind: str, *, empty_store: Path, rows: int, rounds: int) -> dict[str, float]:
    """Run one stage in a process of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(empty_store, Path(folder) / "mlflow.db")
        command = [sys.executable, __file__, "--stage", kind, "--folder", folder]
        command += ["--rows", str(rows), "--rounds", str(rounds)]
        done = subprocess.run(command, check=True, capture_output=True)
    return dict(json.loads(done.stdout))


def measure(*, rows: int, work_ms: float, pairs: int) -> dict[str, Any]:
    rounds = work_units(work_ms)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mlflow.db"
        connect(f"sqlite:///{store}", workspace=Path(folder) / "none")  # made once, as in a project that runs
        both = []
        for number in range(pairs):
            order = list(STAGES) if number % 2 == 0 else list(reversed(STAGES))
            took = {kind: run_alone(kind, empty_store=store, rows=rows, rounds=rounds) for kind in order}
            both.append((took["plain"], took["tracked"]))

    def of_pairs(key: str, kind: int) -> float:
        return round(median(pair[kind][key] for pair in both), 3)

    added = {key: [tracked[key] - plain[key] for plain, tracked in both] for key in ("wall_s", "cpu_s")}
    return {
        "rows": rows,
        "work_ms_per_row": work_ms,
        "pairs": pairs,
        "plain_wall_s": of_pairs("wall_s", 0),
        "tracked_wall_s": of_pairs("wall_s", 1),
        "wall_ratio": round(median(tracked["wall_s"] / plain["wall_s"] for plain, tracked in both), 4),
        "wall_ratios": [round(tracked["wall_s"] / plain["wall_s"], 4) for plain, tracked in both],
        "plain_cpu_s": of_pairs("cpu_s", 0),
        "stage_cpu_ratio": round(median(tracked["cpu_s"] / plain["cpu_s"] for plain, tracked in both), 4),
        "added_wall_ms_per_row": round(1000 * median(added["wall_s"]) / rows, 4),
        "added_cpu_ms_per_row": round(1000 * median(added["cpu_s"]) / rows, 4),
        "projector_cpu_s": of_pairs("projector_cpu_s", 1),
        "start_s": of_pairs("start_s", 1),
        "final_pass_s": of_pairs("final_pass_s", 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--work-ms", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--stage", choices=STAGES, help="run only this, and say what it took")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int)
    chosen = parser.parse_args()
    if chosen.stage is None:
        found = measure(rows=chosen.rows, work_ms=chosen.work_ms, pairs=chosen.pairs)
    else:
        found = STAGES[chosen.stage](chosen.folder, rows=chosen.rows, rounds=chosen.rounds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
