"""The categories that a contract can forbid, each with a detector that reads the bytes of a file."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from omni_mlflow.publication.signatures import PROBES, Content, Probe

Detector = Callable[[Path], str | None]
"""Returns what gives a file away, or None."""


def _detect(probes: Sequence[Probe], path: Path) -> str | None:
    with _content(path) as content:
        return evidence_of(probes, content)


def _detect_checkpoint(path: Path) -> str | None:
    """Also knows a checkpoint folder by the names of the training state that lies in it."""
    if not path.is_dir():
        return _detect(PROBES["checkpoints"], path)
    names = (found.relative_to(path).as_posix() for found in sorted(path.rglob("*")))
    state = next(filter(TRAINING_STATE.search, names), None)
    return f"checkpoint folder with {state!r}" if state else None


TRAINING_STATE = re.compile(
    r"(^|/)(checkpoint-\d+|global_step\d+|optimizer\.\w+|scheduler\.\w+|rng_state\w*\.\w+|trainer_state\.json"
    r"|[\w.-]+\.(safetensors|distcp|gguf|onnx|pt|pth|ckpt))$"
)


def evidence_of(probes: Sequence[Probe], content: Content) -> str | None:
    """Return the first evidence that ``probes`` find in ``content``."""
    return next((evidence for probe in probes if (evidence := probe(content)) is not None), None)


def embedded_kind(content: bytes) -> str | None:
    """Say which forbidden kind of file ``content`` is, if any."""
    for category, probes in PROBES.items():
        if evidence := evidence_of(probes, content):
            return f"{category}: {evidence}"
    return None


@contextmanager
def _content(path: Path) -> Iterator[Content]:
    """Map the file instead of reading it: a checkpoint may be larger than the memory."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


DETECTORS: Mapping[str, Detector] = {
    **{category: partial(_detect, probes) for category, probes in PROBES.items()},
    "checkpoints": _detect_checkpoint,
}
"""Detector of each category by the name a contract uses in ``public_package_forbidden``."""
