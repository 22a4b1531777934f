"""Checks a LoRA checkpoint before anything is evaluated with it.

PEFT loads leniently: missing keys only warn, surplus keys are silent. So each rule here reads the
files again and compares them with the contract, with arithmetic over the base's configuration and with
PEFT's own expectation. None of these rules needs the base weights; ``canaries.py`` holds those that do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.backbones.base import CheckpointUnderTest
from omni_mlflow.backbones.qwen3_omni_lora.adapter import CONFIG_NAME, WEIGHTS_NAME, expected_shapes
from omni_mlflow.backbones.qwen3_omni_lora.base_model import load_config, locate_base
from omni_mlflow.backbones.qwen3_omni_lora.canaries import canary_checks
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.rows import BadRowError, digest_of, read_document
from omni_mlflow.spine.strict_json import strict_json
from omni_mlflow.spine.types import Check, broken

KEY = re.compile(
    r"base_model\.model\.model\.language_model\.layers\.(?P<layer>\d+)\."
    r"(?P<part>self_attn\.[qkvo]_proj|mlp\.experts\.base_layer|mlp\.experts)\.lora_(?P<side>[AB])\.weight"
)
"""Adapter tensors of the language model. PEFT nests the two expert weights: the inner is gate_up_proj."""


@dataclass(frozen=True)
class AdapterFiles:
    """A checkpoint's adapter as its files hold it, beside what it belongs to.

    Attributes:
        config: content of ``adapter_config.json``.
        tensors: content of ``adapter_model.safetensors``.
        base_config: configuration of the thinker.
    """

    config: dict[str, Any]
    tensors: dict[str, Any]
    base_config: Any
    settings: Settings


Rule = Callable[[AdapterFiles], Check]


def lora_safetensors_shape_check(checkpoint: CheckpointUnderTest) -> list[Check]:
    """Apply every rule to a checkpoint; rules that need a readable or sound adapter run only on one."""
    settings: Settings = checkpoint.settings
    checks = [fitted_on_train(checkpoint.folder, checkpoint.fitted)]
    files, unreadable = read_adapter(checkpoint.folder, settings)
    if files is None:
        return [*checks, unreadable]
    checks += [unreadable, *(rule(files) for rule in RULES)]
    if broken(checks):
        return checks
    return [*checks, *canary_checks(checkpoint)]


def read_adapter(folder: Path, settings: Settings) -> tuple[AdapterFiles | None, Check]:
    """Read both adapter files; the check says whether that was possible."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files, found = None, "readable"
    try:
        config = strict_json((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_NAME)
        base_config = load_config(locate_base(settings.base), settings.base)
        files = AdapterFiles(config, tensors, base_config, settings)
    except (OSError, ValueError, SafetensorError) as error:
        found = f"{type(error).__name__}: {error}"
    expected = f"{CONFIG_NAME} and {WEIGHTS_NAME}, whole"
    return files, _check("adapter_files_readable", folder.name, expected, found, ok=files is not None)


def fitted_on_train(folder: Path, priors: TrainPriors) -> Check:
    """What was fitted must be what the train samples give when they are counted again."""
    expected = digest_of(priors)
    try:
        found = digest_of(read_document(folder / "fitted.json", TrainPriors))
    except (OSError, BadRowError) as error:
        found = f"{type(error).__name__}: {error}"
    return _check("fitted_on_train_only", "fitted.json", expected, found)


def is_lora(files: AdapterFiles) -> Check:
    return _check("adapter_is_lora", CONFIG_NAME, "LORA", str(files.config.get("peft_type")))


def config_matches_contract(files: AdapterFiles) -> Check:
    """Rank, scale and targets; and nothing that changes them in secret (DoRA, patterns, biases)."""
    lora = files.settings.lora
    expected = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(lora.target_modules),
        "target_parameters": sorted(lora.target_parameters),
        "exclude_modules": lora.exclude_modules,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
    }
    found = {key: files.config.get(key) for key in expected}
    for key in ("target_modules", "target_parameters"):
        found[key] = sorted(found[key] or ())
    different = {key: found[key] for key in expected if found[key] != expected[key]}
    wanted = {key: expected[key] for key in different or expected}
    return _check(
        "adapter_config_matches_contract", CONFIG_NAME, str(wanted), str(different or found), ok=not different
    )


def base_matches_contract(files: AdapterFiles) -> Check:
    base = files.settings.base
    found = f"{files.config.get('base_model_name_or_path')} at {files.config.get('revision')}"
    return _check("base_revision_matches_contract", CONFIG_NAME, f"{base.model} at {base.revision}", found)


def keys_are_known(files: AdapterFiles) -> Check:
    """Only the language model is adapted; the towers stay as they are."""
    layers = files.base_config.text_config.num_hidden_layers
    matches = {key: KEY.fullmatch(key) for key in files.tensors}
    strange = [key for key, match in matches.items() if match is None or int(match["layer"]) >= layers]
    return _list_check("adapter_keys_are_known", f"keys of {layers} language layers", strange)


def pairs_are_complete(files: AdapterFiles) -> Check:
    other = {"lora_A": "lora_B", "lora_B": "lora_A"}
    alone = [
        key
        for key in files.tensors
        for side in other
        if side in key and key.replace(side, other[side]) not in files.tensors
    ]
    return _list_check("adapter_pairs_are_complete", "an A for each B and a B for each A", alone)


def shapes_fit_base(files: AdapterFiles) -> Check:
    """Compare shapes with arithmetic over the base's configuration, independently of PEFT."""
    wrong = []
    for key, tensor in files.tensors.items():
        match = KEY.fullmatch(key)
        wanted = match and arithmetic_shape(match["part"], match["side"], files)
        if wanted and tuple(tensor.shape) != wanted:
            wrong.append(f"{key} {tuple(tensor.shape)} instead of {wanted}")
    return _list_check("adapter_shapes_fit_base", "A (rank, in) and B (out, rank)", wrong)


def arithmetic_shape(part: str, side: str, files: AdapterFiles) -> tuple[int, int]:
    """Return the shape of ``lora_A`` or ``lora_B`` of one part of a layer.

    An adapted weight (out, in) has A (rank, in) and B (out, rank). The experts of a layer share one A
    and one B, with the rank of all of them together.
    """
    text = files.base_config.text_config
    width, expert, rank = text.hidden_size, text.moe_intermediate_size, files.settings.lora.rank
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    both = len(files.settings.lora.target_parameters) == 2
    only_gate_up = files.settings.lora.target_parameters == ("mlp.experts.gate_up_proj",)
    if part.startswith("mlp.experts"):
        rank *= text.num_experts
        gate_up = part.endswith("base_layer") if both else only_gate_up
        size_in, size_out = (width, 2 * expert) if gate_up else (expert, width)
    else:
        size_in, size_out = {"q": (width, queries), "o": (queries, width)}.get(
            part.removeprefix("self_attn.")[0], (width, keys)
        )
    return (rank, size_in) if side == "A" else (size_out, rank)


def values_are_finite(files: AdapterFiles) -> Check:
    bad = [key for key, tensor in files.tensors.items() if not bool(tensor.isfinite().all())]
    return _list_check("adapter_values_are_finite", "no NaN and no infinity", bad)


def was_trained(files: AdapterFiles) -> Check:
    """B starts at zero, so a B that still is zero has never been trained."""
    zero = [key for key, tensor in files.tensors.items() if not bool(tensor.any())]
    return _list_check("adapter_was_trained", "no tensor that is all zero", zero)


def equals_peft_expectation(files: AdapterFiles) -> Check:
    """Build the same adapter with PEFT on the meta device and compare names and shapes, both ways."""
    lora, base = files.settings.lora, files.settings.base
    wanted = expected_shapes(files.base_config, lora, base)
    found = {key: tuple(tensor.shape) for key, tensor in files.tensors.items()}
    wrong = [
        f"{key}: {found.get(key, 'missing')} instead of {wanted.get(key, 'nothing')}"
        for key in sorted({*wanted, *found})
        if wanted.get(key) != found.get(key)
    ]
    return _list_check("adapter_equals_peft_expectation", f"{len(wanted)} tensors as PEFT makes them", wrong)


RULES: tuple[Rule, ...] = (
    is_lora,
    config_matches_contract,
    base_matches_contract,
    keys_are_known,
    pairs_are_complete,
    shapes_fit_base,
    values_are_finite,
    was_trained,
    equals_peft_expectation,
)


def _list_check(rule: str, expected: str, wrong: Iterable[str]) -> Check:
    found = sorted(wrong)
    shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
    return _check(rule, WEIGHTS_NAME, expected, shown or "as expected", ok=not found)


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool | None = None) -> Check:
    passed = expected == found if ok is None else ok
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=passed)
