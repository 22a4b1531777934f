"""The half of the policy's gate that looks at the model: its files, its weights, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from omni_mlflow.backbones.base_identity import BaseIdentity
from omni_mlflow.backbones.peft_adapter import CONFIG_NAME as ADAPTER_CONFIG
from omni_mlflow.backbones.peft_adapter import WEIGHTS_NAME as ADAPTER_WEIGHTS
from omni_mlflow.backbones.policy_vla_branch.base_model import (
    WEIGHTS_NAME,
    identify,
    load_model,
    load_processor,
    locate_base,
    stored_dtype,
)
from omni_mlflow.backbones.policy_vla_branch.canary import CANARY_NAME, Canary, ask_canary
from omni_mlflow.backbones.policy_vla_branch.heads import HEADS_NAME, HeadLabels
from omni_mlflow.backbones.policy_vla_branch.heads import WEIGHTS_NAME as HEAD_WEIGHTS
from omni_mlflow.backbones.policy_vla_branch.inference import load_policy
from omni_mlflow.backbones.policy_vla_branch.lora import FOLDER
from omni_mlflow.backbones.policy_vla_branch.model_rules import (
    CONFIG_NAME,
    PROCESSOR_NAME,
    RULES,
    TOKENIZER_NAME,
    SmallFiles,
)
from omni_mlflow.backbones.policy_vla_branch.settings import Settings
from omni_mlflow.backbones.policy_vla_branch.statistics import STATS_NAME, NormalizationStats
from omni_mlflow.backbones.policy_vla_branch.weight_rules import Weights, weight_checks
from omni_mlflow.spine.rows import read_document
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import Check, broken

FILES = (
    CONFIG_NAME,
    WEIGHTS_NAME,
    PROCESSOR_NAME,
    TOKENIZER_NAME,
    "tokenizer_config.json",
    HEADS_NAME,
    HEAD_WEIGHTS,
    STATS_NAME,
    CANARY_NAME,
    "base.json",
)
ADAPTER_FILES = (f"{FOLDER}/{ADAPTER_CONFIG}", f"{FOLDER}/{ADAPTER_WEIGHTS}")

_REPRODUCED = {"float32": 1e-3, "bfloat16": 0.1}
"""How far an answer may be from the stored one: in deviations of an action, and of a score as it is.

Another processor adds up in another order; weights that were trained in float32 are used in the precision of
the contract.
"""


def model_checks(folder: Path, settings: Settings, *, labels: HeadLabels) -> list[Check]:
    """Apply every rule to the model of a checkpoint; later ones only where earlier ones hold.

    Args:
        labels: of the heads, counted again on the train samples.
    """
    checks = [_files_are_there(folder, settings)]
    if broken(checks):
        return checks
    small = _attempt("small_files_are_readable", folder, lambda: _small(folder, settings, labels), checks)
    if small is None:
        return checks
    checks += [rule(small) for rule in RULES]
    if broken(checks):
        return checks
    model = _attempt("weights_load_whole", folder, lambda: _load(folder, settings), checks)
    if model is None:
        return checks
    checks.append(_one_embedding(folder))
    weights = _attempt("base_and_adapter_load", folder, lambda: _weights(folder, model, settings), checks)
    if weights is None:
        return checks
    checks += weight_checks(weights)
    return checks if broken(checks) else [*checks, _canary(folder, settings)]


def _files_are_there(folder: Path, settings: Settings) -> Check:
    """A folder of an adapter without the mode for it would be weights of an unknown origin, too."""
    adapted = settings.training.mode == "lora"
    wanted = [*FILES, *(ADAPTER_FILES if adapted else ())]
    missing = [name for name in wanted if not (folder / name).is_file()]
    strange = [FOLDER] if not adapted and (folder / FOLDER).exists() else []
    found = f"missing: {missing}; of another mode: {strange}"
    return Check(
        rule="model_files_are_those_of_the_mode",
        subject=", ".join([*missing, *strange]) or settings.training.mode,
        expected="missing: []; of another mode: []",
        found=found,
        ok=not missing and not strange,
    )


def _small(folder: Path, settings: Settings, labels: HeadLabels) -> SmallFiles:
    from safetensors.torch import load_file
    from transformers import PI0Config

    for name in (CONFIG_NAME, PROCESSOR_NAME, HEADS_NAME, STATS_NAME, CANARY_NAME, "base.json"):
        strict_json((folder / name).read_text(encoding="utf-8"))
    for name, form in ((CANARY_NAME, Canary), ("base.json", BaseIdentity)):
        read_document(folder / name, form)
    statistics = read_document(folder / STATS_NAME, NormalizationStats)
    location = locate_base(settings.base, num_dims=len(statistics.actions.mean))
    revision = settings.base.revision
    return SmallFiles(
        config=PI0Config.from_pretrained(folder),
        base_config=PI0Config.from_pretrained(location, revision=revision),
        processor=load_processor(folder, revision="main"),
        base_processor=load_processor(location, revision=revision),
        statistics=statistics,
        heads=load_file(folder / HEAD_WEIGHTS),
        head_labels=read_document(folder / HEADS_NAME, HeadLabels),
        train_labels=labels,
        settings=settings,
    )


def _one_embedding(folder: Path) -> Check:
    """A file with both ends of the tied embedding means different things to different libraries."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_NAME, "pt") as weights:
        both = [name for name in weights.keys() if name.endswith("language_model.embed_tokens.weight")]  # noqa: SIM118
    return Check(
        rule="embedding_is_saved_once",
        subject=WEIGHTS_NAME,
        expected="lm_head alone",
        found=f"also {both}" if both else "lm_head alone",
        ok=not both,
    )


def _load(folder: Path, settings: Settings) -> Any:
    return load_model(
        folder,
        revision="main",
        horizon=settings.action.horizon_frames,
        dtype=stored_dtype(settings),
    )


def _weights(folder: Path, model: Any, settings: Settings) -> Weights:
    from safetensors.torch import load_file

    adapted = settings.training.mode == "lora"
    statistics = read_document(folder / STATS_NAME, NormalizationStats)
    location = locate_base(settings.base, num_dims=len(statistics.actions.mean))
    base = load_model(
        location,
        revision=settings.base.revision,
        horizon=settings.action.horizon_frames,
        dtype=stored_dtype(settings),
    )
    return Weights(
        here=model.state_dict(),
        base=base.state_dict(),
        base_here=identify(base, location, settings.base),
        trained_on=read_document(folder / "base.json", BaseIdentity),
        adapter=load_file(folder / FOLDER / ADAPTER_WEIGHTS) if adapted else None,
        adapter_config=json.loads((folder / FOLDER / ADAPTER_CONFIG).read_text()) if adapted else None,
        config=model.config,
        settings=settings,
    )


def _canary(folder: Path, settings: Settings) -> Check:
    """Ask the made-up samples again: the stored answers, in physical units, must come back."""
    stored = read_document(folder / CANARY_NAME, Canary)
    loaded = load_policy(folder, settings)
    asked = ask_canary(loaded.policy, loaded.processor)
    deviations = np.array(loaded.processor.actions_std)
    pairs = [(np.array(asked.actions) / deviations, np.array(stored.actions) / deviations)]
    pairs += [(np.array(asked.scores[name]), np.array(stored.scores.get(name))) for name in asked.scores]
    same_shape = all(one.shape == other.shape for one, other in pairs)
    apart = [np.abs(one - other).ravel() for one, other in pairs] if same_shape else [np.array([np.inf])]
    distance = float(np.concatenate(apart).max())  # NaN as soon as one answer is; Python's max may drop it
    allowed = _REPRODUCED[settings.base.precision]
    return Check(
        rule="canary_answers_come_back",
        subject=CANARY_NAME,
        expected=f"within {allowed:g} deviations",
        found=f"{distance:.1e}",
        ok=distance <= allowed,
    )


def _attempt(rule: str, folder: Path, read: Callable[[], Any], checks: list[Check]) -> Any:
    """Return what ``read`` gives, or None; the check that it adds says whether and why not."""
    content, found = None, "readable"
    try:
        content = read()
    except Exception as error:  # whatever the libraries raise over files that they cannot use
        found = f"{type(error).__name__}: {error}"
    checks.append(
        Check(rule=rule, subject=folder.name, expected="readable", found=found, ok=content is not None)
    )
    return content
