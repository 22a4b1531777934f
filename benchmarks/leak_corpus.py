"""What the leak detector finds, what it takes for a leak, and how little of a recording is enough.

    OMP_NUM_THREADS=1 python -m benchmarks.leak_corpus [--sessions 200] [--copies 24] [--frames 200]

First the scores of planted copies and of all pairs of unrelated sessions, rule by rule. Then, of copies cut
to a few seconds and of cuts that overlap by a few, how many are found, and how many pairs of a cut and a
session that it is not of are taken for copies. Last the pictures of videos that were copied alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.spine import key_frames, motion_trace, path_trace, sound_bits
from omni_mlflow.spine.alignment import Match, best_match, transform_size, transformed
from omni_mlflow.spine.fingerprints import Fingerprint, FingerprintStore, fingerprint_episode
from omni_mlflow.spine.key_frames import best_view
from omni_mlflow.spine.processes import each_in_a_process
from omni_mlflow.spine.synthetic import write_episode_set
from omni_mlflow.spine.types import CAMERAS
from tests.spine.planted_leaks import CHANGES, FPS, VIDEO_CHANGES, copy_videos, cut, disguised

THRESHOLDS = {
    "motion": motion_trace.THRESHOLD,
    "path": path_trace.THRESHOLD,
    "sound": sound_bits.THRESHOLD,
    "pictures": key_frames.THRESHOLD,
}
BLOCKING = ("motion", "path", "sound")

PICTURE_BARS = (key_frames.THRESHOLD, 0.95, 0.97)

KEPT_S = {10: (4, 5, 5.5, 6, 8), 40: (4, 5, 5.5, 6, 8, 10, 20)}
"""Of sessions of so many seconds: to how many a copy is cut."""

SHARED_S = (2.5, 5, 6, 8, 10)
"""Two cuts of 20 s have so many seconds in common."""


def scores_between(one: Fingerprint, other: Fingerprint) -> dict[str, float]:
    """Score of each signal that neither side abstains from."""
    views = [
        {camera: each for camera, each in side.key_frames.items() if not each.abstains}
        for side in (one, other)
    ]
    found: dict[str, Match | None] = {
        "motion": _aligned(one.motion, other.motion, motion_trace.RATE_HZ),
        "path": _aligned(one.path, other.path, path_trace.RATE_HZ, mirror=path_trace.MIRROR),
        "sound": _aligned(one.sound, other.sound, sound_bits.RATE_HZ),
        "pictures": best_view(*views),
    }
    return {name: match.score for name, match in found.items() if match is not None}


def _aligned(one: Any, other: Any, rate_hz: float, *, mirror: Any = None) -> Match | None:
    if one is None or other is None or one.abstains or other.abstains:
        return None
    mine, theirs = one.signal(), other.signal()
    size = transform_size(max(mine.shape[1], theirs.shape[1]))
    matches = [
        best_match(transformed(mine, size=size), transformed(seen, size=size), rate_hz=rate_hz)
        for seen in (theirs, *([] if mirror is None else [theirs * mirror]))
    ]
    return max((each for each in matches if each), key=lambda each: each.score, default=None)


def fingerprints_of(
    folders: Iterable[Path], store: FingerprintStore, *, workers: int
) -> dict[Path, Fingerprint]:
    work = partial(fingerprint_episode, store=store)
    return dict(each_in_a_process(work, folders, workers=workers))


def show_scores(name: str, scores: list[Mapping[str, float]]) -> None:
    """Print quantiles of each signal, and how many pairs some signal takes for copies."""
    for signal, threshold in THRESHOLDS.items():
        values = np.array([each[signal] for each in scores if signal in each])
        if len(values):
            low, middle, high = np.quantile(values, [0, 0.5, 1])
            print(
                f"{name:<25}{signal:<10}{len(values):>7} of {len(scores)} compared"
                f"   lowest {low:5.2f}   median {middle:5.2f}   highest {high:5.2f}"
                f"   at or above {threshold}: {np.count_nonzero(values >= threshold)}"
            )
    caught = sum(any(each[name] >= THRESHOLDS[name] for name in each) for each in scores)
    print(f"{name:<25}{'any':<10}{caught:>7} of {len(scores)} pairs taken for copies")


def show_recall(name: str, copies: list[Mapping[str, float]], unrelated: list[Mapping[str, float]]) -> None:
    """Print by how many copies each signal that may block finds, and what it takes for a copy and is none."""
    found = {signal: _taken(copies, (signal,)) for signal in BLOCKING}
    told = "   ".join(f"{signal} {count:>2}" for signal, count in found.items())
    print(
        f"{name:<38}{told}   any {_taken(copies, BLOCKING):>2} of {len(copies)}"
        f"   of {len(unrelated)} unrelated pairs {_taken(unrelated, BLOCKING)}"
    )


def _taken(scores: list[Mapping[str, float]], signals: Collection[str]) -> int:
    return sum(any(each.get(name, -1) >= THRESHOLDS[name] for name in signals) for each in scores)


def measure_corpus(
    root: Path, folders: list[Path], store: FingerprintStore, *, copies: int, workers: int
) -> None:
    clean = fingerprints_of(folders, store, workers=workers)
    show_scores("unrelated", [scores_between(clean[a], clean[b]) for a, b in combinations(folders, 2)])
    for name, change in CHANGES.items():
        made = {disguised(each, root / name / each.parent.name, change): each for each in folders[:copies]}
        found = fingerprints_of(made, store, workers=workers)
        show_scores(name, [scores_between(clean[made[copy]], found[copy]) for copy in made])


def measure_cuts(root: Path, store: FingerprintStore, *, copies: int, workers: int) -> None:
    """How little a copy may keep of a session; and how little two cuts of one may have in common."""
    for length_s, kept_s in KEPT_S.items():
        folders = sessions_of(
            root / f"of {length_s}", sessions=copies, frames=length_s * FPS, workers=workers
        )
        whole = fingerprints_of(folders, store, workers=workers)
        for seconds in kept_s:
            first = round((length_s - seconds) / 2 * FPS)
            out = root / f"{seconds} of {length_s}"
            pieces = cuts_of(folders, out, store, first=first, seconds=seconds, workers=workers)
            show_pairs(f"{seconds:g} s of {length_s} s", whole, pieces)
    heads = cuts_of(folders, root / "heads", store, first=0, seconds=20, workers=workers)
    for shared_s in SHARED_S:
        first = round((20 - shared_s) * FPS)
        out = root / f"shared {shared_s}"
        pieces = cuts_of(folders, out, store, first=first, seconds=20, workers=workers)
        show_pairs(f"{shared_s:g} s common to two cuts of 20 s", heads, pieces)


def measure_videos_alone(root: Path, folders: list[Path], store: FingerprintStore, *, frames: int) -> None:
    """What pictures tell of videos without sound, at their threshold and above it."""
    whole = fingerprints_of(folders, store, workers=1)
    for name, change in VIDEO_CHANGES.items():
        kept = replace(change, stop=change.stop and frames - change.first)
        made = {folder: root / f"{name} {frames}" / folder.parent.name for folder in folders}
        for folder, out in made.items():
            out.mkdir(parents=True)
            copy_videos(folder, out, kept)
        scores = [scores_between(whole[folder], watched(out)).get("pictures") for folder, out in made.items()]
        told = [score for score in scores if score is not None]
        found = "   ".join(f"at {bar} {sum(score >= bar for score in told):>2}" for bar in PICTURE_BARS)
        length = f"{frames / FPS:g} s"
        print(f"videos of {length}, {name:<16}{len(told):>3} of {len(scores)} compared   found {found}")


def watched(folder: Path) -> Fingerprint:
    """What can be told of videos that have no annotation."""
    views = {camera: key_frames.key_frames_of(folder / f"{camera}.mp4") for camera in CAMERAS}
    return Fingerprint(datasets={}, device_id=None, device_clock_ns=None, files={}, key_frames=views)


def show_pairs(name: str, whole: Mapping[Path, Fingerprint], pieces: Mapping[Path, Fingerprint]) -> None:
    copies = [scores_between(whole[folder], pieces[folder]) for folder in whole]
    others = [scores_between(whole[one], pieces[other]) for one in whole for other in whole if one != other]
    show_recall(name, copies, others)


def cuts_of(
    folders: Iterable[Path], out: Path, store: FingerprintStore, *, first: int, seconds: float, workers: int
) -> dict[Path, Fingerprint]:
    """Fingerprints of a cut of every folder, from frame ``first``, by the folder."""
    stop = first + round(seconds * FPS)
    made = {cut(each, out / each.parent.name, first=first, stop=stop): each for each in folders}
    found = fingerprints_of(made, store, workers=workers)
    return {source: found[copy] for copy, source in made.items()}


def sessions_of(data: Path, *, sessions: int, frames: int, workers: int) -> list[Path]:
    write_episode_set(data, sessions=sessions, frames=frames, seed=17, anomalies="none", workers=workers)
    return sorted(data.glob("*/ep1"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = FingerprintStore(root / "prints", code="this code")
        folders = sessions_of(
            root / "episodes", sessions=given.sessions, frames=given.frames, workers=given.workers
        )
        measure_corpus(root, folders, store, copies=given.copies, workers=given.workers)
        measure_cuts(root, store, copies=given.copies, workers=given.workers)
        measure_videos_alone(root / "short", folders[: given.copies], store, frames=given.frames)
        longer = sessions_of(root / "30 s", sessions=given.copies, frames=30 * FPS, workers=given.workers)
        measure_videos_alone(root / "long", longer, store, frames=30 * FPS)


if __name__ == "__main__":
    main()
