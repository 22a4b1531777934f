"""Which part of the held-out samples a process asks: by options, or as one of several launched together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from omni_mlflow.stages.base import Shard


def shard_of(given: Mapping[str, Any]) -> Shard | None:
    """Read which part of the samples this process asks; None for all of them.

    Under ``accelerate launch``, or anything else that sets RANK and WORLD_SIZE, each process is one shard.
    """
    if "sample_stride" not in given:
        return None
    offset, stride = given["sample_offset"], given["sample_stride"]
    launched = _launched()
    if launched is not None:
        if (offset, stride) != (0, 1):
            raise click.BadParameter(
                f"{launched.stride} processes were launched, and each is a shard already; leave it out",
                param_hint="--sample-stride",
            )
        return launched
    if offset >= stride:
        raise click.BadParameter(
            f"{offset} is no shard of {stride}; they are numbered from 0 to {stride - 1}",
            param_hint="--sample-offset",
        )
    return Shard(offset, stride) if stride > 1 else None


def _launched() -> Shard | None:
    """Which of several launched processes this one is, by RANK and WORLD_SIZE; None where it is the only one.

    An empty variable is one that is not set.

    Raises:
        UsageError: the two do not tell.
    """
    told = {name: os.environ.get(name) or None for name in ("RANK", "WORLD_SIZE")}
    numbers = {name: int(text) for name, text in told.items() if text is not None and text.isdecimal()}
    processes = numbers.get("WORLD_SIZE")
    if told["WORLD_SIZE"] is None or processes == 1:
        return None
    rank = numbers.get("RANK")
    if not processes or rank is None or rank >= processes:
        said = ", ".join(
            f"{name} is {text!r}" if text is not None else f"{name} is not set" for name, text in told.items()
        )
        raise click.UsageError(
            f"{said}: a launcher numbers its processes from 0 to WORLD_SIZE - 1; set both so, or neither"
        )
    return Shard(rank, processes)
