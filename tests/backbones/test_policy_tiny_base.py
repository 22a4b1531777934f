"""The tiny pi0 base: the hub's names, loaded by the same call as the real checkpoint."""

from __future__ import annotations

import json
import shutil

import pytest
from policy_nano import statistics_for

from omni_mlflow.backbones.base_weights import BaseModelError
from omni_mlflow.backbones.libraries import prepare_libraries
from omni_mlflow.backbones.policy_vla_branch.base_model import (
    fit_processor,
    load_model,
    load_processor,
    locate_base,
)
from omni_mlflow.backbones.policy_vla_branch.settings import TINY, Base
from omni_mlflow.backbones.policy_vla_branch.tiny_base import TEST_SIZE, build_tiny_base

P = "model.paligemma_with_expert"
TIED = f"{P}.paligemma.lm_head.weight"
EMBEDDING = f"{P}.paligemma.model.language_model.embed_tokens.weight"

# Written by lerobot: it names its own type and no model_type, and says nothing of widths.
LEROBOT_CONFIG = {
    "type": "pi0",
    "n_obs_steps": 1,
    "input_features": {"observation.images.base_0_rgb": {"type": "VISUAL", "shape": [3, 224, 224]}},
    "output_features": {"action": {"type": "ACTION", "shape": [32]}},
    "device": "cuda",
    "chunk_size": 50,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "paligemma_variant": "gemma_2b",
    "action_expert_variant": "gemma_300m",
}


def load(folder, **changes):
    return load_model(folder, revision="local", **{"horizon": 4, "dtype": "float32"} | changes)


@pytest.fixture
def base(policy_nano, tmp_path):
    """A copy of the nano base, to change as one likes."""
    return shutil.copytree(policy_nano.base, tmp_path / "base")


def change_weights(folder, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def keys(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        return set(weights.keys())


def test_its_tensors_carry_the_hubs_names_and_keep_them_when_saved_again(policy_nano, tmp_path):
    found = keys(policy_nano.base)
    assert f"{P}.paligemma.model.language_model.layers.0.self_attn.q_proj.weight" in found
    assert f"{P}.paligemma.model.vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias" in found
    assert f"{P}.gemma_expert.model.layers.1.mlp.up_proj.weight" in found
    assert {TIED, "model.state_proj.weight", "model.action_out_proj.bias"} < found
    load(policy_nano.base).save_pretrained(tmp_path)
    assert keys(tmp_path) == found


def test_the_real_model_has_the_same_names_and_3_5_billion_parameters(policy_nano, tmp_path):
    """No weight is made: lerobot's configuration, read without a download, on the meta device."""
    prepare_libraries()
    import torch
    from transformers import PI0Config, PI0ForConditionalGeneration

    (tmp_path / "config.json").write_text(json.dumps(LEROBOT_CONFIG))
    config = PI0Config.from_pretrained(tmp_path)
    with torch.device("meta"):
        real = PI0ForConditionalGeneration(config)
    tensors = real.state_dict()
    assert len(tensors) == 777
    assert sum(tensor.numel() for tensor in tensors.values()) == 3_501_372_176
    assert sum(
        tensor.numel() for name, tensor in tensors.items() if "vlm.language_model" in name
    ) == pytest.approx(2509e6, rel=1e-3)
    tiny = load(policy_nano.base).state_dict()
    without_layer = lambda names: {_layerless(name) for name in names}  # noqa: E731
    assert without_layer(tensors) == without_layer(tiny)


def _layerless(name):
    return ".".join(part for part in name.split(".") if not part.isdigit())


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(policy_nano, tmp_path):
    weights = []
    for seed in (0, 1):
        build_tiny_base(tmp_path / str(seed), size=TEST_SIZE, seed=seed)
        weights.append((tmp_path / str(seed) / "model.safetensors").read_bytes())
    assert weights[0] == (policy_nano.base / "model.safetensors").read_bytes()
    assert weights[0] != weights[1]


def test_it_is_built_once_for_narrow_and_once_for_wide_action_spaces(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = Base(model=TINY, revision="local", precision="float32")
    narrow, again, wide = (locate_base(tiny, num_dims=dims) for dims in (20, 32, 126))
    assert narrow == again != wide
    assert load(narrow).config.max_action_dim == 32
    assert load(wide).config.max_action_dim == 128


def test_any_instruction_is_read_without_an_unknown_token(policy_nano):
    tokenizer = load_processor(policy_nano.base, revision="local").tokenizer
    text = "Sort the blöcke — 把方块分类\n"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("model.state_proj.bias"), r"1 missing_keys, e\.g\. .*state_proj\.bias"),
        (
            lambda tensors: tensors.update({"model.more.weight": tensors["model.state_proj.bias"].clone()}),
            r"1 unexpected_keys, e\.g\. .*more\.weight",
        ),
        (
            lambda tensors: tensors.update(
                {"model.state_proj.bias": tensors["model.state_proj.bias"][:5].clone()}
            ),
            r"state_proj\.bias|mismatch",
        ),
    ],
)
def test_a_checkpoint_with_a_tensor_missing_left_over_or_reshaped_is_not_loaded(base, change, said):
    change_weights(base, change)
    with pytest.raises(BaseModelError, match=said):
        load(base)


def test_of_two_untied_embeddings_the_one_that_lerobot_computes_with_is_used(base):
    import torch

    def untie(tensors):
        tensors[EMBEDDING] = tensors[TIED] + 1.0

    before = load(base).get_input_embeddings().weight
    change_weights(base, untie)
    assert torch.equal(load(base).get_input_embeddings().weight, before + 1.0)


def test_a_configuration_of_lerobot_loads_though_it_names_no_model_type(base):
    config = json.loads((base / "config.json").read_text())
    del config["model_type"]
    (base / "config.json").write_text(json.dumps({**LEROBOT_CONFIG, **config}))
    assert load(base, horizon=9).config.chunk_size == 9


def test_a_base_without_a_processor_gets_the_one_that_pi0_was_trained_with(base):
    (base / "processor_config.json").unlink()
    processor = load_processor(base, revision="local")
    assert processor.image_seq_length == 256
    assert processor.image_processor.size["max_height"] == 224


def test_a_base_that_is_too_narrow_says_what_to_change(policy_nano):
    model, processor = load(policy_nano.base), load_processor(policy_nano.base, revision="local")
    statistics = statistics_for(policy_nano.train_data)
    many = statistics.actions.model_copy(update={"mean": (0.0,) * 126, "std": (1.0,) * 126})
    wide = statistics.model_copy(update={"actions": many})
    said = r"holds 32 state and 32 action dimensions, 126 are needed; choose"
    with pytest.raises(BaseModelError, match=said):
        fit_processor(processor, model.config, wide)
