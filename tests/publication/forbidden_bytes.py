"""Tiny files of every kind that must not leave, made by the libraries that really write them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import wave
import zipfile
from collections.abc import Callable
from functools import cache

import av
import h5py
import numpy as np
from safetensors.numpy import save

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


@cache
def video(container: str, codec: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as media:
        stream = media.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for shade in (0, 80, 160):
            picture = np.full((32, 32, 3), shade, dtype=np.uint8)
            media.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        media.mux(stream.encode())
    return out.getvalue()


@cache
def audio(container: str, codec: str, sample_format: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as media:
        stream = media.add_stream(codec, rate=48_000)
        stream.layout, stream.format = "mono", sample_format
        kind = np.int16 if sample_format == "s16" else np.float32
        for start in range(0, 9600, 960):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), dtype=kind), sample_format, "mono")
            frame.sample_rate, frame.pts = 48_000, start
            media.mux(stream.encode(frame))
        media.mux(stream.encode())
    return out.getvalue()


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(320))
    return out.getvalue()


def hdf5(*, user_block: int = 0) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w", userblock_size=user_block) as file:
        file["depth"] = ARRAY
    content = bytearray(out.getvalue())
    content[:user_block] = b"# An innocent report\n".ljust(user_block) if user_block else b""
    return bytes(content)


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, ARRAY)
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, weights=ARRAY)
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return out.getvalue()


def tarred(mode: str, layout: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=layout) as archive:
        member = tarfile.TarInfo("notes.md")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    return out.getvalue()


def old_tar() -> bytes:
    """A tar of before POSIX: no magic, only the checksum of its header."""
    header = bytearray(tarred("w", tarfile.USTAR_FORMAT)[:1024])
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def onnx() -> bytes:
    """ModelProto by hand: ir_version 8, producer "t", a graph named "g"."""
    return b"\x08\x08" + b"\x12\x01t" + b"\x3a\x03\x12\x01g"


def torch_zip() -> bytes:
    return zipped(archive__data_pkl=b"").replace(b"data_pkl", b"data.pkl")


def png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(17)


def noise(size: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()


FORBIDDEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "mp4": ("raw_video", lambda: video("mp4", "libx264")),
    "mkv": ("raw_video", lambda: video("matroska", "libx264")),
    "webm": ("raw_video", lambda: video("webm", "libvpx")),
    "avi": ("raw_video", lambda: video("avi", "mpeg4")),
    "h264": ("raw_video", lambda: video("h264", "libx264")),
    "h265": ("raw_video", lambda: video("hevc", "libx265")),
    "mpegts": ("raw_video", lambda: video("mpegts", "libx264")),
    "y4m": ("raw_video", lambda: video("yuv4mpegpipe", "rawvideo")),
    "wav": ("raw_audio", wav),
    "flac": ("raw_audio", lambda: audio("flac", "flac", "s16")),
    "mp3": ("raw_audio", lambda: audio("mp3", "libmp3lame", "fltp")),
    "aac": ("raw_audio", lambda: audio("adts", "aac", "fltp")),
    "ogg": ("raw_audio", lambda: audio("ogg", "libopus", "s16")),
    "png": ("raw_images", png),
    "hdf5": ("annotation_hdf5", hdf5),
    "hdf5_after_text": ("annotation_hdf5", lambda: hdf5(user_block=1024)),
    "rrd": ("rerun_rrd", lambda: b"RRF2\x00\x17\x00\x00\x01\x02\x00\x00" + bytes(64)),
    "rrd_of_old": ("rerun_rrd", lambda: b"RRF0" + bytes(64)),
    "safetensors": ("model_weights", lambda: save({"lora_A": ARRAY})),
    "gguf": ("model_weights", lambda: b"GGUF\x03\x00\x00\x00" + bytes(16)),
    "onnx": ("model_weights", onnx),
    "npy": ("model_weights", npy),
    "npz": ("model_weights", npz),
    "torch": ("model_weights", torch_zip),
    "torch_checkpoint": ("checkpoints", torch_zip),
    "pickle": ("checkpoints", lambda: pickle.dumps({"step": 3, "loss": [0.5]})),
    "old_pickle": ("checkpoints", lambda: pickle.dumps({"step": 3, "loss": [0.5]}, protocol=0)),
    "optimizer_zip": ("checkpoints", lambda: zipped(run__optimizer_bin=b"m")),
    "zip": ("archives", lambda: zipped(notes=b"hello")),
    "nested_zip": ("archives", lambda: zipped(inner=zipped(video=video("mp4", "libx264")))),
    "empty_zip": ("archives", zipped),
    "gzip": ("archives", lambda: gzip.compress(b"hello")),
    "tar": ("archives", lambda: tarred("w")),
    "old_tar": ("archives", old_tar),
    "tgz": ("archives", lambda: tarred("w:gz")),
    "bzip2": ("archives", lambda: bz2.compress(b"hello")),
    "xz": ("archives", lambda: lzma.compress(b"hello")),
    "zstd": ("archives", lambda: b"\x28\xb5\x2f\xfd\x04\x00\x29\x00\x00hello"),
    "7z": ("archives", lambda: b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24)),
    "rar": ("archives", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(24)),
    "text_then_mp4": ("raw_video", lambda: b"# Run report\n\n" + video("mp4", "libx264")),
    "text_then_zip": ("archives", lambda: b'{"ok": true}\n' + zipped(notes=b"hello")),
}
"""For each kind of file, the category that must catch it and how to make one."""
