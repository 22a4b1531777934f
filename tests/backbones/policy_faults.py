"""Broken policy checkpoints: what is done to a sound one, and the rule that must refuse it.

Each damage changes one thing, as if training had written it so.
"""

from __future__ import annotations

from dataclasses import dataclass

from policy_damages import (
    STATS,
    Damage,
    both,
    copy_base,
    document,
    nan,
    numbers,
    reversed_velocities,
    swapped,
    tensors,
    text,
    untrained_heads,
    weight,
    without,
)

TEXT = "model.paligemma_with_expert.paligemma.model.language_model"
EXPERT = "model.paligemma_with_expert.gemma_expert.model"
TIED = "model.paligemma_with_expert.paligemma.lm_head.weight"
VISION = "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model"
STATE = "model.state_proj.weight"
QUERY = f"{TEXT}.layers.0.self_attn.q_proj.weight"
ADAPTER_B = "base_model.model.model.dit.layers.0.self_attn.q_proj.lora_B.weight"


@dataclass(frozen=True)
class Fault:
    """One broken checkpoint.

    Attributes:
        rule: the rule that refuses it; no other one that is asked does.
        lora: the sound one is an adapter that was merged.
    """

    damage: Damage
    rule: str
    lora: bool = False


CONFIG, PROCESSOR, HEADS, HEAD_WEIGHTS = (
    "config.json",
    "processor_config.json",
    "heads.json",
    "heads.safetensors",
)
WEIGHTS = "model.safetensors"
ADAPTER = "adapter/adapter_model.safetensors"

FAULTS: dict[str, Fault] = {
    **{
        f"no {name}": Fault(without(name), "model_files_are_those_of_the_mode")
        for name in ("model.safetensors", "tokenizer.json", "heads.safetensors", "canary.json", "base.json")
    },
    "an adapter of another mode": Fault(
        lambda folder: (folder / "adapter").mkdir(), "model_files_are_those_of_the_mode"
    ),
    "no adapter beside merged weights": Fault(
        without(ADAPTER), "model_files_are_those_of_the_mode", lora=True
    ),
    "NaN in the statistics": Fault(
        document(STATS, lambda found: found["actions"]["mean"].__setitem__(0, float("nan"))),
        "small_files_are_readable",
    ),
    "a configuration cut off": Fault(
        lambda folder: (folder / CONFIG).write_text((folder / CONFIG).read_text()[:-9]),
        "small_files_are_readable",
    ),
    "heads cut off": Fault(
        lambda folder: (folder / HEAD_WEIGHTS).write_bytes((folder / HEAD_WEIGHTS).read_bytes()[:-9]),
        "small_files_are_readable",
    ),
    "a stored answer of another shape": Fault(
        document("canary.json", lambda found: found["actions"][0].pop()), "small_files_are_readable"
    ),
    "a base without a fingerprint": Fault(
        document("base.json", lambda found: found.pop("fingerprint")), "small_files_are_readable"
    ),
    "a shorter chunk in the configuration": Fault(
        document(CONFIG, lambda found: found.update(chunk_size=2)), "chunk_length_agrees"
    ),
    "a longer chunk in the processor": Fault(
        document(PROCESSOR, lambda found: found.update(chunk_size=8)), "chunk_length_agrees"
    ),
    "another width of the state": Fault(
        document(PROCESSOR, lambda found: found.update(max_state_dim=64)), "widths_agree"
    ),
    "another time embedding": Fault(
        document(CONFIG, lambda found: found.update(max_period=8.0)), "config_is_the_bases"
    ),
    "another activation deep in the configuration": Fault(
        document(CONFIG, lambda found: found["vlm_config"]["text_config"].update(rms_norm_eps=1e-3)),
        "config_is_the_bases",
    ),
    "fewer image tokens than patches": Fault(
        document(PROCESSOR, lambda found: found["image_processor"].update(image_seq_length=3)),
        "processor_is_the_bases",
    ),
    "images scaled differently": Fault(
        document(PROCESSOR, lambda found: found["image_processor"].update(image_mean=[0.4, 0.5, 0.5])),
        "processor_is_the_bases",
    ),
    "two tokens exchanged": Fault(
        both(
            text("tokenizer.json", '"a": 2', '"?": 2'),
            text("tokenizer.json", '"b": 2', '"a": 2'),
            text("tokenizer.json", '"?": 2', '"b": 2'),
        ),
        "tokenizer_is_the_bases",
    ),
    "a deviation of zero": Fault(numbers("actions.std", 1, 0.0), "statistics_can_normalise"),
    "a deviation of a state that is too small": Fault(
        numbers("state.std", 3, 1e-9), "statistics_can_normalise"
    ),
    "the processor edited alone": Fault(
        document(PROCESSOR, lambda found: found["actions_mean"].__setitem__(0, 0.002)),
        "processor_uses_the_recorded_statistics",
    ),
    "the record edited alone": Fault(
        document(STATS, lambda found: found["state"]["std"].__setitem__(0, 1.5)),
        "processor_uses_the_recorded_statistics",
    ),
    "millimetres for metres": Fault(numbers("actions.std", 0, 100.0), "canary_answers_come_back"),
    "statistics moved by two millimetres": Fault(
        numbers("actions.mean", 0, 0.002), "canary_answers_come_back"
    ),
    "a label fewer": Fault(
        document(HEADS, lambda found: found["action"].pop()), "head_labels_are_those_of_train"
    ),
    "labels in another order": Fault(
        document(HEADS, lambda found: found["objects"].reverse()), "head_labels_are_those_of_train"
    ),
    "a head missing": Fault(
        tensors(HEAD_WEIGHTS, lambda found: found.pop("next_action.3.weight")),
        "heads_have_the_shapes_of_their_labels",
    ),
    "a head for one label more": Fault(
        tensors(
            HEAD_WEIGHTS,
            lambda found: found.update({"action.3.bias": found["action.3.bias"].new_zeros(4)}),
        ),
        "heads_have_the_shapes_of_their_labels",
    ),
    "NaN in a head": Fault(
        tensors(HEAD_WEIGHTS, lambda found: found.update({"objects.1.bias": nan(found["objects.1.bias"])})),
        "heads_are_finite",
    ),
    "heads as a training draws them": Fault(untrained_heads(seed=5), "heads_were_trained"),
    "heads of any other draw": Fault(untrained_heads(seed=11), "heads_were_trained"),
    "one head as it was drawn": Fault(untrained_heads("objects", seed=5), "heads_were_trained"),
    "a head that is finite and answers NaN": Fault(
        tensors(
            HEAD_WEIGHTS,
            lambda found: found.update({"next_action.1.weight": found["next_action.1.weight"].sign() * 3e38}),
        ),
        "canary_answers_come_back",
    ),
    "heads of another training": Fault(
        tensors(HEAD_WEIGHTS, lambda found: found["action.3.bias"].add_(0.5)), "canary_answers_come_back"
    ),
    "both ends of the tied embedding": Fault(
        tensors(
            "model.safetensors",
            lambda found: found.update({f"{TEXT}.embed_tokens.weight": found[TIED] + 1.0}),
        ),
        "embedding_is_saved_once",
    ),
    "weights cut off": Fault(
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        "weights_load_whole",
    ),
    "a tensor missing": Fault(
        tensors("model.safetensors", lambda found: found.pop(QUERY)), "weights_load_whole"
    ),
    "a tensor too many": Fault(
        tensors(
            "model.safetensors",
            lambda found: found.update({f"{EXPERT}.layers.9.mlp.up_proj.weight": found[QUERY].clone()}),
        ),
        "weights_load_whole",
    ),
    "a tensor transposed": Fault(
        weight(f"{EXPERT}.layers.0.mlp.up_proj.weight", lambda tensor: tensor.T), "weights_load_whole"
    ),
    "NaN in a weight": Fault(weight(QUERY, nan), "weights_are_finite"),
    "the weights of the base": Fault(copy_base, "weights_differ_from_the_base"),
    "an embedding that nothing trains, changed": Fault(
        weight("model.paligemma_with_expert.gemma_expert.lm_head.weight", lambda tensor: tensor + 1.0),
        "frozen_weights_are_the_bases",
    ),
    "a vision tower changed beside an adapter": Fault(
        weight(
            "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.post_layernorm.bias",
            lambda tensor: tensor + 0.1,
        ),
        "frozen_weights_are_the_bases",
        lora=True,
    ),
    "weights changed after training": Fault(
        weight("model.action_out_proj.bias", lambda tensor: tensor + 0.01), "canary_answers_come_back"
    ),
    "columns of the left and the right hand exchanged": Fault(
        weight(STATE, swapped(slice(0, 10), slice(10, 20), axis=1)), "canary_answers_come_back"
    ),
    "columns of one hand's position exchanged": Fault(
        weight(STATE, swapped(slice(0, 1), slice(1, 2), axis=1)), "canary_answers_come_back"
    ),
    "columns of the velocities reversed": Fault(
        weight(STATE, reversed_velocities), "canary_answers_come_back"
    ),
    "flags of the hands exchanged": Fault(
        weight(STATE, swapped(slice(26, 27), slice(27, 28), axis=1)), "canary_answers_come_back"
    ),
    "left and right half of the picture exchanged": Fault(
        weight(f"{VISION}.embeddings.patch_embedding.weight", swapped(slice(0, 8), slice(8, 16), axis=3)),
        "canary_answers_come_back",
    ),
    "places of left and right patches exchanged": Fault(
        weight(f"{VISION}.embeddings.position_embedding.weight", lambda rows: rows[[1, 0, 3, 2]]),
        "canary_answers_come_back",
    ),
    "red and blue exchanged": Fault(
        weight(f"{VISION}.embeddings.patch_embedding.weight", lambda tensor: tensor.flip(1)),
        "canary_answers_come_back",
    ),
    "a base that is another one": Fault(
        document("base.json", lambda found: found.update(fingerprint="0" * 64)),
        "base_weights_are_those_trained_on",
    ),
    "a base from elsewhere": Fault(
        document("base.json", lambda found: found.update(source="commit " + "0" * 40)),
        "base_source_is_the_one_trained_on",
    ),
    "an adapter of another rank in its configuration": Fault(
        document("adapter/adapter_config.json", lambda found: found.update(r=8)),
        "adapter_config_matches_contract",
        lora=True,
    ),
    "an adapter that is scaled another way": Fault(
        document("adapter/adapter_config.json", lambda found: found.update(use_rslora=True)),
        "adapter_config_matches_contract",
        lora=True,
    ),
    "an adapter with a rank of its own in one layer": Fault(
        document("adapter/adapter_config.json", lambda found: found.update(rank_pattern={"q_proj": 2})),
        "adapter_config_matches_contract",
        lora=True,
    ),
    "an adapter tensor missing": Fault(
        tensors(ADAPTER, lambda found: found.pop(ADAPTER_B)), "adapter_equals_peft_expectation", lora=True
    ),
    "NaN in an adapter": Fault(
        tensors(ADAPTER, lambda found: found.update({ADAPTER_B: nan(found[ADAPTER_B])})),
        "adapter_is_finite",
        lora=True,
    ),
    "an adapter that is not the merged one": Fault(
        tensors(ADAPTER, lambda found: found[ADAPTER_B].mul_(-1.0)),
        "adapter_is_merged_into_the_weights",
        lora=True,
    ),
    "an answer on record that is another": Fault(
        document("canary.json", lambda found: found["actions"][0][0].__setitem__(0, 0.9)),
        "canary_answers_come_back",
    ),
}
