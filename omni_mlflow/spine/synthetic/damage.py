"""Files whose bytes are damaged: downloads that stopped, and a disk that lost a bit."""

from __future__ import annotations

import os
from pathlib import Path

from omni_mlflow.spine.annotation import ANNOTATION
from omni_mlflow.spine.synthetic.video_edits import put_index_first

CUT_BYTES = 5000
_GROUP_INDEX = b"TREE"  # the signature of the nodes in which HDF5 looks up the members of a group


def cut_short(folder: Path) -> None:
    annotation = folder / ANNOTATION
    os.truncate(annotation, annotation.stat().st_size - CUT_BYTES)


def empty_file(folder: Path) -> None:
    os.truncate(folder / ANNOTATION, 0)


def flipped_byte(folder: Path) -> None:
    """Spoil the index of the root group. In a sensor's numbers no reader could notice one byte."""
    annotation = folder / ANNOTATION
    damaged = bytearray(annotation.read_bytes())
    damaged[damaged.index(_GROUP_INDEX)] ^= 0xFF
    annotation.write_bytes(damaged)


def cut_video(folder: Path) -> None:
    """Cut an MP4 to its first half: the index of its pictures stands at the end, and is gone."""
    _halve(folder / "fisheye_cam2.mp4")


def cut_stream(folder: Path) -> None:
    """Cut an MP4 for streaming to its first half: it opens, and its first pictures can be seen."""
    video = folder / "fisheye_cam2.mp4"
    put_index_first(video)
    _halve(video)


def _halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)
