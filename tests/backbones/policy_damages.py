"""Ways to damage a policy checkpoint: each changes one thing in the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.policy_vla_branch.heads import HEADS_NAME, WEIGHTS_NAME, HeadLabels, new_heads
from omni_mlflow.spine.rows import read_document

Damage = Callable[[Path], Any]

STATS = "normalization_stats.json"


def tensors(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        found = load_file(folder / name)
        change(found)
        contiguous = {key: tensor.contiguous() for key, tensor in found.items()}
        save_file(contiguous, folder / name, metadata={"format": "pt"})

    return apply


def weight(name: str, change: Callable[[Any], Any]) -> Damage:
    return tensors("model.safetensors", lambda found: found.update({name: change(found[name])}))


def document(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def text(name: str, old: str, new: str) -> Damage:
    def apply(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content
        (folder / name).write_text(content.replace(old, new, 1))

    return apply


def numbers(name: str, place: int, value: float) -> Damage:
    """Change a number of the statistics where it is recorded and where it is used."""
    block, _, field = name.partition(".")
    return both(
        document(STATS, lambda found: found[block][field].__setitem__(place, value)),
        document("processor_config.json", lambda found: found[f"{block}_{field}"].__setitem__(place, value)),
    )


def nan(tensor: Any) -> Any:
    tensor = tensor.clone()
    tensor.view(-1)[0] = float("nan")
    return tensor


def swapped(one: slice, other: slice, *, axis: int) -> Callable[[Any], Any]:
    """Exchange two parts of a tensor along an axis."""

    def apply(tensor: Any) -> Any:
        tensor = tensor.clone()
        length = one.stop - one.start
        kept = tensor.narrow(axis, one.start, length).clone()
        tensor.narrow(axis, one.start, length).copy_(tensor.narrow(axis, other.start, length).clone())
        tensor.narrow(axis, other.start, length).copy_(kept)
        return tensor

    return apply


def reversed_velocities(tensor: Any) -> Any:
    tensor = tensor.clone()
    tensor[:, 20:26] = tensor[:, 20:26].flip(1)
    return tensor


def untrained_heads(*only: str, seed: int) -> Damage:
    """Draw heads anew: all of them, or the ones named."""

    def apply(folder: Path) -> None:
        fresh = new_heads(read_document(folder / HEADS_NAME, HeadLabels), seed=seed).state_dict()
        chosen = {name: tensor for name, tensor in fresh.items() if not only or name.startswith(only)}
        tensors(WEIGHTS_NAME, lambda found: found.update(chosen))(folder)

    return apply


def copy_base(folder: Path) -> None:
    base = json.loads((folder / "base.json").read_text())["model"]
    (folder / "model.safetensors").write_bytes((Path(base) / "model.safetensors").read_bytes())
