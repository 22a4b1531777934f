"""A LoRA adapter as PEFT knows it: its untrained weights, the shapes they must have, and its two files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omni_mlflow.spine.rows import write_document
from omni_mlflow.spine.types import Check

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"


def add_adapter(model: Any, config: Any, *, seed: int) -> Any:
    """Wrap ``model`` with an untrained adapter; the same seed draws the same weights.

    Args:
        config: PEFT's; the base's id and revision stay as it says, wherever ``model`` was loaded from.
    """
    import torch
    from peft import get_peft_model

    base, revision = config.base_model_name_or_path, config.revision
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, config)
    adapter = wrapped.peft_config["default"]
    adapter.base_model_name_or_path, adapter.revision = base, revision
    return wrapped


def adapter_weights(wrapped: Any) -> dict[str, Any]:
    """Return the adapter's tensors by the names that PEFT stores them under."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(wrapped, save_embedding_layers=False))


def save_adapter(wrapped: Any, folder: Path) -> None:
    """Write both files, for ``PeftModel.from_pretrained`` to load; same adapter, same bytes."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_weights(wrapped).items()}
    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    config = {**wrapped.peft_config["default"].to_dict(), "inference_mode": True}
    write_document(folder / CONFIG_NAME, json.loads(json.dumps(config, default=sorted)))


def adapter_shapes(make_model: Callable[[], Any], config: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every adapter tensor as PEFT makes them; needs no weights.

    Args:
        make_model: builds the base from its configuration.
    """
    import torch
    from peft import get_peft_model

    with torch.device("meta"):
        model = make_model()
    wrapped = get_peft_model(model, config, low_cpu_mem_usage=True)
    return {name: tuple(tensor.shape) for name, tensor in adapter_weights(wrapped).items()}


def config_check(
    found: Mapping[str, Any], wanted: Any, *, but: Collection[str], shown: Sequence[str]
) -> Check:
    """Compare all of ``adapter_config.json`` with what PEFT would be told, so that no key changes it unseen.

    A key that the file lacks has PEFT's default, as PEFT reads it; one that PEFT does not know differs.
    A value of another type differs too: to Python 4.0 is 4 and 1 is true, to the code that loads it not.

    Args:
        wanted: PEFT's configuration.
        but: keys that are not compared.
        shown: keys that are told where none differs.
    """
    from peft import LoraConfig

    expected = _plain({**wanted.to_dict(), "inference_mode": True})
    here = _plain({**LoraConfig().to_dict(), "inference_mode": True, **found})
    keys = sorted({*expected, *here} - {*but})
    different = [key for key in keys if _spelled(here.get(key)) != _spelled(expected.get(key))]
    told = different or shown
    return Check(
        rule="adapter_config_matches_contract",
        subject=CONFIG_NAME,
        expected=str({key: expected.get(key) for key in told}),
        found=str({key: here.get(key) for key in told}),
        ok=not different,
    )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as its file holds it: names that PEFT keeps in a set have no order there."""
    plain = dict(config)
    for key in ("target_modules", "target_parameters", "modules_to_save"):
        value = plain.get(key)
        if isinstance(value, set | list | tuple) and all(isinstance(each, str) for each in value):
            plain[key] = sorted(value)
    return plain


def _spelled(value: Any) -> str:
    """The value as JSON; sets and whatever else only PEFT knows as their own text."""
    return json.dumps(value, sort_keys=True, default=repr)
