"""The LoRA gate passes a sound checkpoint and refuses each broken one for its own reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni_mlflow.backbones.base import CheckpointUnderTest, SampleSet
from omni_mlflow.backbones.qwen3_omni_lora import BACKBONE
from omni_mlflow.backbones.qwen3_omni_lora.gate import RULES, lora_safetensors_shape_check
from omni_mlflow.metrics.priors import TrainPriors
from omni_mlflow.spine.types import broken

pytestmark = pytest.mark.training

ATTENTION = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight"
EXPERTS = "base_model.model.model.language_model.layers.1.mlp.experts.lora_{}.weight"
TOWER = "base_model.model.model.audio_tower.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture
def under_test(qwen_nano, qwen_checkpoint, tmp_path) -> CheckpointUnderTest:
    folder = tmp_path / "checkpoint"
    shutil.copytree(qwen_checkpoint, folder)
    return CheckpointUnderTest(
        folder=folder,
        settings=qwen_nano.settings(),
        canaries=SampleSet(qwen_nano.rows[:2], qwen_nano.media_root),
        fitted=qwen_nano.priors,
        out=tmp_path / "generated",
    )


def broken_rules(under_test: CheckpointUnderTest) -> list[str]:
    return [check.rule for check in broken(lora_safetensors_shape_check(under_test))]


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sound_checkpoint_passes_every_rule(under_test):
    checks = lora_safetensors_shape_check(under_test)
    assert not broken(checks)
    assert [check.rule for check in checks] == [
        "fitted_on_train_only",
        "adapter_files_readable",
        "adapter_is_lora",
        "adapter_config_matches_contract",
        "base_revision_matches_contract",
        "adapter_keys_are_known",
        "adapter_pairs_are_complete",
        "adapter_shapes_fit_base",
        "adapter_values_are_finite",
        "adapter_was_trained",
        "adapter_equals_peft_expectation",
        "base_weights_are_those_trained_on",
        "adapter_changes_the_base",
        "reload_gives_same_logits",
        "merge_gives_same_logits",
    ]
    assert len(RULES) == 9
    assert BACKBONE.gates.keys() == {"lora_safetensors_shape_check"}


def drop_a(tensors):
    del tensors[ATTENTION.format("A")]


def drop_layer(tensors):
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]


def zero_b(tensors):
    tensors[EXPERTS.format("B")].zero_()


def put_nan(tensors):
    tensors[ATTENTION.format("B")].view(-1)[0] = float("nan")


def put_infinity(tensors):
    tensors[EXPERTS.format("A")].view(-1)[0] = float("inf")


def cut_rank(tensors):
    tensors[ATTENTION.format("A")] = tensors[ATTENTION.format("A")][:-1]


def transpose(tensors):
    tensors[ATTENTION.format("A")] = tensors[ATTENTION.format("A")].T


def swap_expert_weights(tensors):
    inner = EXPERTS.replace("experts.", "experts.base_layer.")
    for side in "AB":
        outer_name, inner_name = EXPERTS.format(side), inner.format(side)
        tensors[outer_name], tensors[inner_name] = tensors[inner_name], tensors[outer_name]


def adapt_a_tower(tensors):
    for side in "AB":
        tensors[TOWER.format(side)] = tensors[ATTENTION.format(side)].clone()


def add_a_layer(tensors):
    for side in "AB":
        name = ATTENTION.format(side).replace("layers.0", "layers.2")
        tensors[name] = tensors[ATTENTION.format(side)].clone()


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        (drop_a, "adapter_pairs_are_complete"),
        (drop_layer, "adapter_equals_peft_expectation"),
        (zero_b, "adapter_was_trained"),
        (put_nan, "adapter_values_are_finite"),
        (put_infinity, "adapter_values_are_finite"),
        (cut_rank, "adapter_shapes_fit_base"),
        (transpose, "adapter_shapes_fit_base"),
        (swap_expert_weights, "adapter_shapes_fit_base"),
        (adapt_a_tower, "adapter_keys_are_known"),
        (add_a_layer, "adapter_keys_are_known"),
    ],
)
def test_a_corrupt_adapter_is_refused_for_its_own_reason(under_test, corrupt, rule):
    change_tensors(under_test.folder, corrupt)
    assert rule in broken_rules(under_test)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"r": 8}, "adapter_config_matches_contract"),
        ({"lora_alpha": 64}, "adapter_config_matches_contract"),
        ({"target_modules": ["q_proj"]}, "adapter_config_matches_contract"),
        ({"use_dora": True}, "adapter_config_matches_contract"),
        ({"rank_pattern": {"q_proj": 2}}, "adapter_config_matches_contract"),
        ({"peft_type": "IA3"}, "adapter_is_lora"),
        ({"revision": "main"}, "base_revision_matches_contract"),
        ({"base_model_name_or_path": "elsewhere"}, "base_revision_matches_contract"),
    ],
)
def test_a_config_that_is_not_the_contracts_is_refused(under_test, changes, rule):
    change_json(under_test.folder / "adapter_config.json", **changes)
    assert broken_rules(under_test) == [rule]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\x00" * 40])
def test_a_missing_empty_or_torn_file_is_a_broken_rule_and_no_traceback(under_test, name, content):
    path = under_test.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert broken_rules(under_test) == ["adapter_files_readable"]


def test_priors_that_saw_more_than_train_are_refused(under_test, qwen_nano):
    peeked = [row.target for row in qwen_nano.rows]
    peeked.append(peeked[0].model_copy(update={"id": "garage__ep1:20:0", "episode_id": "garage__ep1"}))
    fitted = TrainPriors.fit(peeked).model_dump(mode="json")
    (under_test.folder / "fitted.json").write_text(json.dumps(fitted))
    assert broken_rules(under_test) == ["fitted_on_train_only"]
    (under_test.folder / "fitted.json").unlink()
    assert broken_rules(under_test) == ["fitted_on_train_only"]


def test_an_adapter_on_other_base_weights_is_refused(under_test, qwen_nano, tmp_path):
    other = tmp_path / "other_base"
    shutil.copytree(qwen_nano.base, other)
    router = "thinker.model.layers.0.mlp.gate.weight"
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    tensors[router] += 0.5
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    change_json(under_test.folder / "adapter_config.json", base_model_name_or_path=str(other))
    settings = qwen_nano.settings()
    moved = settings.model_copy(update={"base": settings.base.model_copy(update={"model": str(other)})})
    assert "base_weights_are_those_trained_on" in broken_rules(replace(under_test, settings=moved))


def test_an_adapter_that_says_nothing_of_its_own_is_refused(under_test):
    def whisper(tensors):
        for name in tensors:
            if "lora_B" in name:
                tensors[name] *= 1e-6

    change_tensors(under_test.folder, whisper)
    assert broken_rules(under_test) == ["adapter_changes_the_base"]


def test_without_a_sample_to_ask_the_gate_does_not_pass(under_test):
    assert broken_rules(replace(under_test, canaries=SampleSet((), under_test.folder))) == ["canaries_given"]
