"""What the leak detector costs.

    OMP_NUM_THREADS=1 python -m benchmarks.leak_costs

The seconds to check a manifest of 128 known episodes of 5 minutes again, what ``guard`` adds to that with its
suite and pages, and the seconds to fingerprint the videos of one episode of real picture sizes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from omni_mlflow.expectations import check_suite, write_suite_result
from omni_mlflow.frames import manifest_frame
from omni_mlflow.reporting.leak_page import leak_page
from omni_mlflow.spine import key_frames, motion_trace, path_trace, sound_bits
from omni_mlflow.spine.contents import RECORDED_ARRAYS, SKETCHED_ROWS
from omni_mlflow.spine.encoded_pictures import encoded_pictures
from omni_mlflow.spine.fingerprints import FilePrint, FingerprintStore, known_fingerprint
from omni_mlflow.spine.frame_clock import FrameClock
from omni_mlflow.spine.key_frames import KeyFrames
from omni_mlflow.spine.leak_graph import LeakGraph
from omni_mlflow.spine.leaks import LEAK_RULES, find_leaks
from omni_mlflow.spine.motion_trace import MotionTrace
from omni_mlflow.spine.path_trace import PathTrace
from omni_mlflow.spine.recording import Recording
from omni_mlflow.spine.rows import write_document, write_text
from omni_mlflow.spine.sound import Sound
from omni_mlflow.spine.sound_bits import SoundBits
from omni_mlflow.spine.sound_choice import Track
from omni_mlflow.spine.types import CAMERAS, Episode, Split

SIZES = {camera: (512, 512) if camera.startswith("stereo") else (1312, 1080) for camera in CAMERAS}
LONG_S = 300
SUITE = Path(__file__).parents[1] / "expectations" / "episode_manifest.yaml"
WIDE_ARRAYS = RECORDED_ARRAYS[:8]  # as many as are wide enough for their rows to be remembered


def write_full_size(folder: Path, *, frames: int, gop: int) -> None:
    """Six videos of real size and a moving picture; no annotation."""
    folder.mkdir(parents=True)
    texture = np.random.default_rng(1).integers(0, 255, (82, 68, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    for camera, (height, width) in SIZES.items():
        with av.open(str(folder / f"{camera}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=20, options={"preset": "ultrafast", "crf": "28"})
            stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", gop
            for number in range(frames):
                top, left = number % 300, (2 * number) % 260
                image = np.ascontiguousarray(texture[top : top + height, left : left + width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))


def measure_reading(root: Path, *, frames: int) -> None:
    """Seconds to hash pictures of a full-size episode, decoded and encoded, beside decoding all of it."""
    for gop in (30, 250):
        folder = root / f"gop{gop}"
        write_full_size(folder, frames=frames, gop=gop)
        began = time.process_time()
        for camera in CAMERAS:
            key_frames.key_frames_of(folder / f"{camera}.mp4")
        hashing = time.process_time() - began
        began = time.process_time()
        for camera in CAMERAS:
            encoded_pictures(folder / f"{camera}.mp4")
        reading = time.process_time() - began
        began = time.process_time()
        for camera in CAMERAS:
            with av.open(str(folder / f"{camera}.mp4")) as container:
                container.streams.video[0].codec_context.thread_count = 1
                for _ in container.decode(video=0):
                    pass
        decoding = time.process_time() - began
        print(
            f"{frames} frames, 4 x 1080x1312 + 2 x 512x512, GOP {gop}: {hashing:.2f} CPU s to hash, "
            f"{reading:.2f} CPU s to hash the encoded ones, "
            f"{decoding:.2f} CPU s to decode every frame"
        )


def measure_recheck(root: Path, *, episodes: int) -> None:
    """Seconds to check a manifest again whose files are known: 96/16/16 episodes of 5 minutes."""
    store = FingerprintStore(root / "known", code="this code")
    splits = [Split.TRAIN] * 96 + [Split.VAL] * 16 + [Split.TEST] * 16
    rows = []
    for number, split in zip(range(episodes), splits, strict=True):
        folder = root / "manifest" / f"s{number:03d}" / "ep1"
        folder.mkdir(parents=True)
        for name, found in long_episode(number).items():
            (folder / name).write_bytes(b"x")
            store.remember(folder / name, found)
        name = folder.parent.name
        rows.append(
            Episode(
                episode_id=name,
                session_id=name,
                path=f"{name}/ep1",
                split=split,
                num_frames=6000,
                fps=20,
                bytes_by_file={},
            )
        )
    began = time.process_time()
    known = {row.episode_id: known_fingerprint(root / "manifest" / row.path, store) for row in rows}
    prints = {name: found for name, found in known.items() if found is not None}
    loaded = time.process_time()
    graph = find_leaks(rows, prints, blocking=LEAK_RULES)
    done = time.process_time()
    pairs = {rule.rule: rule.pairs for rule in graph.rules}
    compared = ", ".join(f"{name} {pairs[f'{name}_disjoint']}" for name in ("motion", "sound", "pictures"))
    print(
        f"{len(prints)} episodes known again in {loaded - began:.2f} CPU s, "
        f"{pairs['content_disjoint']} pairs compared in {done - loaded:.2f} CPU s ({compared}); "
        f"{len(graph.edges)} edges"
    )
    measure_pages(root / "pages", rows, graph)


def measure_pages(folder: Path, episodes: Sequence[Episode], graph: LeakGraph) -> None:
    """Seconds to check the suite of ``guard`` on a manifest and to write its pages, libraries apart."""
    importing = time.process_time()
    import great_expectations  # noqa: F401

    began = time.process_time()
    counts = Counter(episode.split for episode in episodes)
    suite = check_suite(
        SUITE,
        manifest_frame(episodes, graph),
        parameters={f"num_{split}": count for split, count in counts.items()},
    )
    checked = time.process_time()
    write_suite_result(suite, folder)
    write_document(folder / "leak_graph.json", graph)
    write_text(folder / "leak_graph.html", leak_page(graph))
    done = time.process_time()
    print(
        f"guard adds {checked - began:.2f} CPU s for its suite and {done - checked:.2f} for its pages, "
        f"after {began - importing:.2f} for the libraries"
    )


def long_episode(seed: int) -> dict[str, FilePrint]:
    """File prints as large as those of 5 minutes, with random content."""
    rng = np.random.default_rng(seed)
    keys = np.arange(0, LONG_S, 4.0)
    bursts = (np.arange(0, 3, 0.25) + LONG_S * (np.arange(8) + 0.5)[:, None] / 8).ravel()
    seconds = np.sort(np.concatenate([keys, bursts])).astype(np.float32)
    moved = np.clip(rng.normal(0, 40, (2, int(LONG_S * motion_trace.RATE_HZ))), -120, 120).astype(np.int8)
    went = np.clip(rng.normal(0, 40, (6, int(LONG_S * path_trace.RATE_HZ))), -120, 120).astype(np.int8)
    heard = int(LONG_S * sound_bits.RATE_HZ)
    recording = Recording(
        datasets={name: f"{name} of {seed}" for name in RECORDED_ARRAYS},
        device_id=f"device {seed}",
        device_clock_ns=(0, LONG_S * 10**9),
        motion=MotionTrace(levels=moved),
        path=PathTrace(levels=went),
        rows={name: tuple(map(int, np.sort(rng.integers(0, 2**63, SKETCHED_ROWS)))) for name in WIDE_ARRAYS},
    )
    frames_s = np.arange(20 * LONG_S) / 20
    clock = FrameClock(frames_s=frames_s, fps=20)
    found = {"annotation.hdf5": FilePrint(sha256=f"{seed}", recording=recording, clock=clock)}
    sound = SoundBits(bits=rng.integers(0, 2**16, heard, dtype=np.uint16), heard=np.ones(heard, dtype=bool))
    for camera in CAMERAS:
        signs, strong = key_frames.perceptual_hashes(
            rng.normal(size=(len(seconds), 32, 32)).astype(np.float32)
        )
        found[f"{camera}.mp4"] = FilePrint(
            sha256=f"{seed} {camera}",
            encoded_pictures=tuple(map(int, np.sort(rng.integers(0, 2**63, SKETCHED_ROWS)))),
            key_frames=KeyFrames(seconds=seconds, signs=signs, strong=strong, length_s=LONG_S),
            heard=Track(sound=Sound(spans=((0.0, float(LONG_S)),)), pictures_s=frames_s),
            sound=sound,
        )
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measure_recheck(root, episodes=128)
        measure_reading(root, frames=400)


if __name__ == "__main__":
    main()
