"""Finds and loads the frozen model below the adapter: hub, folder or tiny, all by the same calls."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.qwen3_omni_lora.libraries import prepare_libraries
from omni_mlflow.backbones.qwen3_omni_lora.settings import TINY, Base
from omni_mlflow.spine.types import Row


class BaseModelError(Exception):
    """The base model cannot be loaded as the contract names it."""


class BaseIdentity(Row):
    """Which weights an adapter was trained on; ``base.json`` of a checkpoint.

    Attributes:
        model, revision: as the contract names them; never a path of one machine that it does not name.
        commit: the hub's commit, when the weights came from the hub.
        fingerprint: sha256 of the weights of the first router and the last norm.
    """

    model: str
    revision: str
    commit: str | None
    fingerprint: str


def device() -> Any:
    """Return the accelerator if there is one, of several that of this launched process; else the CPU.

    There torch is limited to one thread: more that compete for the same cores wait for each other most of
    the time.
    """
    prepare_libraries()
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.set_num_threads(1)
    return torch.device("cpu")


def locate_base(base: Base, *, on_step: Callable[[int, int], None] | None = None) -> str:
    """Return the hub id or folder to load ``base`` from; builds the tiny base when it is not cached.

    Args:
        on_step: told how many steps of that building are done, and how many there are.

    Raises:
        BaseModelError: the local copy of the weights is none.
    """
    if base.model == TINY:
        from omni_mlflow.backbones.qwen3_omni_lora.warm_base import warm_base

        return str(warm_base(on_step))
    if not base.local_copy:
        return base.model
    if not (Path(base.local_copy) / "config.json").is_file():
        raise BaseModelError(
            f"{base.local_copy}, the local copy of {base.model}, holds no config.json; point the contract's "
            "local_model_env at a checkpoint or unset it"
        )
    return base.local_copy


def load_processor(location: str, base: Base) -> Any:
    prepare_libraries()
    from transformers import Qwen3OmniMoeProcessor

    return Qwen3OmniMoeProcessor.from_pretrained(location, revision=base.revision)


def load_config(location: str, base: Base) -> Any:
    """Return the configuration of the thinker, whichever layout the checkpoint has."""
    prepare_libraries()
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(location, revision=base.revision)
    return getattr(config, "thinker_config", config)


def load_thinker(location: str, base: Base) -> Any:
    """Load the thinker alone: the full class has no ``forward``, and speech is not wanted.

    Raises:
        BaseModelError: the checkpoint does not hold every weight of the thinker.
    """
    prepare_libraries()
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

    model, report = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(
        location,
        revision=base.revision,
        dtype=base.precision,
        device_map=str(device()),
        experts_implementation="grouped_mm" if device().type == "cuda" else "eager",
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise BaseModelError(f"{location} lacks {len(missing)} weights of the thinker, e.g. {missing[0]}")
    return model.eval()


def identify(model: Any, base: Base) -> BaseIdentity:
    """Say which weights ``model`` (a thinker without adapter) has."""
    import torch

    text = model.model.language_model
    whole = hashlib.sha256()
    for weight in (text.layers[0].mlp.gate.weight, text.norm.weight):
        whole.update(weight.detach().to("cpu", torch.float32).numpy().tobytes())
    return BaseIdentity(
        model=base.model,
        revision=base.revision,
        commit=getattr(model.config, "_commit_hash", None),
        fingerprint=whole.hexdigest(),
    )
