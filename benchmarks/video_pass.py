"""What the one pass over an episode's six videos costs, against three other ways to spend the time.

    python -m benchmarks.video_pass [--frames 1200] [--repeats 3] [--seek-windows 3]

It writes its own input: four H.264 videos of 1080 x 1312 and two of 512 x 512 with a texture that moves and
the noise of a sensor, at the bit rate of real recordings, with a key frame every 30 and every 250 frames.
All numbers are processor seconds of one process whose decoders and encoders have one thread, so that other
work on the machine hardly counts. The ratios are:

* ``of_plain_decode``: the pass of the index (decode, check the frame plan, scale, tile, encode every fourth
  frame) against PyAV decoding the same frames and doing nothing with them. Higher is better, 1 is the bound.
* ``against_seeking``: a renderer that seeks each of a window's 32 context frames in each camera with OpenCV,
  at one window every ten frames, against the pass. Windows near the start have a shorter context and count
  for the frames that they have. It needs ``pip install opencv-python-headless``.
* ``twice_the_windows``: the whole index of an episode with a window every five frames against every ten.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.ndimage import zoom

from omni_mlflow.spine.indexing import IndexPlan, index_episode
from omni_mlflow.spine.mosaic import Encoder, TileScaler, mosaic_tiles
from omni_mlflow.spine.selection import scan_data_root
from omni_mlflow.spine.synthetic.annotation import write_annotation
from omni_mlflow.spine.synthetic.world import make_session
from omni_mlflow.spine.types import CAMERAS, Scale, Split
from omni_mlflow.spine.video import write_proxy

FPS = 20
DRAWN_FRAMES = 400
GOPS = (30, 250)
FISHEYE, STEREO = (1080, 1312), (512, 512)
BYTES_PER_FRAME = {FISHEYE: 15_500, STEREO: 3_800}
PLAN = IndexPlan(
    scales=(Scale(frames=20, stride=10),),
    frame_grid=4,
    context_frames=32,
    tile=(320, 320),
    min_label_share=0.6,
)


def write_camera(path: Path, size: tuple[int, int], *, frames: int, gop: int) -> None:
    """Write H.264 at ``BYTES_PER_FRAME``; after ``DRAWN_FRAMES`` the same packets come again."""
    width, height = size
    options = {"preset": "veryfast", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 8 * FPS * BYTES_PER_FRAME[size]
        packets = [packet for picture in drawn(size) for packet in stream.encode(picture)]
        packets += stream.encode(None)
        for turn in range(-(-frames // DRAWN_FRAMES)):
            for drawing in packets:
                packet = av.Packet(bytes(drawing))
                packet.pts = drawing.pts + turn * DRAWN_FRAMES
                packet.dts = drawing.dts + turn * DRAWN_FRAMES
                packet.is_keyframe, packet.time_base = drawing.is_keyframe, Fraction(1, FPS)
                packet.stream = stream
                container.mux(packet)


def drawn(size: tuple[int, int]) -> Iterator[av.VideoFrame]:
    """Draw a texture that drifts, under the noise of a sensor."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.normal(128, 40, ((height + 2 * DRAWN_FRAMES) // 16 + 1, (width + DRAWN_FRAMES) // 16 + 1))
    texture = zoom(coarse, 16, order=1)
    noise = [rng.normal(0, 3.5, (height, width)) for _ in range(8)]
    planes = np.full((height * 3 // 2, width), 128, dtype=np.uint8)
    for number in range(DRAWN_FRAMES):
        top, left = number * 13 // 10, number * 7 // 10
        seen = texture[top : top + height, left : left + width] + noise[number % len(noise)]
        planes[:height] = seen.clip(16, 235)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def write_cameras(folder: Path, *, frames: int, gop: int) -> dict[str, Path]:
    """Write one video of each size and copy it for the other cameras."""
    folder.mkdir(parents=True)
    streams = {camera: folder / f"{camera}.mp4" for camera in CAMERAS}
    for size, kind in ((FISHEYE, "fisheye"), (STEREO, "stereo")):
        first, *others = (path for camera, path in streams.items() if camera.startswith(kind))
        write_camera(first, size, frames=frames, gop=gop)
        for other in others:
            shutil.copy(first, other)
    return streams


def cpu_s(work: Callable[[], object]) -> float:
    """Processor seconds of this process, all of its threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def timed(owner: type, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add up what a method costs while the block runs."""
    method = getattr(owner, name)
    spent[name] = 0.0

    def measured(*args: Any) -> Any:
        start = time.process_time()
        made = method(*args)
        spent[name] += time.process_time() - start
        return made

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, method)


def decode(streams: Mapping[str, Path], *, frames: int) -> None:
    """Plain PyAV: the first ``frames`` pictures of every file, and nothing done with them."""
    for path in streams.values():
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for _ in islice(container.decode(stream), frames):
                pass


def measure_pass(streams: Mapping[str, Path], out: Path, *, frames: int, repeats: int) -> dict[str, Any]:
    """Compare the pass with plain decode of the same frames: the least disturbed of some turns of each."""
    grid = range(0, frames, PLAN.frame_grid)
    plain, passes = [], []
    for _ in range(repeats):
        plain.append(cpu_s(partial(decode, streams, frames=grid[-1] + 1)))
        spent: dict[str, float] = {}
        with timed(TileScaler, "fit", spent), timed(Encoder, "write", spent):
            pass_s = cpu_s(partial(write_proxy, streams, out, frame_grid=grid, tile=PLAN.tile))
        passes.append((pass_s, spent["fit"] / pass_s, spent["write"] / pass_s))
    pass_s, scale, encode = min(passes)
    shares = {"decode": 1 - scale - encode, "scale": scale, "encode": encode}
    return {
        "source_frames_per_cpu_s": round(len(streams) * (grid[-1] + 1) / pass_s),
        "of_plain_decode": round(min(plain) / pass_s, 3),
        "shares": {name: round(share, 3) for name, share in shares.items()},
        "pass_cpu_s": round(pass_s, 2),
    }


def render_window(streams: Mapping[str, Path], out: Path, *, anchor: int) -> None:
    """Render one window's context as most exporters do: seek every frame in every camera, write one clip."""
    import cv2

    places = mosaic_tiles(PLAN.tile)
    width, height = 3 * PLAN.tile[0], 2 * PLAN.tile[1]
    sources = {}
    for place in places:
        sources[place] = cv2.VideoCapture(
            str(streams[place.camera]), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]
        )
    clip = cv2.VideoWriter(str(out), cv2.VideoWriter_fourcc(*"mp4v"), FPS / PLAN.frame_grid, (width, height))
    for frame in range(anchor - PLAN.context_frames * PLAN.frame_grid, anchor, PLAN.frame_grid):
        mosaic = np.zeros((height, width, 3), dtype=np.uint8)
        for place, source in sources.items():
            source.set(cv2.CAP_PROP_POS_FRAMES, frame)
            _, picture = source.read()
            scale = min(place.width / picture.shape[1], place.height / picture.shape[0])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            mosaic[place.y : place.y + small.shape[0], place.x : place.x + small.shape[1]] = small
        clip.write(mosaic)
    for source in sources.values():
        source.release()
    clip.release()


def measure_seeking(
    streams: Mapping[str, Path], out: Path, *, frames: int, windows: int, pass_s: float
) -> dict[str, Any]:
    """Compare the cost of windows spread over the episode, one every ten frames, with that of the pass."""
    try:
        import cv2
    except ImportError:
        return {"against_seeking": None, "reason": "pip install opencv-python-headless"}
    cv2.setNumThreads(1)
    first = PLAN.context_frames * PLAN.frame_grid
    anchors = np.linspace(first, frames, windows, dtype=int).tolist()
    window_s = sum(cpu_s(partial(render_window, streams, out, anchor=anchor)) for anchor in anchors)
    window_s /= windows
    whole_contexts = num_context_frames(frames) / PLAN.context_frames
    return {
        "seeking_cpu_s_per_window": round(window_s, 2),
        "against_seeking": round(window_s * whole_contexts / pass_s, 1),
    }


def num_context_frames(frames: int) -> int:
    """How many frames all windows of an episode show, each up to its anchor."""
    scale = PLAN.scales[0]
    anchors = range(scale.frames, frames + 1, scale.stride)
    return sum(min(PLAN.context_frames, -(-anchor // PLAN.frame_grid)) for anchor in anchors)


def measure_windows(folder: Path, *, frames: int, repeats: int) -> dict[str, Any]:
    """Index the episode in ``folder`` with a window every ten and every five frames, in turns."""
    write_annotation(folder / "annotation.hdf5", make_session(7, frames=frames), invalid_body_share=0.25)
    (episode,), _ = scan_data_root(folder.parents[1])
    placed = episode.model_copy(update={"split": Split.TRAIN})
    spent: dict[int, list[float]] = {10: [], 5: []}
    for _ in range(repeats):
        for stride, costs in spent.items():
            plan = replace(PLAN, scales=(Scale(frames=20, stride=stride),))
            with tempfile.TemporaryDirectory() as out:
                work = partial(index_episode, placed, data_root=folder.parents[1], out=Path(out), plan=plan)
                costs.append(cpu_s(work))
    ten, five = (min(costs) for costs in spent.values())
    return {"index_cpu_s": round(ten, 2), "twice_the_windows": round(five / ten, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seek-windows", type=int, default=3)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"frames": chosen.frames}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for gop in GOPS:
            folder = root / f"gop_{gop}" / "ep1"
            streams = write_cameras(folder, frames=chosen.frames, gop=gop)
            out = root / "out.mp4"
            rows = measure_pass(streams, out, frames=chosen.frames, repeats=chosen.repeats)
            rows |= measure_seeking(
                streams, out, frames=chosen.frames, windows=chosen.seek_windows, pass_s=rows["pass_cpu_s"]
            )
            found[f"gop_{gop}"] = rows
        found |= measure_windows(
            root / f"gop_{GOPS[-1]}" / "ep1", frames=chosen.frames, repeats=chosen.repeats
        )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
