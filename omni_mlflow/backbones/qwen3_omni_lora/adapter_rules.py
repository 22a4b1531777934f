"""Rules over the two files of a LoRA adapter; none of them needs the weights of the base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omni_mlflow.backbones.peft_adapter import CONFIG_NAME, WEIGHTS_NAME, config_check
from omni_mlflow.backbones.qwen3_omni_lora.adapter import expected_shapes, lora_config
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.spine.types import Check

KEY = re.compile(
    r"base_model\.model\.model\.language_model\.layers\.(?P<layer>0|[1-9]\d{0,3})\."
    r"(?P<part>self_attn\.[qkvo]_proj|mlp\.experts\.base_layer|mlp\.experts)\.lora_(?P<side>[AB])\.weight"
)
"""Adapter tensors of the language model. PEFT nests the two expert weights: the inner is gate_up_proj."""

_ELSEWHERE = ("peft_type", "base_model_name_or_path", "revision", "peft_version", "auto_mapping")
"""Keys of ``adapter_config.json`` that rules of their own look at, or that change no tensor."""


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

    def matched(self) -> Iterator[tuple[str, re.Match[str], Any]]:
        """Yield every tensor whose name is one of the language model's, with the parts of that name."""
        for key, tensor in self.tensors.items():
            if (match := KEY.fullmatch(key)) is not None:
                yield key, match, tensor


Rule = Callable[[AdapterFiles], Check]


def is_lora(files: AdapterFiles) -> Check:
    return _check("adapter_is_lora", CONFIG_NAME, "LORA", str(files.config.get("peft_type")))


def config_matches_contract(files: AdapterFiles) -> Check:
    return config_check(
        files.config,
        lora_config(files.settings.lora, files.settings.base),
        but=_ELSEWHERE,
        shown=("r", "lora_alpha", "target_modules", "target_parameters"),
    )


def base_matches_contract(files: AdapterFiles) -> Check:
    base = files.settings.base
    model, revision = files.config.get("base_model_name_or_path"), files.config.get("revision")
    found = f"{model} at {revision}"
    return _check("base_revision_matches_contract", CONFIG_NAME, f"{base.model} at {base.revision}", found)


def keys_are_known(files: AdapterFiles) -> Check:
    """Only what the contract names is adapted, in the language model; the towers stay as they are."""
    wanted = {(layer, part) for layer, part in _wanted(files)}
    known = {key for key, match, _ in files.matched() if (int(match["layer"]), match["part"]) in wanted}
    expected = f"keys of {files.base_config.text_config.num_hidden_layers} language layers"
    return _list_check("adapter_keys_are_known", expected, set(files.tensors) - known)


def pairs_are_complete(files: AdapterFiles) -> Check:
    alone = [
        key
        for key, match, _ in files.matched()
        if key.replace(f"lora_{match['side']}", f"lora_{'BA'['AB'.index(match['side'])]}")
        not in files.tensors
    ]
    return _list_check("adapter_pairs_are_complete", "an A for each B and a B for each A", alone)


def covers_target_modules(files: AdapterFiles) -> Check:
    """Every module that the contract adapts has a tensor in every layer."""
    adapted = {(int(match["layer"]), match["part"]) for _, match, _ in files.matched()}
    missing = [f"layer {layer} {part}" for layer, part in _wanted(files) if (layer, part) not in adapted]
    return _list_check("adapter_covers_target_modules", "tensors of every target in every layer", missing)


def are_filled_matrices(files: AdapterFiles) -> Check:
    """Shards of a partitioned training that were never put together are flat or empty."""
    wrong = [
        f"{key} {tuple(tensor.shape)}"
        for key, tensor in files.tensors.items()
        if tensor.ndim != 2 or tensor.numel() == 0
    ]
    return _list_check("adapter_tensors_are_matrices", "2 dimensions, none of them empty", wrong)


def are_float32(files: AdapterFiles) -> Check:
    """The adapter is trained and kept in float32, also on a base of lower precision."""
    wrong = [
        f"{key} {tensor.dtype}"
        for key, tensor in files.tensors.items()
        if str(tensor.dtype) != "torch.float32"
    ]
    return _list_check("adapter_values_are_float32", "torch.float32", wrong)


def shapes_fit_base(files: AdapterFiles) -> Check:
    """Compare shapes of matrices with arithmetic over the base's configuration, independently of PEFT."""
    wrong = []
    for key, match, tensor in files.matched():
        wanted = arithmetic_shape(match["part"], match["side"], files)
        if tensor.ndim == 2 and tensor.numel() and tuple(tensor.shape) != wanted:
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
    bad = [key for key, tensor in files.tensors.items() if not bool(tensor.float().isfinite().all())]
    return _list_check("adapter_values_are_finite", "no NaN and no infinity", bad)


def was_trained(files: AdapterFiles) -> Check:
    """B starts at zero, so a B that still is zero has never been trained."""
    zero = [key for key, tensor in files.tensors.items() if tensor.numel() and not bool(tensor.float().any())]
    return _list_check("adapter_was_trained", "no tensor that is all zero", zero)


RULES: tuple[Rule, ...] = (
    is_lora,
    config_matches_contract,
    base_matches_contract,
    keys_are_known,
    pairs_are_complete,
    covers_target_modules,
    are_filled_matrices,
    are_float32,
    shapes_fit_base,
    values_are_finite,
    was_trained,
)


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


def _wanted(files: AdapterFiles) -> Iterator[tuple[int, str]]:
    """Layer and part of everything that the contract adapts."""
    lora = files.settings.lora
    parts = [f"self_attn.{name}" for name in lora.target_modules]
    parts += ["mlp.experts.base_layer", "mlp.experts"][2 - len(set(lora.target_parameters)) :]
    for layer in range(files.base_config.text_config.num_hidden_layers):
        yield from ((layer, part) for part in parts)


def _list_check(rule: str, expected: str, wrong: Iterable[str]) -> Check:
    found = sorted(wrong)
    shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
    return _check(rule, WEIGHTS_NAME, expected, shown or "as expected", ok=not found)


def _check(rule: str, subject: str, expected: str, found: str, *, ok: bool | None = None) -> Check:
    passed = expected == found if ok is None else ok
    return Check(rule=rule, subject=subject, expected=expected, found=found, ok=passed)
