"""What files of a kind look like inside, whatever they are called.

A probe reads bytes and returns its evidence, or None. Signatures whose bytes cannot occur in UTF-8 text are
searched for anywhere, so a file that begins as harmless text is still caught; the others only count where
the format puts them.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from mmap import mmap
from typing import Any

Content = bytes | mmap
Probe = Callable[[Content], str | None]


@dataclass(frozen=True)
class Signature:
    """A byte pattern at the start of a file, or anywhere in it."""

    title: str
    pattern: re.Pattern[bytes]
    anywhere: bool

    def __call__(self, content: Content) -> str | None:
        find = self.pattern.search if self.anywhere else self.pattern.match
        found = find(content)
        return f"{self.title} at byte {found.start()}" if found else None


def first(title: str, pattern: bytes) -> Signature:
    return Signature(title, re.compile(pattern, re.DOTALL), anywhere=False)


def within(title: str, pattern: bytes) -> Signature:
    return Signature(title, re.compile(pattern, re.DOTALL), anywhere=True)


def safetensors(content: Content) -> str | None:
    """Eight bytes with the length of a JSON header, then the header."""
    length = int.from_bytes(content[:8], "little")
    fits = 2 <= length <= len(content) - 8
    return f"safetensors header of {length} bytes" if fits and content[8:9] == b"{" else None


def onnx(content: Content) -> str | None:
    """A protobuf message with the fields of ONNX's ModelProto, a version first and a graph among them."""
    fields: set[int] = set()
    for field in _protobuf_fields(content):
        if field not in _ONNX_FIELDS or (not fields and field != _ONNX_VERSION):
            return None
        fields.add(field)
    return "ONNX model with a graph" if _ONNX_GRAPH in fields else None


_ONNX_VERSION, _ONNX_GRAPH = 1, 7
_ONNX_FIELDS = {_ONNX_VERSION, 2, 3, 4, 5, 6, _ONNX_GRAPH, 8, 14, 20, 25, 26}


def _protobuf_fields(content: Content) -> Iterator[int]:
    """Yield the field number of every top-level field; 0 where the bytes are no protobuf message."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        length, after = _varint(content, position)
        sizes = {0: after - position, 1: 8, 2: after - position + length, 5: 4}
        if tag & 7 not in sizes:
            yield 0
            return
        yield tag >> 3
        position += sizes[tag & 7]


def _varint(content: Content, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(content[position : position + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        position += 1
        if byte < 0x80:
            break
    return value, position


def pickle_stream(content: Content) -> str | None:
    """Opcodes of a pickle up to its STOP, or many of them; a few may be chance."""
    names: list[str] = []
    try:
        for opcode, _, _ in islice(pickletools.genops(content[: 1 << 20]), 100):
            names.append(opcode.name)
    except (ValueError, IndexError, UnicodeDecodeError):
        pass
    binary = names[:1] == ["PROTO"]
    complete = names[-1:] == ["STOP"] and (binary or len(names) >= 4)
    return f"pickle of {len(names)} or more opcodes" if complete or (binary and len(names) >= 20) else None


def tar(content: Content) -> str | None:
    """A header block of 512 bytes with its own checksum, in octal."""
    header = content[:512]
    checksum = header[148:156].strip(b" \0")
    if len(header) < 512 or not checksum.isdigit() or b"8" in checksum or b"9" in checksum:
        return None
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return "tar header" if int(checksum, 8) == total else None


def zip_holding(title: str, pattern: str) -> Probe:
    """Make a probe for a zip file with a member whose name matches ``pattern``."""
    wanted = re.compile(pattern)

    def probe(content: Content) -> str | None:
        found = next(filter(wanted.search, _zip_members(content)), None)
        return f"{title}: zip member {found!r}" if found else None

    return probe


def _zip_members(content: Content) -> list[str]:
    if content.rfind(b"PK\x05\x06") < 0:
        return []
    source: Any = content if isinstance(content, mmap) else io.BytesIO(content)
    try:
        with zipfile.ZipFile(source) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


_BOX = rb"(?:ftyp|moov|moof|mdat|free|skip|wide|pnot|styp|sidx|uuid)"
_PICKLED = zip_holding("PyTorch file", r"(^|/)(data|constants|model|tensors)\.pkl$|(^|/)data/\d+$")

PROBES: Mapping[str, tuple[Probe, ...]] = {
    "raw_video": (
        within("MP4 file type box", rb"\x00\x00[\x00-\xff]{2}ftyp[ -~]{4}"),
        first("MP4 box", rb"\x00[\x00-\xff]{3}" + _BOX),
        within("Matroska or WebM header", rb"\x1aE\xdf\xa3"),
        within("AVI header", rb"RIFF[\x00-\xff]{4}AVI "),
        within("H.264 or H.265 parameter set", rb"\x00\x00\x00\x01[\x27\x47\x67\x40\x42]"),
        first("H.264 or H.265 stream", rb"\x00\x00\x00?\x01[\x06\x07\x09\x27\x47\x67\x40\x42\x44\x46\x4e]"),
        first("MPEG program stream", rb"\x00\x00\x01[\xb3\xba]"),
        first("MPEG transport stream", rb"(?:G..[\x10-\x3f].{184}){3}G"),
        first("Flash video", rb"FLV\x01"),
        within("Windows Media header", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
        first("IVF header", rb"DKIF\x00\x00"),
        first("uncompressed YUV4MPEG2 video", rb"YUV4MPEG2 "),
    ),
    "raw_audio": (
        within("WAVE header", rb"(?:RIFF|RIFX|RF64)[\x00-\xff]{4}WAVE"),
        within("AIFF header", rb"FORM[\x00-\xff]{4}AIF[FC]"),
        within("FLAC header", rb"fLaC[\x00\x80]\x00"),
        within("Ogg page", rb"OggS\x00[\x00-\x07]"),
        first("MP3 tag", rb"ID3[\x02-\x04]\x00"),
        first("MP3 frames", rb"(\xff[\xe2\xe3\xf2\xf3\xfa\xfb]).{22,2880}?\1"),
        first("AAC frames", rb"(\xff[\xf0\xf1\xf8\xf9]).{5,8190}?\1"),
        first("AMR header", rb"#!AMR"),
        first("Core Audio header", rb"caff\x00"),
    ),
    "raw_images": (
        within("PNG header", rb"\x89PNG\r\n\x1a\n"),
        first("JPEG header", rb"\xff\xd8\xff"),
        first("GIF header", rb"GIF8[79]a"),
        within("WebP header", rb"RIFF[\x00-\xff]{4}WEBP"),
        first("BMP header", rb"BM.{4}\x00\x00\x00\x00"),
        first("TIFF header", rb"II\*\x00|MM\x00\*"),
    ),
    "annotation_hdf5": (
        within("HDF5 signature", rb"\x89HDF\r\n\x1a\n"),
        first("HDF4 signature", rb"\x0e\x03\x13\x01"),
        first("netCDF signature", rb"CDF[\x01\x02\x05]"),
        first("Parquet table", rb"PAR1\x15"),
    ),
    "rerun_rrd": (
        first("Rerun recording", rb"RRF\d|RRIO"),
        within("Rerun stream header", rb"RRF\d[\x00-\xff]{4}[\x00-\x02][\x00-\x02]\x00\x00"),
    ),
    "model_weights": (
        safetensors,
        within("GGUF header", rb"GGUF[\x01-\x09]\x00\x00\x00"),
        first("GGML header", rb"(?:lmgg|fmgg|tjgg|algg)[\x00-\x09]"),
        within("NumPy array", rb"\x93NUMPY[\x01-\x03]"),
        first("TensorFlow Lite model", rb".{4}TFL3"),
        onnx,
        pickle_stream,
        zip_holding("NumPy archive", r"\.npy$"),
        _PICKLED,
        zip_holding("weights in an archive", r"\.(safetensors|gguf|onnx|bin|pt|pth|ckpt|h5|npz)$"),
    ),
    "checkpoints": (
        pickle_stream,
        _PICKLED,
        zip_holding(
            "training state in an archive",
            r"(^|[/_.-])(optimizer|scheduler|rng_state|checkpoint|global_step|training_args)|\.distcp$",
        ),
    ),
    "archives": (
        within("zip member", rb"PK\x03\x04[\x0a-\x3f]\x00"),
        within("zip directory", rb"PK\x05\x06\x00\x00"),
        first("gzip header", rb"\x1f\x8b\x08[\x00-\x1f]"),
        within("bzip2 header", rb"BZh[1-9]1AY&SY"),
        within("xz header", rb"\xfd7zXZ\x00"),
        within("7-Zip header", rb"7z\xbc\xaf'\x1c"),
        within("Zstandard frame", rb"\x28\xb5\x2f\xfd"),
        first("Zstandard skippable frame", rb"[\x50-\x5f]\x2a\x4d\x18"),
        within("LZ4 frame", rb"\x04\x22\x4d\x18"),
        within("RAR header", rb"Rar!\x1a\x07"),
        within("tar magic", rb"ustar(?:\x00\d\d|  \x00)"),
        tar,
        first("compress header", rb"\x1f[\x9d\xa0]"),
        first("ar archive", rb"!<arch>\n"),
        first("cabinet header", rb"MSCF\x00\x00\x00\x00"),
    ),
}
"""Probes of each category that a contract can forbid."""
