"""How long does it take to plan a pilot from a listing as large as the whole data set?

    OMP_NUM_THREADS=1 python -m benchmarks.selection_scale [--episodes 12103]

Writes a CSV listing of seven files per episode, in sessions of fifteen, with sizes drawn around those of the
data set, then reads it, checks completeness, measures bands and picks 128 by the published rule. Peak memory
is that of the whole process. Goal: at most 5 seconds.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from omni_mlflow.spine.listing import EPISODE_FILES, complete_episodes, read_listing
from omni_mlflow.spine.size_bands import SizeBandRule, measure, pick

T = TypeVar("T")
CHUNK_FRAMES = (5104, 5853, 5947, 5998)
BYTES_PER_FRAME = 331_756


def write_listing(path: Path, *, episodes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = random.choice(CHUNK_FRAMES, episodes) - random.integers(0, 60, episodes)
    lines = ["path,bytes"]
    for place, count in enumerate(frames.tolist()):
        folder = f"session-{place // 15:05}/ep{place % 15 + 1}"
        lines.append(f"{folder}/{EPISODE_FILES[0]},{count * BYTES_PER_FRAME}")
        lines += [f"{folder}/{name},{count * 16_000}" for name in EPISODE_FILES[1:]]
    path.write_text("\n".join(lines) + "\n")


def timed(what: str, work: Callable[[], T]) -> T:
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<28}{seconds:>10.2f}{peak_mb:>12.0f}")
    return result


def plan(path: Path) -> int:
    rule = SizeBandRule()
    listed = timed("read the listing", lambda: read_listing(path))
    complete, incomplete = timed("completeness", lambda: complete_episodes(listed))
    sizes = timed("floors, bands, medians", lambda: measure(complete, rule))
    picked, others, unfilled = timed("scores and picks", lambda: pick(complete, sizes, rule))
    assert not unfilled
    assert len(picked) + len(others) + len(incomplete) == len(listed)
    return len(picked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=12_103)
    episodes = parser.parse_args().episodes
    with TemporaryDirectory() as folder:
        path = Path(folder) / "listing.csv"
        write_listing(path, episodes=episodes, seed=7)
        mebibytes = path.stat().st_size / 2**20
        print(f"{episodes} episodes, {episodes * len(EPISODE_FILES)} files, listing of {mebibytes:.1f} MiB")
        print(f"{'step':<28}{'seconds':>10}{'peak MiB':>12}")
        picked = timed("all", lambda: plan(path))
        print(f"{picked} episodes picked")


if __name__ == "__main__":
    main()
