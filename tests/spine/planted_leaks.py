"""Copies of an episode as careless or dishonest people make them, each into a folder of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import h5py
import numpy as np

from omni_mlflow.spine.types import CAMERAS

FPS = 20
RATE = 44_100
CLOCK_SHIFT_NS = 1_234_567_890_123  # another day of another device
NS_PER_FRAME = 1_000_000_000 // FPS

SYNONYMS = {
    "right hand": "dominant palm",
    "touches": "is in contact with",
    "hovers over": "stays above",
    "works on": "is busy with",
    "block": "cube",
    "Brush": "Sweep",
    "Scrape": "Scratch",
}


@dataclass(frozen=True)
class Change:
    """What a copy changes besides ids, clock and bytes.

    Attributes:
        first, stop: which annotated frames it keeps.
        lead: black, silent frames it puts in front.
        crf, gop: quality and key frame distance of the new encoding.
        shrink: each picture is so many times smaller.
        imu_noise: noise added to inertial samples, in units of their spread, gravity included.
        encoded: pictures are encoded anew; otherwise the videos are the same ones without their sound.
        caption: keep the caption; otherwise somebody else wrote one, about nothing in it.
    """

    first: int = 0
    stop: int | None = None
    lead: int = 0
    mirror: bool = False
    crf: int = 30
    gop: int = 250
    sound: bool = True
    shrink: int = 1
    imu_noise: float = 0.0
    encoded: bool = True
    caption: bool = True


CHANGES = {
    "re-encoded": Change(crf=33, gop=250),
    "trimmed": Change(first=37, stop=163, gop=48),
    "time-shifted": Change(lead=33, gop=60),
    "mirrored": Change(mirror=True),
    "noisy, small and silent": Change(crf=34, shrink=2, imu_noise=0.1, sound=False, caption=False),
}


VIDEO_CHANGES = {
    "sound stripped": Change(encoded=False, sound=False),
    "re-encoded": Change(crf=33, gop=250, sound=False),
    "trimmed": Change(first=37, stop=163, gop=48, sound=False),
    "mirrored": Change(mirror=True, sound=False),
    "half the size": Change(crf=34, shrink=2, sound=False),
}
"""What becomes of the videos of a session beside the annotation of another one, without their sound."""


def renamed(folder: Path, out: Path) -> Path:
    """The same bytes under another session."""
    shutil.copytree(folder, out)
    return out


def disguised(folder: Path, out: Path, change: Change) -> Path:
    """Another recording by every id, clock and digest, with the signals of ``folder``."""
    copy_annotation(folder, out, change)
    copy_videos(folder, out, change)
    return out


def cut(folder: Path, out: Path, *, first: int, stop: int) -> Path:
    """A disguised copy of some frames of ``folder``, of whose videos it has only one, for the sound."""
    change = Change(first=first, stop=stop)
    copy_annotation(folder, out, change)
    copy_video(folder / "fisheye_cam0.mp4", out / "fisheye_cam0.mp4", change)
    return out


def with_new_ids(folder: Path, host: Path, out: Path) -> Path:
    """The episode ``host`` with an annotation whose arrays are those of ``folder``, ids and clock apart."""
    shutil.copytree(host, out)
    with h5py.File(folder / "annotation.hdf5") as source, h5py.File(out / "annotation.hdf5", "a") as target:
        for name in ("imu/accel_xyz", "imu/gyro_xyz", "slam/quat_wxyz", "slam/trans_xyz"):
            del target[name]
            copy = target.create_dataset(name, data=source[name][()], compression="gzip", chunks=True)
            copy.attrs["made_by"] = "somebody else"
    return out


def with_copied_video(folder: Path, host: Path, out: Path) -> Path:
    """The episode ``host`` with one video of ``folder`` under the name of another camera."""
    shutil.copytree(host, out)
    shutil.copy(folder / "stereo_left.mp4", out / "fisheye_cam1.mp4")
    return out


def with_videos_of(folder: Path, host: Path, out: Path, change: Change) -> Path:
    """The annotation of ``host`` beside newly encoded videos of ``folder``."""
    out.mkdir(parents=True)
    shutil.copy(host / "annotation.hdf5", out)
    copy_videos(folder, out, change)
    return out


def with_motion_of(folder: Path, host: Path, out: Path, change: Change) -> Path:
    """The videos of ``host`` beside the disguised annotation of ``folder``."""
    shutil.copytree(host, out)
    copy_annotation(folder, out, change)
    return out


def with_caption_of(folder: Path, host: Path, out: Path, *, reworded: bool) -> Path:
    """The episode ``host`` with the caption of ``folder``, its timestamps moved to the host's clock."""
    shutil.copytree(host, out)
    with h5py.File(folder / "annotation.hdf5") as source, h5py.File(out / "annotation.hdf5", "a") as target:
        old, new = (file["video/device_timestamp"][()].astype(np.int64) for file in (source, target))
        moved = {str(was): str(is_) for was, is_ in zip(old, new)}
        text = source["caption"][()].decode()
        text = re.sub(r"\d{14}", lambda stamp: moved.get(stamp.group(), stamp.group()), text)
        for word, other in SYNONYMS.items() if reworded else ():
            text = text.replace(word, other)
        del target["caption"]
        target["caption"] = text
    return out


def copy_annotation(folder: Path, out: Path, change: Change) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "annotation.hdf5") as source, h5py.File(out / "annotation.hdf5", "w") as target:
        names: list[str] = []
        source.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        stamps = source["video/device_timestamp"][()].astype(np.int64)
        stop = len(stamps) if change.stop is None else change.stop
        rows = slice(change.first, stop)
        noise = np.random.default_rng(len(stamps))
        imu_ns = source["imu/device_timestamp_ns"][()]
        inside = (imu_ns >= stamps[change.first]) & (imu_ns <= stamps[stop - 1])
        for name in names:
            value = source[name][()]
            if np.ndim(value) and len(value) == len(stamps):
                value = value[rows]
            elif name in ("imu/accel_xyz", "imu/gyro_xyz", "imu/device_timestamp_ns"):
                value = value[inside]
            if name in ("imu/accel_xyz", "imu/gyro_xyz", "slam/quat_wxyz", "slam/trans_xyz"):
                value = value.astype(np.float32).astype(np.float64)  # rounded: other bytes, the same motion
            elif np.ndim(value) and value.dtype.kind == "f" and not name.startswith(("imu", "calibration")):
                value = value.astype(np.float16).astype(value.dtype)
            elif name == "depth/confidence":
                value = value // 2 * 2
            if name in ("imu/accel_xyz", "imu/gyro_xyz"):
                value = value + change.imu_noise * value.std() * noise.standard_normal(value.shape)
            target[name] = value
        if not change.caption:
            del target["caption"]
            target["caption"] = '{"config": {"Main Task": "Something else"}, "segments": []}'
        _give_new_identity(target, stamps[rows], lead_ns=change.lead * NS_PER_FRAME)


def _give_new_identity(target: h5py.File, stamps: np.ndarray, *, lead_ns: int) -> None:
    """Another device, another clock; a lead makes the frames' clock begin before anything was measured."""
    lead = np.arange(stamps[0] - lead_ns, stamps[0], NS_PER_FRAME)
    clock = np.concatenate([lead, stamps]) + CLOCK_SHIFT_NS
    for name, texts in (
        ("video/device_timestamp", np.array([str(stamp) for stamp in clock], "S14")),
        ("slam/frame_names", np.array([f"{stamp}.jpg" for stamp in clock], "S18")),
        ("metadata/device_id", b"another device"),
        ("metadata/health_report", b"{}"),
    ):
        del target[name]
        target[name] = texts
    target["imu/device_timestamp_ns"][...] += CLOCK_SHIFT_NS
    del target["slam/point_cloud"]
    target["slam/point_cloud"] = np.random.default_rng(len(clock)).normal(size=(50, 3))
    if len(lead):
        for name in ("full_body_mocap", "hand_mocap", "depth", "slam/quat_wxyz", "slam/trans_xyz"):
            del target[name]


def copy_videos(folder: Path, out: Path, change: Change) -> None:
    write = copy_video if change.encoded else copy_pictures
    for camera in CAMERAS:
        write(folder / f"{camera}.mp4", out / f"{camera}.mp4", change)


def copy_pictures(source: Path, out: Path, _: Change) -> None:
    """The encoded pictures of ``source`` as they are, in a file of other bytes."""
    with av.open(str(source)) as given, av.open(str(out), "w") as container:
        video = container.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)


def copy_video(source: Path, out: Path, change: Change) -> None:
    """Encode pictures and sound anew; frame k of the copy is frame ``first + k - lead`` of the source."""
    pictures, sound = _pictures(source), _sound(source) if change.sound else None
    stop = len(pictures) if change.stop is None else change.stop + 1
    kept = [np.zeros_like(pictures[0])] * change.lead + pictures[change.first : stop]
    with av.open(str(out), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": str(change.crf), "threads": "1"})
        video.height, video.width = pictures[0][:: change.shrink, :: change.shrink].shape[:2]
        video.pix_fmt = "yuv420p"
        video.gop_size = change.gop
        audio = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for image in kept:
            small = image[:: change.shrink, :: change.shrink]
            shown = np.ascontiguousarray(small[:, ::-1] if change.mirror else small)
            container.mux(video.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(video.encode(None))
        if sound is not None:
            audio.bit_rate = 48_000
            first, last = (frame * RATE // FPS for frame in (change.first, stop))
            lead = np.zeros(change.lead * RATE // FPS, np.float32)
            samples = np.concatenate([lead, sound[first:last]])
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def give_sound(source: Path, video: Path) -> None:
    """Put the packets of sound of ``source`` beside the pictures of ``video``, which has none."""
    before = video.rename(video.with_suffix(".original"))
    with av.open(str(source)) as heard, av.open(str(before)) as seen, av.open(str(video), "w") as out:
        streams = (seen.streams.video[0], heard.streams.audio[0])
        copies = [out.add_stream_from_template(stream) for stream in streams]
        for stream, copied in zip(streams, copies, strict=True):
            for packet in stream.container.demux(stream):
                if packet.size:
                    packet.stream = copied
                    out.mux(packet)
    before.unlink()


def _pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _sound(path: Path) -> np.ndarray | None:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        return np.concatenate(list(_heard(container)))


def _heard(container: av.container.InputContainer) -> Iterator[np.ndarray]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    for frame in container.decode(audio=0):
        for piece in resampler.resample(frame):
            yield piece.to_ndarray()[0]
