"""State from which an interrupted training goes on bit for bit: weights, optimiser and step, no pickle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omni_mlflow.spine.rows import read_document, write_document
from omni_mlflow.spine.types import Row

_KEPT = 2
_STATE_NAME = "state.json"


class TrainingState(Row):
    """How far a saved state had come.

    Attributes:
        step: optimiser steps done.
        last_loss: training loss of that step.
    """

    step: int
    last_loss: float


def save_state(folder: Path, model: Any, optimizer: Any, state: TrainingState) -> None:
    """Write one state; it appears under its final name only when it is whole. The last two are kept."""
    from safetensors.torch import save_file

    temporary = folder / f".step-{state.step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_flat(model, optimizer), temporary / "tensors.safetensors")
    write_document(temporary / _STATE_NAME, state)
    final = _place(folder, state.step)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in saved_steps(folder)[:-_KEPT]:
        shutil.rmtree(_place(folder, old))


def saved_steps(folder: Path) -> list[int]:
    """Return the steps whose state was saved whole and is kept, first one first."""
    whole = (path for path in folder.glob("step-*") if (path / _STATE_NAME).is_file())
    return sorted(int(path.name.removeprefix("step-")) for path in whole)


def drop_states(folder: Path, *, after: int) -> None:
    """Remove the states of later steps: they are about to be made again."""
    for step in saved_steps(folder):
        if step > after:
            shutil.rmtree(_place(folder, step))


def load_state(folder: Path, step: int, model: Any, optimizer: Any) -> TrainingState:
    """Put the saved state of ``step`` into ``model`` and ``optimizer``."""
    from safetensors.torch import load_file

    place = _place(folder, step)
    tensors = load_file(place / "tensors.safetensors")
    for name, parameter in _trainable(model):
        parameter.data.copy_(tensors[f"weight.{name}"])
        optimizer.state[parameter] = {
            key: tensors[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
            for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return read_document(place / _STATE_NAME, TrainingState)


def _flat(model: Any, optimizer: Any) -> dict[str, Any]:
    """Every trainable tensor and its Adam moments, by name of the parameter."""
    tensors = {}
    for name, parameter in _trainable(model):
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def _trainable(model: Any) -> list[tuple[str, Any]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"
