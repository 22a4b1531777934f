"""Rows per second and peak memory of an index of 1,000,000 windows, beside those of 100,000.

    python -m benchmarks.window_index_scale [--rows 100000 1000000]

One synthetic episode is indexed for real; its windows, under other ids and frames, are the rows. Measured is
what ``index`` does with them: ``write`` the rows of each episode and join the files, ``read`` them back,
``check`` them with the window suite; and ``convert`` as many exported Qwen records. Each step runs in a
process of its own, so that its peak memory is its own; ``base`` only loads the libraries of ``check``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from omni_mlflow.expectations import check_suite
from omni_mlflow.frames import window_frame
from omni_mlflow.spine.dataset_records import convert_records
from omni_mlflow.spine.rows import join_files, read_rows, write_rows
from omni_mlflow.spine.types import Episode, Scale, Span, Split, Window

SUITE = Path(__file__).parents[1] / "expectations" / "window_index.yaml"
STRIDE = 10
WINDOWS_PER_EPISODE = 500
NUM_FRAMES = WINDOWS_PER_EPISODE * STRIDE + 20


class Cost(NamedTuple):
    rows_per_s: float
    peak_mib: float


def one_real_window(folder: Path) -> Window:
    """Write and index one synthetic episode."""
    from omni_mlflow.spine.indexing import IndexPlan, index_episode
    from omni_mlflow.spine.selection import scan_data_root
    from omni_mlflow.spine.synthetic import write_episode_set

    write_episode_set(folder / "data", sessions=1, frames=100, seed=3, anomalies="none", workers=1)
    (episode,), _ = scan_data_root(folder / "data")
    plan = IndexPlan(
        scales=(Scale(frames=20, stride=STRIDE),),
        frame_grid=4,
        context_frames=4,
        tile=(64, 64),
        min_label_share=0.6,
    )
    placed = episode.model_copy(update={"split": Split.TRAIN})
    return index_episode(placed, data_root=folder / "data", out=folder / "index", plan=plan).windows[0]


def episode_ids(rows: int) -> list[str]:
    return [f"session_{number:06d}__ep1" for number in range(-(-rows // WINDOWS_PER_EPISODE))]


def windows_of(episode_id: str, template: Window) -> Iterator[Window]:
    for start in range(0, WINDOWS_PER_EPISODE * STRIDE, STRIDE):
        span = Span(start=start, stop=start + 20)
        own = {"id": f"{episode_id}:20:{start}", "episode_id": episode_id, "span": span, "anchor": span.stop}
        yield template.model_copy(update=own)


def write(folder: Path, rows: int) -> int:
    [template] = read_rows(folder / "template.jsonl", Window)
    parts = []
    for number, episode_id in enumerate(episode_ids(rows)):
        left = rows - number * WINDOWS_PER_EPISODE
        parts.append(folder / "episodes" / f"{episode_id}.jsonl")
        write_rows(parts[-1], islice(windows_of(episode_id, template), left))
    join_files(folder / "window_index.jsonl", parts)
    return rows


def read(folder: Path, _rows: int) -> int:
    return sum(1 for _ in read_rows(folder / "window_index.jsonl", Window))


def check(folder: Path, rows: int) -> int:
    [template] = read_rows(folder / "template.jsonl", Window)
    episodes = [
        Episode(
            episode_id=name,
            session_id=template.session_id,
            path=name,
            split=template.split,
            num_frames=NUM_FRAMES,
            fps=template.fps,
            bytes_by_file={},
        )
        for name in episode_ids(rows)
    ]
    result = check_suite(SUITE, window_frame(read_rows(folder / "window_index.jsonl", Window), episodes))
    assert result.status == "pass", result.failures()
    return result.num_rows


def convert(folder: Path, _rows: int) -> int:
    return write_rows(
        folder / "converted.jsonl", (each for each in convert_records(folder / "dataset.jsonl"))
    )


def base(_folder: Path, rows: int) -> int:
    check_suite(SUITE, [])
    return rows


STEPS: tuple[Callable[[Path, int], int], ...] = (base, write, read, check, convert)


def write_records(folder: Path, rows: int) -> None:
    """Write exported Qwen records of 5 kB each, most of it a chat, as the published ones."""
    with (folder / "dataset.jsonl").open("w") as out:
        for number in range(rows):
            frames = {"start_frame": number * 20, "end_frame": number * 20 + 19}
            answer = dict.fromkeys(("action", "subtask", "next_action"), "Pour water")
            flags = {"objects": ["kettle"], "contact": "yes", "transition": "no"}
            record = {
                "id": f"kitchen__ep1:qa:{number}",
                "episode_id": "kitchen__ep1",
                "split": "train",
                "center_window": frames,
                "media": {"context_start_frame": 0, "context_end_frame": 119},
                "question": "What happens?",
                "answer_json": {**answer, **flags, "evidence_window": frames},
                "messages": [{"role": "user", "content": "- Known action label\n" * 200}],
            }
            out.write(json.dumps(record) + "\n")


def cost_of(step: Callable[[Path, int], int], folder: Path, rows: int) -> Cost:
    start = time.perf_counter()
    assert step(folder, rows) == rows
    seconds = time.perf_counter() - start
    return Cost(rows / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def prepare(folder: Path, rows: int) -> int:
    write_rows(folder / "template.jsonl", [one_real_window(folder)])
    write_records(folder, rows)
    return rows


def measure(folder: Path, rows: int) -> dict[str, Cost]:
    fresh = multiprocessing.get_context("spawn")
    costs = {}
    for step in (prepare, *STEPS):  # none here: a new process inherits the peak of its parent
        with ProcessPoolExecutor(1, mp_context=fresh) as alone:
            costs[step.__name__] = alone.submit(cost_of, step, folder, rows).result()
    del costs[prepare.__name__]
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[100_000, 1_000_000], metavar=("FEW", "MANY"))
    few, many = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        at_few, at_many = measure(Path(one), few), measure(Path(other), many)
    print(f"{'step':<9}{'rows/s':>12}{'peak MiB at ' + str(few):>24}{'at ' + str(many):>12}{'ratio':>8}")
    for name, cost in at_many.items():
        before = at_few[name].peak_mib
        speed = "" if name == "base" else f"{cost.rows_per_s:,.0f}"
        print(f"{name:<9}{speed:>12}{before:>24.0f}{cost.peak_mib:>12.0f}{cost.peak_mib / before:>8.2f}")


if __name__ == "__main__":
    main()
