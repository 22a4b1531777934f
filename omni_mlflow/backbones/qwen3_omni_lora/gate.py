"""Checks a LoRA checkpoint before anything is evaluated with it.

PEFT loads leniently: missing keys only warn, surplus keys are silent. So the files are read again and
compared with the contract, with arithmetic over the base's configuration (``adapter_rules.py``), with PEFT's
own expectation, and at last with what the model says (``canaries.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import CheckpointUnderTest
from omni_mlflow.backbones.base_weights import BaseModelError
from omni_mlflow.backbones.peft_adapter import CONFIG_NAME, WEIGHTS_NAME
from omni_mlflow.backbones.qwen3_omni_lora.adapter_rules import (
    RULES,
    AdapterFiles,
    equals_peft_expectation,
)
from omni_mlflow.backbones.qwen3_omni_lora.base_model import load_config, locate_base
from omni_mlflow.backbones.qwen3_omni_lora.canaries import canary_checks
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import UNREADABLE, digest_of, read_document
from omni_mlflow.spine.strict_json import storable_json
from omni_mlflow.spine.types import Check, broken


def lora_safetensors_shape_check(checkpoint: CheckpointUnderTest) -> list[Check]:
    """Apply every rule to a checkpoint; rules that need a readable or sound adapter run only on one."""
    settings: Settings = checkpoint.settings
    folder = checkpoint.folder
    checks = [fitted_on_train(folder, checkpoint.fitted)]
    config = _read(folder / CONFIG_NAME, _mapping, checks, rule="adapter_config_is_readable")
    tensors = _read(folder / WEIGHTS_NAME, _tensors, checks, rule="adapter_weights_are_readable")
    base_config = _read_base(settings, checks)
    if config is None or tensors is None or base_config is None:
        return checks
    files = AdapterFiles(config, tensors, base_config, settings)
    checks += [rule(files) for rule in RULES]
    if broken(checks):
        return checks
    return [*checks, equals_peft_expectation(files), *canary_checks(checkpoint)]


def fitted_on_train(folder: Path, priors: TrainPriors) -> Check:
    """What was fitted must be what the train samples give when they are counted again."""
    expected = digest_of(priors)
    try:
        found = digest_of(read_document(folder / "fitted.json", TrainPriors))
    except UNREADABLE as error:
        found = f"{type(error).__name__}: {error}"
    return Check(
        rule="fitted_on_train_only",
        subject="fitted.json",
        expected=expected,
        found=found,
        ok=found == expected,
    )


def _read(path: Path, read: Callable[[Path], Any], checks: list[Check], *, rule: str) -> Any:
    """Return what ``read`` makes of a file, or None; the check that it adds says whether and why."""
    from safetensors import SafetensorError

    content, found = None, "readable"
    try:
        content = read(path)
    except (OSError, ValueError, SafetensorError) as error:
        found = f"{type(error).__name__}: {error}"
    checks.append(
        Check(rule=rule, subject=path.name, expected="readable", found=found, ok=found == "readable")
    )
    return content


def _mapping(path: Path) -> dict[str, Any]:
    content = storable_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - unreadable like any other content
    return content


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _read_base(settings: Settings, checks: list[Check]) -> Any:
    """Return the configuration of the base, or None with a broken rule that says why there is none."""
    config, found = None, "readable"
    try:
        config = load_config(locate_base(settings.base), settings.base)
    except (OSError, ValueError, BaseModelError) as error:
        found = f"{type(error).__name__}: {error}"
    checks.append(
        Check(
            rule="base_config_is_readable",
            subject=settings.base.model,
            expected="readable",
            found=found,
            ok=found == "readable",
        )
    )
    return config
