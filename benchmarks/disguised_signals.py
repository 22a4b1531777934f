"""What hides a copied signal from the leak detector, and how often short captions are alike by chance.

    OMP_NUM_THREADS=1 python -m benchmarks.disguised_signals [--sessions 24] [--frames 200]

Synthetic sessions are made in memory. The motion of each is thinned out, its sound is covered, and the copy
is held against its source. Then the captions of unrelated sessions of several lengths are compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from omni_mlflow.spine import motion_trace, sound_bits
from omni_mlflow.spine.alignment import best_match, transform_size, transformed
from omni_mlflow.spine.caption_print import CaptionPrint, caption_print
from omni_mlflow.spine.captions import map_captions
from omni_mlflow.spine.fingerprints import Fingerprint
from omni_mlflow.spine.leaks import find_leaks
from omni_mlflow.spine.motion_trace import MotionTrace
from omni_mlflow.spine.sound_bits import SAMPLE_RATE, SoundBits
from omni_mlflow.spine.synthetic.annotation import datasets_of
from omni_mlflow.spine.synthetic.world import FPS, SessionWorld, make_session
from omni_mlflow.spine.types import Episode, Split

Samples = NDArray[np.float64]

RULE = "captions_disjoint"
CAPTION_FRAMES = (60, 125, 200, 400, 600)
FIRST_SEED = 900
IMU_HZ = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--frames", type=int, default=200)
    asked = parser.parse_args()
    worlds = worlds_of(asked.sessions, frames=asked.frames)
    print(f"{asked.sessions} sessions of {asked.frames / FPS:g} s\n")
    print("| Copy | Median score | Found |\n|---|---|---|")
    scores: dict[str, list[tuple[float, bool]]] = {}
    for place, world in enumerate(worlds):
        for name, score, bar in (*thinned(world), *covered(world, worlds[place - 1])):
            scores.setdefault(name, []).append((score, score >= bar))
    for name, found in scores.items():
        print(f"| {name} | {np.median([score for score, _ in found]):.2f} | {sum(hit for _, hit in found)} |")
    print("\n| Frames | Captions | Pairs compared | Alike |\n|---|---|---|---|")
    for frames in CAPTION_FRAMES:
        for count in (6, asked.sessions):
            compared, alike = alike_captions([told_of(world) for world in worlds_of(count, frames=frames)])
            print(f"| {frames} | {count} | {compared} | {alike} |")


def worlds_of(count: int, *, frames: int) -> list[SessionWorld]:
    return [make_session(FIRST_SEED + number, frames=frames) for number in range(count)]


def thinned(world: SessionWorld) -> Iterator[tuple[str, float, float]]:
    """Yield how the motion of a session is hidden, the score of the copy, and the bar it must reach."""
    arrays = datasets_of(world, invalid_body_share=0.0)
    frames_ns = np.asarray(arrays["video/device_timestamp"]).astype(np.int64)
    samples_ns = np.asarray(arrays["imu/device_timestamp_ns"])
    inside = (samples_ns >= frames_ns[0]) & (samples_ns <= frames_ns[-1])
    seconds = (samples_ns[inside] - frames_ns[0]) / 1e9
    felt = np.stack([np.asarray(arrays[f"imu/{name}_xyz"])[inside] for name in ("accel", "gyro")])
    own = motion_trace.motion_trace(seconds, np.linalg.norm(felt, axis=-1))
    for rate_hz in (50, 25):
        step = IMU_HZ // rate_hz
        whole = len(seconds) // step * step
        means = felt[:, :whole].reshape(2, -1, step, 3).mean(axis=2)
        middles = seconds[:whole].reshape(-1, step).mean(axis=1)
        ways = {"every n-th": (seconds[::step], felt[:, ::step]), "means": (middles, means)}
        for way, (taken, vectors) in ways.items():
            other = motion_trace.motion_trace(taken, np.linalg.norm(vectors, axis=-1))
            score = scored(own, other, rate_hz=motion_trace.RATE_HZ)
            yield f"motion at {rate_hz} Hz, {way}", score, motion_trace.THRESHOLD


def covered(world: SessionWorld, other: SessionWorld) -> Iterator[tuple[str, float, float]]:
    """Yield what is mixed into the sound of a session, the score of the copy, and the bar it must reach."""
    sound, foreign = heard(world), heard(other)
    noise = np.random.default_rng(world.seed).standard_normal(len(sound))
    own = sound_bits.sound_bits(sound.astype(np.float32))
    mixed = {"white noise, 20 dB below": 0.1 * noise, "white noise, 10 dB below": np.sqrt(0.1) * noise}
    for name, added in {**mixed, "another session's sound, as loud": foreign / rms(foreign)}.items():
        copy = np.clip(sound + added * rms(sound), -1.0, 1.0).astype(np.float32)
        score = scored(own, sound_bits.sound_bits(copy), rate_hz=sound_bits.RATE_HZ)
        yield name, score, sound_bits.THRESHOLD


def heard(world: SessionWorld) -> Samples:
    return np.asarray(world.audio(SAMPLE_RATE), dtype=np.float64)[: SAMPLE_RATE * world.frames // FPS]


def rms(samples: Samples) -> float:
    return float(np.sqrt((samples**2).mean()))


def scored(one: MotionTrace | SoundBits, other: MotionTrace | SoundBits, *, rate_hz: float) -> float:
    signals = [each.signal() for each in (one, other)]
    size = transform_size(2 * max(signal.shape[1] for signal in signals))
    found = best_match(*(transformed(signal, size=size) for signal in signals), rate_hz=rate_hz)
    return 0.0 if found is None or one.abstains or other.abstains else found.score


def told_of(world: SessionWorld) -> CaptionPrint:
    arrays = datasets_of(world, invalid_body_share=0.0)
    names = [f"{stamp.decode()}.jpg" for stamp in np.asarray(arrays["video/device_timestamp"]).tolist()]
    captions = map_captions(bytes(arrays["caption"]), names)
    assert captions is not None
    return caption_print(captions, np.arange(world.frames) / FPS)


def alike_captions(prints: Sequence[CaptionPrint]) -> tuple[int, int]:
    """Return how many pairs of a train and a test session are compared, and how many pass for copies."""
    known = {str(place): fingerprint_of(str(place), told) for place, told in enumerate(prints)}
    episodes = [episode_of(name, Split.TRAIN if int(name) % 2 else Split.TEST) for name in known]
    graph = find_leaks(episodes, known, blocking=())
    [rule] = [each for each in graph.rules if each.rule == RULE]
    return rule.pairs, sum(edge.rule == RULE for edge in graph.edges)


def fingerprint_of(name: str, told: CaptionPrint) -> Fingerprint:
    return Fingerprint(
        files={"annotation.hdf5": name}, datasets={}, device_id=name, device_clock_ns=(1, 2), caption=told
    )


def episode_of(name: str, split: Split) -> Episode:
    return Episode(
        episode_id=name, session_id=name, path=name, split=split, num_frames=1, fps=FPS, bytes_by_file={}
    )


if __name__ == "__main__":
    main()
