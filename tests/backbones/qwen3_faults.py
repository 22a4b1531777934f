"""Broken LoRA checkpoints: what is done to a sound one, and the rule that must refuse it.

Each damage changes one thing. The checkpoint is sealed again afterwards, as if training had written it so;
only the faults of the seal itself are not.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_mlflow.spine.rows import file_digest, write_document
from omni_mlflow.stages.manifests import checkpoint_files

ATTENTION = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight"
EXPERTS = "base_model.model.model.language_model.layers.1.mlp.experts.lora_{}.weight"
TOWER = "base_model.model.model.audio_tower.layers.0.self_attn.q_proj.lora_{}.weight"
Q_A, Q_B = ATTENTION.format("A"), ATTENTION.format("B")
DATASET = "d" * 64


@dataclass(frozen=True)
class TrainedFolder:
    """What a training leaves: a checkpoint and the ledger beside it."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def ledger(self) -> Path:
        return self.root / "training_ledger.jsonl"

    @property
    def config(self) -> Path:
        return self.checkpoint / "adapter_config.json"

    @property
    def weights(self) -> Path:
        return self.checkpoint / "adapter_model.safetensors"

    @property
    def manifest(self) -> Path:
        return self.checkpoint / "checkpoint_manifest.json"

    def seal(self) -> None:
        write_document(
            self.manifest,
            {
                "files": checkpoint_files(self.checkpoint),
                "dataset_digest": DATASET,
                "training_ledger_digest": file_digest(self.ledger),
            },
        )


Damage = Callable[[TrainedFolder], Any]


@dataclass(frozen=True)
class Fault:
    """One broken checkpoint.

    Attributes:
        rule: the rule that refuses it, the first of all broken ones.
        also: other rules that cannot hold either.
        sealed: the checkpoint is sealed after the damage.
    """

    damage: Damage
    rule: str
    also: tuple[str, ...] = ()
    sealed: bool = True


def change_tensors(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return lambda trained: change_tensors(trained.weights, change)


def every(change: Callable[[Any], Any], *, side: str = "lora_") -> Damage:
    """Change every tensor of one side, or of both."""

    def apply(found: dict[str, Any]) -> None:
        found.update({name: change(tensor) for name, tensor in found.items() if side in name})

    return tensors(apply)


def one(name: str, change: Callable[[Any], Any]) -> Damage:
    return tensors(lambda found: found.update({name: change(found[name])}))


def without(*names: str) -> Damage:
    """Leave out every tensor whose name holds one of ``names``."""

    def drop(found: dict[str, Any]) -> None:
        for key in [key for key in found if any(name in key for name in names)]:
            del found[key]

    return tensors(drop)


def copied_to(*pairs: tuple[str, str]) -> Damage:
    return tensors(lambda found: found.update({new: found[old].clone() for old, new in pairs}))


def written(name: str, content: bytes) -> Damage:
    return lambda trained: (trained.root / name).write_bytes(content)


def removed(name: str) -> Damage:
    return lambda trained: (trained.root / name).unlink()


def config(**changes: Any) -> Damage:
    return lambda trained: change_json(trained.config, **changes)


def linked_elsewhere(trained: TrainedFolder) -> None:
    """The same bytes today; whoever changes the file behind the link changes the checkpoint."""
    weights = trained.root / WEIGHTS
    elsewhere = trained.root / "elsewhere.safetensors"
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)


def cut(trained: TrainedFolder) -> None:
    trained.weights.write_bytes(trained.weights.read_bytes()[:-100])


def claim_a_longer_header(trained: TrainedFolder) -> None:
    trained.weights.write_bytes(b"\xff" * 8 + trained.weights.read_bytes()[8:])


def smaller_rank(found: dict[str, Any]) -> None:
    for name, tensor in found.items():
        found[name] = tensor[:-1] if "lora_A" in name else tensor[:, :-1]


def swap_expert_weights(found: dict[str, Any]) -> None:
    for side in "AB":
        outer = EXPERTS.format(side)
        inner = outer.replace("experts.", "experts.base_layer.")
        found[outer], found[inner] = found[inner], found[outer]


def write_key_twice(trained: TrainedFolder) -> None:
    text = trained.config.read_text()
    trained.config.write_text(text.replace('"r": 4', '"r": 8,\n  "r": 4'))


def flip_last_byte_but_three(trained: TrainedFolder) -> None:
    """The lowest bits of a float32: no value becomes strange, only the bytes are others."""
    content = bytearray(trained.weights.read_bytes())
    content[-4] ^= 1
    trained.weights.write_bytes(content)


def fit_on_another_episode(trained: TrainedFolder) -> None:
    change_json(trained.checkpoint / "fitted.json", episode_ids=["garage__ep1"], episodes_digest="0" * 64)


def count_an_action_once_more(trained: TrainedFolder) -> None:
    fitted = json.loads((trained.checkpoint / "fitted.json").read_text())
    action = next(iter(fitted["action"]))
    change_json(trained.checkpoint / "fitted.json", action={**fitted["action"], action: 99})


def learn_from(sample_id: str) -> Damage:
    def append(trained: TrainedFolder) -> None:
        with trained.ledger.open("a") as ledger:
            ledger.write(json.dumps({"step": 4, "ids": [sample_id]}) + "\n")

    return append


CONFIG, WEIGHTS = "checkpoint/adapter_config.json", "checkpoint/adapter_model.safetensors"
UNREADABLE_CONFIG = "adapter_config_is_readable"
UNREADABLE_WEIGHTS = "adapter_weights_are_readable"
OTHER_CONFIG = "adapter_config_matches_contract"
TORN_MANIFEST = "checkpoint_manifest_is_readable"
NOT_FITTED_ON_TRAIN = "fitted_on_train_episodes", ("fitted_on_train_only",)

FAULTS: dict[str, Fault] = {
    # the file of the weights
    "weights missing": Fault(removed(WEIGHTS), UNREADABLE_WEIGHTS),
    "weights empty": Fault(written(WEIGHTS, b""), UNREADABLE_WEIGHTS),
    "weights of 40 zero bytes": Fault(written(WEIGHTS, b"\0" * 40), UNREADABLE_WEIGHTS),
    "weights are a link to a file elsewhere": Fault(linked_elsewhere, "checkpoint_holds_no_link"),
    "weights truncated": Fault(cut, UNREADABLE_WEIGHTS),
    "weights claim an absurd header": Fault(claim_a_longer_header, UNREADABLE_WEIGHTS),
    "weights are a renamed pickle": Fault(
        written(WEIGHTS, pickle.dumps({Q_A: [0.0] * 8})), "checkpoint_holds_no_pickle", (UNREADABLE_WEIGHTS,)
    ),
    "a pickle beside the weights": Fault(
        written("checkpoint/adapter_model.bin", pickle.dumps({Q_A: [0.0] * 8})), "checkpoint_holds_no_pickle"
    ),
    # values
    "one NaN": Fault(
        one(Q_B, lambda t: t.index_fill(0, _first(), float("nan"))), "adapter_values_are_finite"
    ),
    "one infinity": Fault(
        one(EXPERTS.format("A"), lambda t: t.index_fill(0, _first(), float("inf"))),
        "adapter_values_are_finite",
    ),
    "every value NaN": Fault(every(lambda t: t * float("nan")), "adapter_values_are_finite"),
    "every B zero": Fault(every(lambda t: t * 0, side="lora_B"), "adapter_was_trained"),
    "one B zero": Fault(one(EXPERTS.format("B"), lambda t: t * 0), "adapter_was_trained"),
    "one A zero": Fault(one(Q_A, lambda t: t * 0), "adapter_was_trained"),
    "float16": Fault(every(lambda t: t.half()), "adapter_values_are_float32"),
    "one tensor bfloat16": Fault(one(Q_A, lambda t: t.bfloat16()), "adapter_values_are_float32"),
    "one tensor float64": Fault(one(Q_A, lambda t: t.double()), "adapter_values_are_float32"),
    "one tensor of integers": Fault(one(Q_A, lambda t: t.int() + 1), "adapter_values_are_float32"),
    "an effect too small to see": Fault(every(lambda t: t * 1e-6, side="lora_B"), "adapter_changes_the_base"),
    # dimensions
    "an empty shard": Fault(one(Q_A, lambda t: t[:0]), "adapter_tensors_are_matrices"),
    "every shard empty": Fault(every(lambda t: t[:0]), "adapter_tensors_are_matrices"),
    "a flat shard": Fault(one(Q_A, lambda t: t.reshape(-1)), "adapter_tensors_are_matrices"),
    "every shard flat": Fault(every(lambda t: t.reshape(-1)), "adapter_tensors_are_matrices"),
    "three dimensions": Fault(one(Q_A, lambda t: t[None]), "adapter_tensors_are_matrices"),
    "a single number": Fault(one(Q_A, lambda t: t.sum()), "adapter_tensors_are_matrices"),
    "a rank too small in one A": Fault(one(Q_A, lambda t: t[:-1]), "adapter_shapes_fit_base"),
    "a rank too small in every pair": Fault(tensors(smaller_rank), "adapter_shapes_fit_base"),
    "A transposed": Fault(one(Q_A, lambda t: t.T), "adapter_shapes_fit_base"),
    "B with too few outputs": Fault(one(Q_B, lambda t: t[:-1]), "adapter_shapes_fit_base"),
    "the experts' two weights exchanged": Fault(tensors(swap_expert_weights), "adapter_shapes_fit_base"),
    # names
    "no tensor at all": Fault(without("lora_"), "adapter_covers_target_modules"),
    "one A missing": Fault(without(Q_A), "adapter_pairs_are_complete"),
    "one B missing": Fault(without(Q_B), "adapter_pairs_are_complete"),
    "a layer missing": Fault(without(".layers.1."), "adapter_covers_target_modules"),
    "one module missing in one layer": Fault(
        without("layers.0.self_attn.k_proj"), "adapter_covers_target_modules"
    ),
    "the experts missing": Fault(without("mlp.experts"), "adapter_covers_target_modules"),
    "a surplus tensor": Fault(copied_to((Q_A, "base_model.model.lm_head.weight")), "adapter_keys_are_known"),
    "a layer that the base has not": Fault(
        copied_to(*((key, key.replace("layers.0", "layers.2")) for key in (Q_A, Q_B))),
        "adapter_keys_are_known",
    ),
    "a layer spelled with a zero": Fault(
        copied_to(*((key, key.replace("layers.0", "layers.00")) for key in (Q_A, Q_B))),
        "adapter_keys_are_known",
    ),
    "an adapted tower": Fault(
        copied_to(*((ATTENTION.format(side), TOWER.format(side)) for side in "AB")), "adapter_keys_are_known"
    ),
    # the configuration
    "config missing": Fault(removed(CONFIG), UNREADABLE_CONFIG),
    "config empty": Fault(written(CONFIG, b""), UNREADABLE_CONFIG),
    "config of 40 zero bytes": Fault(written(CONFIG, b"\0" * 40), UNREADABLE_CONFIG),
    "config not JSON": Fault(written(CONFIG, b"r: 4\n"), UNREADABLE_CONFIG),
    "config not text": Fault(written(CONFIG, b"\xff\xfe{}"), UNREADABLE_CONFIG),
    "config a list": Fault(written(CONFIG, b"[]"), UNREADABLE_CONFIG),
    "config with a key twice": Fault(write_key_twice, UNREADABLE_CONFIG),
    "config with a NaN": Fault(config(lora_dropout=float("nan")), UNREADABLE_CONFIG),
    "config of another method": Fault(config(peft_type="IA3"), "adapter_is_lora"),
    "config of another rank": Fault(config(r=8), OTHER_CONFIG),
    "config with a rank of 4.0": Fault(config(r=4.0), OTHER_CONFIG),
    "config with a rank in words": Fault(config(r="4"), OTHER_CONFIG),
    "config with a list of ranks": Fault(config(r=[4]), OTHER_CONFIG),
    "config with no rank": Fault(config(r=None), OTHER_CONFIG),
    "config with a negative rank": Fault(config(r=-4), OTHER_CONFIG),
    "config with a rank beyond all sense": Fault(config(r=10**400), OTHER_CONFIG),
    "config with a rank that no machine reads": Fault(
        lambda trained: trained.config.write_text(trained.config.read_text().replace("4,", "4" * 5000 + ",")),
        UNREADABLE_CONFIG,
    ),
    "config with 1 for true": Fault(config(init_lora_weights=1), OTHER_CONFIG),
    "config with half a character": Fault(config(revision="\ud800"), UNREADABLE_CONFIG),
    "config of another scale": Fault(config(lora_alpha=64), OTHER_CONFIG),
    "config with dropout": Fault(config(lora_dropout=0.1), OTHER_CONFIG),
    "config with DoRA": Fault(config(use_dora=True), OTHER_CONFIG),
    "config with rank-stabilised scale": Fault(config(use_rslora=True), OTHER_CONFIG),
    "config with a rank pattern": Fault(config(rank_pattern={"q_proj": 2}), OTHER_CONFIG),
    "config with a scale pattern": Fault(config(alpha_pattern={"q_proj": 2}), OTHER_CONFIG),
    "config that saves whole modules": Fault(config(modules_to_save=["lm_head"]), OTHER_CONFIG),
    "config with biases": Fault(config(bias="all"), OTHER_CONFIG),
    "config with adapter biases": Fault(config(lora_bias=True), OTHER_CONFIG),
    "config of fewer modules": Fault(config(target_modules=["q_proj"]), OTHER_CONFIG),
    "config of all linear modules": Fault(config(target_modules="all-linear"), OTHER_CONFIG),
    "config whose modules are a number": Fault(config(target_modules=4), OTHER_CONFIG),
    "config without expert weights": Fault(config(target_parameters=None), OTHER_CONFIG),
    "config that reaches the towers": Fault(config(exclude_modules=None), OTHER_CONFIG),
    "config of some layers": Fault(config(layers_to_transform=[0]), OTHER_CONFIG),
    "config that repeats layers": Fault(config(layer_replication=[[0, 2]]), OTHER_CONFIG),
    "config with a key that PEFT does not know": Fault(config(scale=2.0), OTHER_CONFIG),
    # the base
    "config of another base": Fault(
        config(base_model_name_or_path="elsewhere"), "base_revision_matches_contract"
    ),
    "config of another revision": Fault(config(revision="main"), "base_revision_matches_contract"),
    "base of another fingerprint": Fault(
        lambda trained: change_json(trained.checkpoint / "base.json", fingerprint="0" * 64),
        "base_weights_are_those_trained_on",
    ),
    "base of another commit": Fault(
        lambda trained: change_json(trained.checkpoint / "base.json", source="commit " + "f" * 40),
        "base_source_is_the_one_trained_on",
    ),
    "base unnamed": Fault(removed("checkpoint/base.json"), "base_weights_are_those_trained_on"),
    "base not JSON": Fault(written("checkpoint/base.json", b"{"), "base_weights_are_those_trained_on"),
    # what was fitted
    "fitted on another episode": Fault(fit_on_another_episode, *NOT_FITTED_ON_TRAIN),
    "fitted missing": Fault(removed("checkpoint/fitted.json"), *NOT_FITTED_ON_TRAIN),
    "fitted not JSON": Fault(written("checkpoint/fitted.json", b"nothing"), *NOT_FITTED_ON_TRAIN),
    "fitted counts tampered with": Fault(count_an_action_once_more, "fitted_on_train_only"),
    # the seal
    "one byte flipped after sealing": Fault(
        flip_last_byte_but_three, "checkpoint_files_match_manifest", sealed=False
    ),
    "a file gone after sealing": Fault(
        removed(CONFIG), "checkpoint_files_match_manifest", (UNREADABLE_CONFIG,), sealed=False
    ),
    "a file added after sealing": Fault(
        written("checkpoint/notes.txt", b"."), "checkpoint_has_no_other_file", sealed=False
    ),
    "manifest missing": Fault(lambda trained: trained.manifest.unlink(), TORN_MANIFEST, sealed=False),
    "manifest not JSON": Fault(
        written("checkpoint/checkpoint_manifest.json", b'{"files"'), TORN_MANIFEST, sealed=False
    ),
    "manifest without files": Fault(
        written("checkpoint/checkpoint_manifest.json", b"{}"), TORN_MANIFEST, sealed=False
    ),
    "manifest of a newer version": Fault(
        lambda trained: change_json(trained.manifest, schema_version=99), TORN_MANIFEST, sealed=False
    ),
    "trained on another dataset": Fault(
        lambda trained: change_json(trained.manifest, dataset_digest="0" * 64),
        "trained_on_this_dataset",
        sealed=False,
    ),
    # the training ledger
    "a ledger written after sealing": Fault(
        learn_from("kitchen__ep1:20:20"), "ledger_is_the_one_of_the_training", sealed=False
    ),
    "learned from validation": Fault(learn_from("val"), "only_train_samples_were_learned_from"),
    "learned from test": Fault(learn_from("test"), "only_train_samples_were_learned_from"),
    "learned from nothing": Fault(written("training_ledger.jsonl", b""), "training_consumed_samples"),
    "a torn ledger": Fault(written("training_ledger.jsonl", b'{"ids": ["kit'), "training_ledger_is_readable"),
    "a ledger without ids": Fault(
        written("training_ledger.jsonl", b'{"step": 1}\n'), "training_ledger_is_readable"
    ),
}


def _first() -> Any:
    import torch

    return torch.tensor([0])
