"""The contract's LoRA on the true 30B-A3B thinker, on the meta device: names, shapes and counts."""

from __future__ import annotations

import re
from collections import Counter
from math import prod

import pytest
from qwen3_nano import QWEN_CONTRACT

from omni_mlflow.backbones.libraries import prepare_libraries
from omni_mlflow.backbones.qwen3_omni_lora.adapter import expected_shapes
from omni_mlflow.backbones.qwen3_omni_lora.adapter_rules import KEY, AdapterFiles, arithmetic_shape
from omni_mlflow.backbones.qwen3_omni_lora.settings import Settings
from omni_mlflow.contract.file import load_contract

LAYER = "base_model.model.model.language_model.layers.47"

TEXT = {
    "vocab_size": 152064,
    "hidden_size": 2048,
    "intermediate_size": 768,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "max_position_embeddings": 65536,
}
VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "out_hidden_size": 2048,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
AUDIO = {
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "d_model": 1280,
    "output_dim": 2048,
    "downsample_hidden_size": 480,
}


@pytest.fixture(scope="module")
def thinker_config():
    prepare_libraries()
    from transformers import Qwen3OmniMoeThinkerConfig

    return Qwen3OmniMoeThinkerConfig(text_config=TEXT, vision_config=VISION, audio_config=AUDIO)


def real_settings(**changes) -> Settings:
    dotted = {f"settings.lora.{key}": value for key, value in changes.items()}
    return Settings.model_validate(load_contract(QWEN_CONTRACT, changes=dotted).settings)


def millions(shapes) -> float:
    return sum(prod(shape) for shape in shapes.values()) / 1e6


@pytest.fixture(scope="module")
def shapes(thinker_config):
    settings = real_settings()
    return expected_shapes(thinker_config, settings.lora, settings.base)


def test_the_default_contract_trains_642_million_parameters_in_every_layer(shapes):
    # 48 layers x (4 attention projections + 2 expert weights) x A and B
    assert len(shapes) == 48 * 6 * 2
    assert millions(shapes) == pytest.approx(642.5, abs=0.05)
    layers = Counter(int(KEY.fullmatch(name)["layer"]) for name in shapes)
    assert layers == dict.fromkeys(range(48), 12)


def test_the_shapes_of_a_layer_are_those_of_its_weights(shapes):
    last = {name.removeprefix(f"{LAYER}."): shape for name, shape in shapes.items() if LAYER in name}
    assert last == {
        "self_attn.q_proj.lora_A.weight": (16, 2048),
        "self_attn.q_proj.lora_B.weight": (4096, 16),
        "self_attn.k_proj.lora_A.weight": (16, 2048),
        "self_attn.k_proj.lora_B.weight": (512, 16),
        "self_attn.v_proj.lora_A.weight": (16, 2048),
        "self_attn.v_proj.lora_B.weight": (512, 16),
        "self_attn.o_proj.lora_A.weight": (16, 4096),
        "self_attn.o_proj.lora_B.weight": (2048, 16),
        # 128 experts of rank 16 lie side by side; gate_up_proj is the inner one
        "mlp.experts.base_layer.lora_A.weight": (2048, 2048),
        "mlp.experts.base_layer.lora_B.weight": (1536, 2048),
        "mlp.experts.lora_A.weight": (2048, 768),
        "mlp.experts.lora_B.weight": (2048, 2048),
    }


def test_the_gates_arithmetic_agrees_with_peft_on_every_tensor(shapes, thinker_config):
    files = AdapterFiles({}, {}, thinker_config, real_settings())
    for name, shape in shapes.items():
        match = KEY.fullmatch(name)
        assert arithmetic_shape(match["part"], match["side"], files) == shape


def test_the_towers_stay_frozen(shapes):
    assert not [name for name in shapes if re.search("audio_tower|visual", name)]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"rank": 8}, 321.25),
        ({"target_parameters": []}, 13.37),
        ({"target_parameters": [], "rank": 32}, 26.74),
    ],
)
def test_other_settings_train_as_many_parameters_as_their_ranks_say(thinker_config, changes, count):
    settings = real_settings(**changes)
    found = expected_shapes(thinker_config, settings.lora, settings.base)
    assert millions(found) == pytest.approx(count, abs=0.05)
