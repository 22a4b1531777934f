"""Rules over a checkpoint's weights, with those of its base beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_mlflow.backbones.base_identity import BaseIdentity
from omni_mlflow.backbones.peft_adapter import WEIGHTS_NAME, config_check
from omni_mlflow.backbones.policy_vla_branch.lora import (
    FOLDER,
    TARGETS,
    WHOLE,
    expected_shapes,
    lora_config,
)
from omni_mlflow.backbones.policy_vla_branch.model_rules import all_finite, differing_shapes
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.spine.types import Check

MODEL_NAME = "model.safetensors"
UNREAD = "model.dit.embed_tokens.weight"
"""The expert reads no tokens: no training changes its embedding."""

TRAINED_PARTS = ("model.vlm.language_model.layers.", "model.dit.layers.", "action_out_proj.")

_SUMMING = 1e-5
"""Largest difference of a merged weight that float32 sums explain, as a share of the largest weight."""
_FRACTION_BITS = {"float32": 23, "bfloat16": 7}


@dataclass(frozen=True)
class Weights:
    """Tensors by the names of the model's modules.

    Attributes:
        here, base: of the checkpoint and of the base, loaded from where the contract says.
        base_here: which base that is; ``trained_on``: which one the checkpoint names.
        adapter, adapter_config: what lies beside merged weights; None after a full training.
    """

    here: Mapping[str, Any]
    base: Mapping[str, Any]
    base_here: BaseIdentity
    trained_on: BaseIdentity
    adapter: Mapping[str, Any] | None
    adapter_config: Mapping[str, Any] | None
    config: Any
    settings: Settings


def weight_checks(weights: Weights) -> list[Check]:
    """Apply every rule; those of the adapter only where one was trained."""
    checks = [
        *_of_base(weights),
        all_finite("weights_are_finite", MODEL_NAME, weights.here),
        _differ_from_base(weights),
        _frozen_are_the_bases(weights),
    ]
    if weights.adapter is None or weights.adapter_config is None:
        return checks
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.adapter.items()}
    lora, base = weights.settings.lora, weights.settings.base
    checks += [
        config_check(
            weights.adapter_config,
            lora_config(lora, base),
            but=("peft_version", "auto_mapping"),
            shown=("r", "lora_alpha", "base_model_name_or_path", "revision"),
        ),
        differing_shapes(
            "adapter_equals_peft_expectation",
            WEIGHTS_NAME,
            shapes,
            expected_shapes(weights.config, lora, base),
        ),
        all_finite("adapter_is_finite", WEIGHTS_NAME, weights.adapter),
    ]
    if all(check.ok for check in checks):
        checks.append(_is_merged(weights, weights.adapter))
    return checks


def _of_base(weights: Weights) -> list[Check]:
    here, told = weights.base_here, weights.trained_on
    named = [f"{each.model} at {each.revision}, {each.source}" for each in (here, told)]
    return [
        _check("base_source_is_the_one_trained_on", "base.json", *named, ok=named[0] == named[1]),
        _check(
            "base_weights_are_those_trained_on",
            "base.json",
            here.fingerprint,
            told.fingerprint,
            ok=here.fingerprint == told.fingerprint,
        ),
    ]


def _differ_from_base(weights: Weights) -> Check:
    """Training reached both transformers and the output. Not every tensor has to change: the flow of actions
    alone does not reach all of the last text layer, and small changes vanish in a merged bfloat16 weight.
    """
    same = [
        part
        for part in TRAINED_PARTS
        if not any(_changed(name, weights) for name in weights.base if name.startswith(part))
    ]
    return _listed("weights_differ_from_the_base", f"changes in {', '.join(TRAINED_PARTS)}", same)


def _frozen_are_the_bases(weights: Weights) -> Check:
    moved = [
        name for name in weights.base if not _trained(name, weights.settings) and _changed(name, weights)
    ]
    return _listed("frozen_weights_are_the_bases", "what was not to be trained is as it was", moved)


def _trained(name: str, settings: Settings) -> bool:
    if settings.training.mode == "full":
        return name != UNREAD
    module = name.rpartition(".")[0]
    return bool(re.fullmatch(TARGETS, module)) or module.rpartition(".")[2] in WHOLE


def _changed(name: str, weights: Weights) -> bool:
    return bool((weights.here[name].float() != weights.base[name].float()).any())


def _is_merged(weights: Weights, adapter: Mapping[str, Any]) -> Check:
    """Base plus scaled B A is what the checkpoint holds, and what was trained whole is its copy.

    Weight by weight: in bfloat16 many changes are no larger than a step from one number to the next, so as a
    share of the largest weight none of them would be seen.
    """
    lora, bits = weights.settings.lora, _FRACTION_BITS[weights.settings.base.precision]
    wrong = []
    for name, here in weights.here.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            product = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
            change = lora.alpha / lora.rank * product
            expected = weights.base[name].float().cpu() + change
        elif f"base_model.model.{name}" in adapter:
            expected = change = adapter[f"base_model.model.{name}"]
        else:
            continue
        apart = (expected - here.float().cpu()).abs()
        slack = _half_step(expected, bits) + _half_step(change, bits) + _SUMMING * expected.abs().max()
        if not bool((apart <= slack).all()):
            wrong.append(f"{name} by {float(apart.max()):.1e}")
    return _listed("adapter_is_merged_into_the_weights", "what rounding explains", wrong, f"{FOLDER}/")


def _half_step(values: Any, fraction_bits: int) -> Any:
    """Half the step from each value to the next that the precision knows: what rounding may change."""
    import torch

    _, exponent = torch.frexp(values.float())  # values = m 2^exponent, m from 0.5 to 1
    return torch.ldexp((values != 0).float(), exponent - fraction_bits - 2)


def _listed(rule: str, expected: str, wrong: list[str], subject: str = MODEL_NAME) -> Check:
    shown = "; ".join(sorted(wrong)[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return _check(rule, subject, expected, shown or "as expected", ok=not wrong)


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool) -> Check:
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=ok)
