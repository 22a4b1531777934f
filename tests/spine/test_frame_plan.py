"""Which frames were taken: read back from the pictures, agreed on by two readings, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from omni_mlflow.spine.frame_plan import CameraPass, FramePlan, display_order
from omni_mlflow.spine.video import UnreadableVideoError, count_frames, read_frames, write_proxy

NUM_FRAMES = 60
TILE = (64, 64)
MILLISECOND = Fraction(1, 1000)
IRREGULAR_MS = tuple(50 * frame + (frame * 37) % 49 for frame in range(NUM_FRAMES))


def stamped(number: int) -> np.ndarray:
    """A picture whose upper half says ``number`` in eight bars, white for a 1, lowest bit on the left.

    The lower half is a texture that moves.
    """
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image[32:] = np.roll(image[32:], number, axis=1)
    bits = np.array([number >> place & 1 for place in range(8)], dtype=np.uint8)
    image[:32] = (255 * np.repeat(bits, 8))[None, :, None]
    return image


def numbers_in(frames: np.ndarray) -> list[int]:
    """The number stamped into the first camera's tile of each frame."""
    bars = frames[:, 16, 4:64:8].mean(axis=-1) > 128
    return [int(each) for each in bars @ (1 << np.arange(8))]


def write_stamped(
    path: Path,
    *,
    times_ms: Sequence[int] = range(0, 50 * NUM_FRAMES, 50),
    bframes: int = 3,
    gop: int = 24,
    first: int = 0,
    encoder: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> Path:
    """Write a video whose frame i is stamped ``first + i``."""
    options = {"crf": "20", "bf": str(bframes), "g": str(gop), "sc_threshold": "0", "threads": "1"}
    options |= encoder or {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = pixels
        stream.codec_context.time_base = MILLISECOND
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(stamped(first + number), format="rgb24")
            frame.pts, frame.time_base = time_ms, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(
    source: Path, out: Path, change: Callable[[int, Any], Any], options: dict[str, str] | None = None
) -> Path:
    """Copy the packets to ``out``, each as ``change(place, packet)`` leaves it; None leaves it out."""
    with av.open(str(source)) as old, av.open(str(out), "w", options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for packet in (change(place, packet) for place, packet in enumerate(packets)):
            if packet is not None:
                packet.stream = stream
                new.mux(packet)
    return out


def shifted_by(frames: int) -> Callable[[int, Any], Any]:
    def shift(_: int, packet: Any) -> Any:
        ticks = int(frames * Fraction(1, 20) / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return shift


@pytest.fixture
def video(tmp_path: Path) -> Callable[[str], Path]:
    """Write one of the files that are unusual and sound."""
    plain = tmp_path / "plain.mp4"
    out = tmp_path / "fisheye_cam0.mp4"
    kinds: dict[str, Callable[[], Path]] = {
        "no B-frames": lambda: write_stamped(out, bframes=0),
        "B-frames": lambda: write_stamped(out),
        "one key frame": lambda: write_stamped(out, gop=250),
        "irregular times": lambda: write_stamped(out, times_ms=IRREGULAR_MS),
        "a late start": lambda: remuxed(write_stamped(plain), out, shifted_by(9)),
        # A negative time makes the muxer write an edit list that hides the frames before 0.
        "an edit list": lambda: remuxed(
            write_stamped(plain), out, shifted_by(-7), {"avoid_negative_ts": "disabled"}
        ),
        "an edit list and one key frame": lambda: remuxed(
            write_stamped(plain, gop=250), out, shifted_by(-7), {"avoid_negative_ts": "disabled"}
        ),
    }
    return lambda kind: kinds[kind]()


KINDS = (
    ("no B-frames", 0),
    ("B-frames", 0),
    ("one key frame", 0),
    ("irregular times", 0),
    ("a late start", 0),
    ("an edit list", 7),
    ("an edit list and one key frame", 7),
)


@pytest.mark.parametrize("stride", [1, 4, 7])
@pytest.mark.parametrize(("kind", "first"), KINDS)
def test_proxy_frame_k_shows_source_frame_k_times_the_stride(tmp_path, video, kind, first, stride):
    grid = range(0, NUM_FRAMES - first, stride)
    out = tmp_path / "mosaic.mp4"
    proxy = write_proxy({"fisheye_cam0": video(kind)}, out, frame_grid=grid, tile=TILE)
    assert numbers_in(read_frames(out, range(len(grid)))) == [first + frame for frame in grid]
    taken = proxy.plan.cameras["fisheye_cam0"]
    assert taken.frames == tuple(grid)
    assert (taken.num_frames, taken.hidden_frames) == (NUM_FRAMES - first, first)
    assert proxy.repeated_frames == {}


@pytest.mark.parametrize(("kind", "first"), KINDS)
def test_some_frames_are_decoded_again_after_a_seek_and_with_other_threads(video, kind, first):
    """They are the first ones of the grid from the key frame before its middle."""
    grid = range(0, NUM_FRAMES - first, 4)
    camera = CameraPass(video(kind), grid)
    for _ in camera.pictures():
        pass
    taken = camera.record()
    key_frames = (0,) if "one key frame" in kind else tuple(frame - first for frame in (0, 24, 48))
    middle = grid[len(grid) // 2]
    start = max(0, *(frame for frame in key_frames if frame <= middle), 0)
    assert taken.second_look.frames == tuple(frame for frame in grid if frame >= start)[:2]
    assert len(set(taken.second_look.sha256)) == 2
    assert taken.second_look.decoder.threads != taken.decoder.threads
    assert taken.decoder.codec == "h264"
    assert taken.decoder.library.startswith("PyAV ")


def test_times_are_kept_on_the_container_s_clock(video):
    camera = CameraPass(video("irregular times"), range(0, NUM_FRAMES, 10))
    for _ in camera.pictures():
        pass
    taken = camera.record()
    assert [round(ticks * Fraction(taken.time_base) * 1000) for ticks in taken.pts] == [
        IRREGULAR_MS[frame] for frame in range(0, NUM_FRAMES, 10)
    ]


def test_frames_that_an_edit_list_hides_are_not_counted(video):
    path = video("an edit list")
    assert count_frames(path) == NUM_FRAMES - 7
    assert display_order(path).hidden == 7


def test_the_plan_is_the_same_by_every_decoder_that_takes_the_same_frames(tmp_path, video):
    streams = {"fisheye_cam0": video("B-frames")}
    plan = write_proxy(streams, tmp_path / "a.mp4", frame_grid=range(0, 60, 4), tile=TILE).plan
    camera = plan.cameras["fisheye_cam0"]
    other = camera.model_copy(update={"decoder": camera.decoder.model_copy(update={"library": "another"})})
    late = camera.model_copy(update={"pts": tuple(ticks + 1 for ticks in camera.pts)})
    assert plan.model_copy(update={"cameras": {"fisheye_cam0": other}}).digest == plan.digest
    assert plan.model_copy(update={"cameras": {"fisheye_cam0": late}}).digest != plan.digest
    assert FramePlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_video_that_is_too_short_ends_the_list_of_its_frames(tmp_path, video):
    proxy = write_proxy(
        {"fisheye_cam0": video("B-frames")}, tmp_path / "a.mp4", frame_grid=range(0, 80, 8), tile=TILE
    )
    assert proxy.plan.cameras["fisheye_cam0"].frames == (0, 8, 16, 24, 32, 40, 48, 56)
    assert proxy.plan.num_proxy_frames == 10
    assert proxy.repeated_frames == {"fisheye_cam0": 2}


def refusal_of(path: Path, out: Path) -> str:
    """What is said about a file whose frames are not certain; no proxy may be left."""
    with pytest.raises(UnreadableVideoError) as caught:
        write_proxy({"fisheye_cam0": path}, out, frame_grid=range(0, NUM_FRAMES, 4), tile=TILE)
    assert not out.exists()
    assert not list(out.parent.glob(".*.tmp"))
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Callable[[int, Any], Any]], Path]:
    def write(change: Callable[[int, Any], Any]) -> Path:
        return remuxed(write_stamped(tmp_path / "plain.mp4"), tmp_path / "fisheye_cam0.mp4", change)

    return write


def test_a_file_cut_short_behind_its_table_of_frames_is_refused(tmp_path):
    path = remuxed(
        write_stamped(tmp_path / "plain.mp4"),
        tmp_path / "fisheye_cam0.mp4",
        lambda _, packet: packet,
        {"movflags": "faststart"},
    )
    path.write_bytes(path.read_bytes()[:-5000])
    assert "it ends at byte" in refusal_of(path, tmp_path / "mosaic.mp4")


def test_a_file_cut_short_before_its_table_of_frames_is_refused(tmp_path):
    path = write_stamped(tmp_path / "fisheye_cam0.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    assert "it cannot be decoded as video" in refusal_of(path, tmp_path / "mosaic.mp4")


def test_pictures_in_another_order_than_their_packets_announce_are_refused(tmp_path, broken):
    """Two packets carry each other's time: by its packets the file shows picture 31 before picture 30."""
    held: dict[int, int] = {}

    def exchange(_: int, packet: Any) -> Any:
        tick = int(Fraction(1, 20) / packet.time_base)
        held.update({30 * tick: 31 * tick, 31 * tick: 30 * tick})
        packet.pts = held.get(packet.pts, packet.pts)
        return packet

    assert "picture 30 decodes at tick" in refusal_of(broken(exchange), tmp_path / "mosaic.mp4")


def test_a_video_that_does_not_begin_with_a_key_frame_is_refused(tmp_path, broken):
    path = broken(lambda place, packet: packet if place else None)
    assert refusal_of(path, tmp_path / "mosaic.mp4")


def test_a_damaged_picture_is_refused_though_the_decoder_hides_the_damage(tmp_path):
    path = write_stamped(tmp_path / "fisheye_cam0.mp4", bframes=0)
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[30]
        damage = slice(entry.pos + 20, entry.pos + entry.size)
    content = bytearray(path.read_bytes())
    content[damage] = bytes(entry.size - 20)
    path.write_bytes(content)
    assert refusal_of(path, tmp_path / "mosaic.mp4") == "frame 30 is damaged"


def test_frames_that_are_others_when_they_are_decoded_again_are_refused(tmp_path):
    path = write_stamped(tmp_path / "fisheye_cam0.mp4")
    camera = CameraPass(path, range(0, NUM_FRAMES, 4))
    for _ in camera.pictures():
        pass
    # The same packets and times with the pictures of another recording.
    write_stamped(path, first=100)
    with pytest.raises(
        UnreadableVideoError, match=r"frames \[24, 28\] are others when they are decoded again"
    ):
        camera.record()


def test_where_a_seek_leads_to_no_whole_picture_the_file_is_read_from_its_start(tmp_path):
    """A file without key frames after its first one, refreshed a column of blocks at a time."""
    path = tmp_path / "fisheye_cam0.mp4"
    write_stamped(path, bframes=0, encoder={"intra-refresh": "1"})
    proxy = write_proxy({"fisheye_cam0": path}, tmp_path / "a.mp4", frame_grid=range(0, 60, 4), tile=TILE)
    assert proxy.plan.cameras["fisheye_cam0"].second_look.frames == (24, 28)
    with av.open(str(path)) as container:
        container.seek(display_order(path).pts[24], stream=container.streams.video[0])
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture.astype(int) - stamped(24)).mean() > 20, "what a seek leads to is not frame 24"


@pytest.mark.parametrize("pixels", ["yuvj422p", "yuv444p10le", "nv12", "gray10le"])
def test_frames_of_other_pixel_formats_are_taken_and_proven_alike(tmp_path, pixels):
    path = write_stamped(tmp_path / "camera.mp4", pixels=pixels)
    proxy = write_proxy(
        {"fisheye_cam0": path}, tmp_path / "mosaic.mp4", frame_grid=range(0, 60, 4), tile=TILE
    )
    frames = read_frames(tmp_path / "mosaic.mp4", range(15))
    assert numbers_in(frames[:, :64, :64]) == list(range(0, 60, 4))
    assert len(set(proxy.plan.cameras["fisheye_cam0"].second_look.sha256)) == 2
