"""Gate rules that look at what the model says to a few samples, its base weights loaded."""

from __future__ import annotations

import math
from typing import Any

from omni_mlflow.backbones.base import CheckpointUnderTest
from omni_mlflow.backbones.base_identity import BaseIdentity
from omni_mlflow.backbones.qwen3_omni_lora.base_model import (
    identify,
    load_processor,
    load_thinker,
    locate_base,
)
from omni_mlflow.backbones.qwen3_omni_lora.inference import checkpoint_processing
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.spine.rows import UNREADABLE, read_document
from omni_mlflow.spine.types import Check

_CHANGE = 1e-4
"""Smallest effect of an adapter that counts; without any effect the difference is exactly 0."""

_ABOVE_NOISE = 2.0
"""How often the effect must exceed the noise of the arithmetic, which merging the same adapter shows.

Below the last bits of the weights an adapter only stirs the rounding: with it the scores differ from those of
the base as from those of the merged model, in which it has vanished. That ratio is 1; a trained one has more.
"""

_RELOAD_SHARE = 0.1
"""A second loading computes the same; an adapter that it loses makes a difference as large as the change."""

_ROUNDING = {"float32": 1e-4, "bfloat16": 1e-1}
"""Largest difference that arithmetic explains: a merged weight is rounded to 8 bits in each of 48 layers."""


def canary_checks(checkpoint: CheckpointUnderTest) -> list[Check]:
    """Check that the adapter sits on its own base, changes what it says, and loads the same each time."""
    from peft import PeftModel

    settings: Settings = checkpoint.settings
    if not checkpoint.canaries.rows:
        return [_check("canaries_given", "at least one sample", "none", ok=False)]
    location = locate_base(settings.base)
    processor = load_processor(location, settings.base)
    processing = checkpoint_processing(processor, checkpoint.folder, checkpoint.canaries.media_root, settings)
    batch = processing.questions([row.sample for row in checkpoint.canaries.rows])

    base = load_thinker(location, settings.base)
    of_base = _sits_on_its_base(checkpoint, base, location)
    plain = _logits(base, batch)
    try:
        adapted = PeftModel.from_pretrained(base, checkpoint.folder).eval()
    except Exception as error:  # whatever PEFT or torch raise over an adapter that they cannot load
        return [
            *of_base,
            _check("adapter_loads", "loads with PEFT", f"{type(error).__name__}: {error}", ok=False),
        ]
    first = _logits(adapted, batch)
    again = PeftModel.from_pretrained(adapted.unload(), checkpoint.folder).eval()
    second = _logits(again, batch)
    merged = _logits(again.merge_and_unload(), batch)
    change, reload, merge = (_distance(first, other) for other in (plain, second, merged))
    return [*of_base, *_effect_checks(change, reload, merge, rounding=_ROUNDING[settings.base.precision])]


def _effect_checks(change: float, reload: float, merge: float, *, rounding: float) -> list[Check]:
    """Judge how far the scores of the adapter are from those of the base, of a second loading, of the merged.

    Args:
        rounding: the largest distance that the arithmetic explains.
    """
    noise = max(_CHANGE, _ABOVE_NOISE * merge)
    again_at_most = min(rounding, _RELOAD_SHARE * change)
    return [
        _check(
            "adapter_changes_the_base",
            f"more than {noise:.2e}, the noise of the arithmetic",
            f"{change:.2e}",
            ok=change > noise,
        ),
        _check(
            "reload_gives_same_logits",
            f"at most {again_at_most:.2e}, a tenth of the adapter's effect",
            f"{reload:.2e}",
            ok=reload <= again_at_most,
        ),
        _check("merge_gives_same_logits", f"at most {rounding:g}", f"{merge:.2e}", ok=merge <= rounding),
    ]


def _sits_on_its_base(checkpoint: CheckpointUnderTest, base: Any, location: str) -> list[Check]:
    """What lies below the adapter must be what it was trained on, wherever it is loaded from."""
    here = identify(base, location, checkpoint.settings.base)
    try:
        trained_on = read_document(checkpoint.folder / "base.json", BaseIdentity)
    except UNREADABLE as error:
        told = f"{type(error).__name__}: {error}"
        return [_base_check("base_weights_are_those_trained_on", here.fingerprint, told)]
    named = (f"{each.model} at {each.revision}, {each.source}" for each in (here, trained_on))
    return [
        _base_check("base_weights_are_those_trained_on", here.fingerprint, trained_on.fingerprint),
        _base_check("base_source_is_the_one_trained_on", *named),
    ]


def _base_check(rule: str, expected: str, found: str) -> Check:
    return Check(rule=rule, subject="base.json", expected=expected, found=found, ok=found == expected)


def _logits(model: Any, batch: Any) -> Any:
    """Return the scores of the first answer token, shape (samples, vocabulary)."""
    import torch

    with torch.inference_mode():
        thinker = model.get_base_model() if hasattr(model, "get_base_model") else model
        inputs = {name: value.to(thinker.device) for name, value in batch.items()}
        hidden = thinker.model(**inputs, use_cache=False).last_hidden_state
        return thinker.lm_head(hidden[:, -1]).float()


def _distance(one: Any, other: Any) -> float:
    """Largest difference between two score tables, relative to the largest score; NaN counts as infinite."""
    difference = float((one - other).abs().max() / one.abs().max())
    return math.inf if math.isnan(difference) else difference


def _check(rule: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(rule=rule, subject="canary samples", expected=expected, found=found, ok=ok)
